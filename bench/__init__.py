"""What Weir costs, measured: `make bench`."""
