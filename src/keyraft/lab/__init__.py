"""A developer's bench: load for any etcd server, a cluster of several members on this machine."""
