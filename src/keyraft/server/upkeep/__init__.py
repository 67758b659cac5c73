"""What a member does beside requests: leases, compaction, quota, alarms, comparing hashes."""
