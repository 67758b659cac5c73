"""Log lines as etcd writes them, and where they go."""
