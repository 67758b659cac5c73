"""From configuration to running member; only here are real clocks, disks and sockets built."""
