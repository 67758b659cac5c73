"""From a committed entry to what it does, in log order and in slices."""
