"""From a source of events, live or recorded, into the flight recorder."""
