"""The shipper's settings: what they are, and how they are read."""
