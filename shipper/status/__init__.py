"""How the shipping stands, in data, in words, in figures."""
