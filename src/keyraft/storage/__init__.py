"""The write-ahead log, snapshots, the backend."""
