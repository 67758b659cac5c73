"""Keyraft: etcd v3 in Python."""
