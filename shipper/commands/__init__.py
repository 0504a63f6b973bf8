"""The subcommands of ``aod-shipper``, one module for each."""
