"""The loaded kernel program as this process sees it: its maps, its ring, its filter."""
