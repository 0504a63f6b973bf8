"""From events to triggers and incidents."""
