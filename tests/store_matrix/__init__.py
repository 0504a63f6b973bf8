"""Spoils the talk between the shipper and a real store, request by request, in every way.

`victim` is what is tried, `faults` are what is done to it by the `proxy` before the store, `matrix`
and `kills` are the two ways of trying it, `invariants` is what must hold afterwards.
docs/crash-matrix.md has the figures.
"""
