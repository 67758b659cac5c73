"""Programs between clients and members."""
