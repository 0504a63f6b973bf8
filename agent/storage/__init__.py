"""The spool on disk: the contract with the shipper, and its bounds."""
