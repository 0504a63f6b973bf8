"""Carries finished bundles from a spool to a store."""
