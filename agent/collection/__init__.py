"""From a trigger to a finished bundle."""
