"""The immutable settings of a member, made once by `app`."""

from __future__ import annotations

from dataclasses import dataclass

from keyraft.base import limits


@dataclass(frozen=True, slots=True)
class MemberSettings:
    """The flags that the member's core uses."""

    member_id: int
    cluster_id: int
    name: str
    client_urls: tuple[str, ...]
    heartbeat_s: float = 0.1
    election_ticks: int = 10
    pre_vote: bool = True
    request_bytes_max: int = limits.REQUEST_BYTES_MAX
    txn_ops_max: int = limits.TXN_OPS_MAX
    snapshot_count: int = limits.SNAPSHOT_COUNT
    snapshot_catchup_entries: int = limits.SNAPSHOT_CATCHUP_ENTRIES
    quota_backend_bytes: int = limits.QUOTA_BACKEND_BYTES
    warning_apply_s: float = 0.1
    strict_reconfig_check: bool = True
    learners_max: int = 1
    compaction_batch_revisions: int = 1_000
    compaction_sleep_s: float = 0.01
    auto_compaction_periodic: bool = True
    auto_compaction_retention: float = 0  # seconds or revisions; 0 is off
    watch_progress_notify_s: float = 600.0
    self_repair: bool = True
    corrupt_check_s: float = 0  # between comparisons with the peers' keys; 0 is off
    compact_hash_check_s: float = 0  # between comparisons of compaction hashes; 0 is off
    client_cert_auth: bool = False  # a certificate's common name names a user
    password_length_min: int = 0  # characters of a new password; 0 takes any, also an empty one
    nospace_auto_disarm: bool = True  # when there is room again
    lease_checkpoints: bool = True  # remaining times are proposed
    fast_lease_keep_alive: bool = True  # a known lease is renewed before all is applied
    priority_request: bool = False  # revocations are taken at twice the gap behind the commit index

    @property
    def election_s(self) -> float:
        """The election timeout."""
        return self.heartbeat_s * self.election_ticks

    @property
    def request_timeout_s(self) -> float:
        """How long a proposal or a read index may take: room for two elections (etcd `ReqTimeout`)."""
        return 5.0 + 2 * self.election_s
