"""The member's counters: plain integers, read only at a scrape.

A count costs the hot path one addition, and a gauge nothing, as gauges are computed at the scrape.
The metrics' names are in `app.member_metrics`; each means what etcd's metric of that name means.
"""

from __future__ import annotations

from keyraft.base.histograms import Histogram, Histograms, exponential
from keyraft.server.request_times import RequestTimes


class Counters:
    """One member's counts since its start."""

    __slots__ = (
        "apply_duration_s",
        "compacted_at_unix_s",
        "compaction_ms",
        "compaction_pause_ms",
        "defrag_inflight",
        "defrag_s",
        "hash_rev_s",
        "hash_s",
        "heartbeat_send_failures",
        "index_compaction_pause_ms",
        "leader_changes_seen",
        "learner_promote_failures",
        "learner_promote_successes",
        "lease_ttl_s",
        "proposals_failed",
        "read_indexes_failed",
        "request_times",
        "slow_apply",
        "slow_read_indexes",
        "snapshot_apply_in_progress",
        "snapshot_stream_s",
    )

    def __init__(self) -> None:
        self.leader_changes_seen = 0
        self.proposals_failed = 0
        self.read_indexes_failed = 0
        self.slow_read_indexes = 0
        self.slow_apply = 0
        self.heartbeat_send_failures = 0
        self.snapshot_apply_in_progress = 0
        self.learner_promote_successes = 0
        self.learner_promote_failures: dict[str, int] = {}
        # Labels (version, op, success). Seconds. A slice of applied entries is observed once per
        # kind with its mean, so a put costs no clock reading.
        self.apply_duration_s = Histograms(exponential(0.0001, 2, 20))
        self.request_times = RequestTimes()
        self.lease_ttl_s = Histograms(exponential(1, 2, 24))
        self.compacted_at_unix_s = 0.0
        self.compaction_ms = Histogram(exponential(100, 2, 14))
        self.compaction_pause_ms = Histogram(exponential(1, 2, 13))
        self.index_compaction_pause_ms = Histogram(exponential(0.5, 2, 14))
        self.defrag_inflight = 0
        self.defrag_s = Histogram(exponential(0.1, 2, 13))
        self.hash_s = Histogram(exponential(0.01, 2, 15))
        self.hash_rev_s = Histogram(exponential(0.01, 2, 15))
        self.snapshot_stream_s = Histogram(exponential(0.01, 2, 17))
