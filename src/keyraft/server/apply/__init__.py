"""Applying committed entries, in log order and in slices."""
