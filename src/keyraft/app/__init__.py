"""Configuration to running member; the only place that builds real clocks, disks and sockets."""
