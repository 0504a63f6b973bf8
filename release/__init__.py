"""Makes the archive that a host is installed from: ``make dist``."""
