"""The commands `etcd`, `etcdctl`, `etcdutl` and `keyraft`, one file each."""
