"""A fleet in virtual machines: `python -m tests.fleet_lab` rolls AOD Fleet out and removes it."""
