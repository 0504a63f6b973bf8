"""The shipper as a service: rounds, rests, and what it tells meanwhile."""
