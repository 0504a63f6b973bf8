"""Watches the SMB client of the kernel and collects evidence of anomalies."""

__version__ = "0.1.0"
