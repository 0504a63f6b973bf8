"""From YAML to frozen settings, with every mistake told by line, key and cure."""
