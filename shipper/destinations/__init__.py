"""Where bundles go: the kinds of store, and what is common to them."""
