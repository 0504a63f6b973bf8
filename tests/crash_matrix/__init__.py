"""Kills or fails the making of a bundle at every I/O step, and replays power losses.

`victim` is what is tried, `matrix` and `power_loss` are the two ways of trying it, `invariants` is
what must hold afterwards. docs/crash-matrix.md has the figures.
"""
