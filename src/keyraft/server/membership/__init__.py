"""Who belongs to the cluster: as Raft counts votes and as the database tells it."""
