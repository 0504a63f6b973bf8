"""What people ask of shipping and of the store, bundle by bundle."""
