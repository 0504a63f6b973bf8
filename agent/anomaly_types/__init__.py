"""Kinds of trouble, one file each: its settings, what it asks of the kernel, its detector."""
