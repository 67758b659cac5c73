"""The metrics of a member, collected at a scrape.

Names, types and labels are etcd's, with their oddities (gauges called `_total`). Gauges are
computed at the scrape, so they cost the hot path nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from keyraft.base.histograms import Histogram, Histograms, exponential
from keyraft.base.version import VERSION, runtime_version
from keyraft.cluster import format_id, short
from keyraft.gateway import COUNTER, GAUGE, HISTOGRAM, Family, histograms
from keyraft.grpc import Router
from keyraft.peer.metrics import PeerMetrics
from keyraft.server import DiskWaits, Member
from keyraft.storage.snap import SnapDir


@dataclass(slots=True)
class MemberMetrics:
    """Reads the numbers of one member. `families` is a source of metrics."""

    member: Member
    fsync_s: Histogram
    commit_s: Histogram
    wal_written_bytes: Callable[[], int]
    peers: PeerMetrics
    snapshot_fsync_s: Histogram
    snapshot_saved_s: Histogram
    snapshots: SnapDir
    ranges_answered: Callable[[], int]
    """How often the RPC Range ended well."""
    features: Sequence[tuple[str, str, bool]]
    """Each feature gate, its stage and whether it is on."""
    _observed: dict[str, Histograms] = field(default_factory=dict)

    def families(self) -> Iterator[Family]:
        """All families, in any order."""
        yield from self._member()
        yield from self._requests()
        yield from self._store()
        yield from self._disk()
        yield from self._disk_waits()
        yield from self._peers()

    def _member(self) -> Iterator[Family]:
        member = self.member
        counters = member.counters
        membership = member.membership
        own = format_id(member.settings.member_id)
        version = membership.cluster.version
        yield Family("etcd_server_version", GAUGE, "Which version is running.").add(
            1, server_version=VERSION
        )
        yield Family("etcd_server_go_version", GAUGE, "Which runtime it is running with.").add(
            1, server_go_version=runtime_version()
        )
        yield Family("etcd_server_id", GAUGE, "The id of this member in hexadecimal.").add(
            1, server_id=own
        )
        if version is not None:
            yield Family("etcd_cluster_version", GAUGE, "The version of the cluster.").add(
                1, cluster_version=short(version)
            )
        for name, value, text in (
            ("has_leader", bool(member.leadership.leader), "Whether a leader is known."),
            ("is_leader", member.leadership.leading, "Whether this member leads."),
            ("is_learner", membership.is_learner, "Whether this member has no vote."),
            ("proposals_committed_total", member.committed_index, "The last committed index."),
            ("proposals_applied_total", member.applied_index, "The last applied index."),
            ("proposals_pending", len(member.waiting), "Proposals that wait for their answer."),
            (
                "snapshot_apply_in_progress_total",
                counters.snapshot_apply_in_progress,
                "1 while a snapshot of the leader's is being taken over.",
            ),
            ("quota_backend_bytes", member.quota.bytes_max, "The quota in bytes."),
        ):
            yield Family(f"etcd_server_{name}", GAUGE, text).add(value)
        disk = Family("keyraft_disk_full", GAUGE, "1 while writes are refused for want of room.")
        yield disk.add(member.space.disk.full)
        for name, value, text in (
            ("leader_changes_seen_total", counters.leader_changes_seen, "Leader changes seen."),
            ("proposals_failed_total", counters.proposals_failed, "Proposals that failed."),
            ("heartbeat_send_failures_total", counters.heartbeat_send_failures, "Late heartbeats."),
            ("slow_apply_total", counters.slow_apply, "Applies slower than the warning limit."),
            ("read_indexes_failed_total", counters.read_indexes_failed, "Failed read indexes."),
            ("slow_read_indexes_total", counters.slow_read_indexes, "Late read indexes."),
            (
                "learner_promote_successes",
                counters.learner_promote_successes,
                "Learners promoted while this member led.",
            ),
        ):
            yield Family(f"etcd_server_{name}", COUNTER, text).add(value)
        failures = Family(
            "etcd_server_learner_promote_failures", COUNTER, "Learners not promoted, and why."
        )
        for reason, count in counters.learner_promote_failures.items():
            failures.add(count, Reason=reason)
        yield failures
        yield histograms(
            "etcd_server_apply_duration_seconds",
            "How long requests take to apply.",
            counters.apply_duration_s,
            ("version", "op", "success"),
        )
        gates = Family("etcd_server_feature_enabled", GAUGE, "Which feature gates are on.")
        for name, stage, is_on in self.features:
            gates.add(is_on, name=name, stage=stage)
        yield gates
        alarms = Family("etcd_debugging_server_alarms", GAUGE, "Raised alarms.")
        for kind_number, member_id in member.alarms.raised():
            name = {1: "NOSPACE", 2: "CORRUPT"}.get(kind_number, str(kind_number))
            alarms.add(1, server_id=format_id(member_id), alarm_type=name)
        yield alarms
        known = Family("etcd_network_known_peers", GAUGE, "Members known, this one included.")
        for other in membership.cluster.members:
            known.add(1, Local=own, Remote=format_id(other.id))
        yield known

    def _requests(self) -> Iterator[Family]:
        times = self.member.counters.request_times
        times.settle(self.ranges_answered())
        yield histograms(
            "etcd_server_request_duration_seconds",
            "How long requests take until they are applied or read, by their type.",
            times.requests,
            ("type", "success"),
        )
        yield histograms(
            "etcd_server_range_duration_seconds",
            "How long it takes to read the keys of a range.",
            times.ranges,
            ("success",),
        )
        for name, found, text in (
            ("", times.watch_message, "What one message to a watcher takes."),
            ("_per_event", times.watch_event, "The same for one of its events."),
        ):
            yield Family(
                f"etcd_debugging_server_watch_send_loop_watch_stream_duration{name}_seconds",
                HISTOGRAM,
                text,
            ).add_histogram(found)

    def _store(self) -> Iterator[Family]:
        member = self.member
        store = member.store
        sizes = store.statistics()
        leases = member.lessor
        watches = member.watches.statistics()
        for name, value, text in (
            ("etcd_debugging_mvcc_current_revision", store.revision, "The current revision."),
            (
                "etcd_debugging_mvcc_compact_revision",
                store.compact_revision,
                "The revision of the last compaction.",
            ),
            (
                "etcd_debugging_mvcc_db_compaction_last",
                int(member.counters.compacted_at_unix_s),
                "When the last compaction ended, in Unix time.",
            ),
            ("etcd_debugging_mvcc_keys_total", sizes["keys"], "Keys alive."),
            (
                "etcd_mvcc_db_total_size_in_bytes",
                member.backend.size_bytes,
                "What the database takes on disk.",
            ),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                member.backend.size_in_use_bytes,
                "What of it holds data.",
            ),
            (
                "etcd_mvcc_db_open_read_transactions",
                store.compactions.pins,
                "Reads in steps, which hold compactions back.",
            ),
            ("etcd_debugging_auth_revision", member.auth.revision, "The revision of the users."),
            (
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                store.put_bytes,
                "Bytes of all keys and values put.",
            ),
            ("etcd_debugging_mvcc_watch_stream_total", watches["streams"], "Open watch streams."),
            ("etcd_debugging_mvcc_watcher_total", watches["watchers"], "Watchers."),
            (
                "etcd_debugging_mvcc_slow_watcher_total",
                watches["slow_watchers"],
                "Watchers that are not in sync.",
            ),
            (
                "etcd_debugging_mvcc_pending_events_total",
                watches["pending_events"],
                "Events that wait to be sent.",
            ),
        ):
            yield Family(name, GAUGE, text).add(value)
        for name, value, text in (
            ("etcd_mvcc_put_total", store.puts, "Puts applied."),
            ("etcd_mvcc_delete_total", store.deletes, "Keys deleted."),
            ("etcd_mvcc_range_total", store.ranges, "Ranges served."),
            ("etcd_debugging_mvcc_range_total", store.ranges, "The same by its former name."),
            ("etcd_mvcc_txn_total", store.txns, "Transactions of more than one change."),
            ("etcd_debugging_mvcc_events_total", watches["events"], "Watch events sent."),
            (
                "etcd_debugging_mvcc_db_compaction_keys_total",
                store.compactions.removed_rows,
                "Rows that compactions removed.",
            ),
        ):
            yield Family(name, COUNTER, text).add(value)
        for name, value, text in (
            ("etcd_debugging_lease_granted_total", leases.granted_total, "Leases granted."),
            ("etcd_debugging_lease_revoked_total", leases.revoked_total, "Leases revoked."),
            ("etcd_debugging_lease_renewed_total", leases.renewed_total, "Leases renewed."),
            (
                "etcd_debugging_server_lease_expired_total",
                member.leasing.expired_total,
                "Leases revoked because they ran out.",
            ),
        ):
            yield Family(name, COUNTER, text).add(value)
        yield histograms(
            "etcd_debugging_lease_ttl_total",
            "TTLs granted, in seconds.",
            member.counters.lease_ttl_s,
            (),
        )

    def _disk_waits(self) -> Iterator[Family]:
        """Of our own: what a stalled disk shows, whose durations above never end."""
        member = self.member
        waits = DiskWaits(member.raft, member.backend, member.loop)
        for name, value, text in (
            ("wal_write", waits.log_s(), "the write of the log"),
            ("backend_commit", waits.database_s(), "the database's commit or defragmentation"),
        ):
            yield Family(
                f"keyraft_disk_{name}_in_progress_seconds",
                GAUGE,
                f"How long {text} that is under way has taken so far.",
            ).add(value)

    def _disk(self) -> Iterator[Family]:
        counters = self.member.counters
        for name, found, text in (
            ("disk_wal_fsync_duration_seconds", self.fsync_s, "Syncs of the log."),
            (
                "disk_wal_write_duration_seconds",
                self.fsync_s,
                "Writes of the log: a write and its sync are one here.",
            ),
            ("disk_backend_commit_duration_seconds", self.commit_s, "Commits of the database."),
            (
                "debugging_disk_backend_commit_write_duration_seconds",
                self.commit_s,
                "The same: LMDB writes when it commits.",
            ),
            ("disk_backend_defrag_duration_seconds", counters.defrag_s, "Defragmentations."),
            (
                "disk_backend_snapshot_duration_seconds",
                counters.snapshot_stream_s,
                "Snapshots sent to clients.",
            ),
            (
                "debugging_mvcc_db_compaction_total_duration_milliseconds",
                counters.compaction_ms,
                "Whole compactions.",
            ),
            (
                "debugging_mvcc_db_compaction_pause_duration_milliseconds",
                counters.compaction_pause_ms,
                "Slices of compactions, which hold up the others.",
            ),
            (
                "debugging_mvcc_index_compaction_pause_duration_milliseconds",
                counters.index_compaction_pause_ms,
                "The same: a slice compacts the index for the rows that it passes.",
            ),
            ("snap_fsync_duration_seconds", self.snapshots.synced_s, "Syncs of snapshot files."),
            (
                "debugging_snap_save_total_duration_seconds",
                self.snapshots.saved_s,
                "Snapshot files saved.",
            ),
            (
                "debugging_snap_save_marshalling_duration_seconds",
                self.snapshots.encoded_s,
                "Snapshot files encoded.",
            ),
            ("mvcc_hash_duration_seconds", counters.hash_s, "Hashes of all buckets."),
            ("mvcc_hash_rev_duration_seconds", counters.hash_rev_s, "Hashes of the keys."),
            ("snap_db_fsync_duration_seconds", self.snapshot_fsync_s, "Syncs of received ones."),
            (
                "snap_db_save_total_duration_seconds",
                self.snapshot_saved_s,
                "Databases received and saved.",
            ),
        ):
            yield Family(f"etcd_{name}", HISTOGRAM, text).add_histogram(found)
        yield Family("etcd_disk_defrag_inflight", GAUGE, "Defragmentations under way.").add(
            counters.defrag_inflight
        )
        yield Family("etcd_disk_wal_write_bytes_total", GAUGE, "Bytes written to the log.").add(
            self.wal_written_bytes()
        )

    def _peers(self) -> Iterator[Family]:
        peers = self.peers
        own = format_id(self.member.settings.member_id)
        active = Family("etcd_network_active_peers", GAUGE, "Peers with open streams.")
        for peer in sorted(peers.active):
            active.add(1, Local=own, Remote=peer)
        yield active
        lost = Family("etcd_network_disconnected_peers_total", COUNTER, "Peers lost.")
        for peer, count in peers.disconnected.items():
            lost.add(count, Local=own, Remote=peer)
        yield lost
        for name, label, counts, text in (
            ("peer_sent_bytes_total", "To", peers.sent_bytes, "Bytes sent to peers."),
            ("peer_received_bytes_total", "From", peers.received_bytes, "Bytes from peers."),
            ("peer_sent_failures_total", "To", peers.sent_failures, "Failed sends."),
            ("peer_received_failures_total", "From", peers.received_failures, "Failed receives."),
            ("snapshot_send_success", "To", peers.snapshot_sent, "Snapshots sent."),
            ("snapshot_send_failures", "To", peers.snapshot_send_failures, "Snapshots not sent."),
            ("snapshot_receive_success", "From", peers.snapshot_received, "Snapshots received."),
            (
                "snapshot_receive_failures",
                "From",
                peers.snapshot_receive_failures,
                "Snapshots not received.",
            ),
        ):
            family = Family(f"etcd_network_{name}", COUNTER, text)
            for peer, count in counts.items():
                family.add(count, **{label: peer})
            yield family
        for name, label, counts, text in (
            ("snapshot_send_inflights_total", "To", peers.snapshot_send_inflight, "Being sent."),
            (
                "snapshot_receive_inflights_total",
                "From",
                peers.snapshot_receive_inflight,
                "Being received.",
            ),
        ):
            family = Family(f"etcd_network_{name}", GAUGE, f"Snapshots. {text}")
            for peer, count in counts.items():
                family.add(count, **{label: peer})
            yield family
        for name, label, bounds, taken, text in (
            (
                "peer_round_trip_time_seconds",
                "To",
                exponential(0.0001, 2, 16),
                peers.round_trip_s,
                "Round trips to peers.",
            ),
            (
                "snapshot_send_total_duration_seconds",
                "To",
                exponential(0.1, 2, 10),
                peers.snapshot_send_s,
                "How long snapshots take to send.",
            ),
            (
                "snapshot_receive_total_duration_seconds",
                "From",
                exponential(0.1, 2, 10),
                peers.snapshot_receive_s,
                "How long snapshots take to receive.",
            ),
        ):
            found = self._observed.setdefault(name, Histograms(bounds))
            for peer, seconds in taken:
                found.of(peer).observe(seconds)
            taken.clear()
            yield histograms(f"etcd_network_{name}", text, found, (label,))


def ranges_answered(router: Router) -> int:
    """How often the RPC Range of a router ended well."""
    route = router.find(b"/etcdserverpb.KV/Range")
    return route.handled[0] if route is not None else 0
