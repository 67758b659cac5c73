"""Sessions of the original etcdctl against the original server and ours, side by side."""
