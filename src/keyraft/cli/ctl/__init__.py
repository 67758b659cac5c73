"""What `etcdctl` is made of: the command tree, its flags, its output forms, its commands."""
