"""The commands of `etcdutl`."""
