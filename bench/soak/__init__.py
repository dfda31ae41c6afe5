"""Everything at once, and then all must be as it was: `make soak`."""
