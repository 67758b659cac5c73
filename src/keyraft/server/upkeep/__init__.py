"""A member's background work: leases, compaction, quota, alarms, comparing hashes."""
