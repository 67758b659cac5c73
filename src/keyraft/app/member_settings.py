"""The member's settings, as the flags say."""

from __future__ import annotations

from keyraft.base.urls import URL
from keyraft.config.config import Config
from keyraft.server import MemberSettings


def member_settings(config: Config, member_id: int, cluster_id: int) -> MemberSettings:
    """Everything of the flags that the member itself asks for."""
    periodic = config.auto_compaction_mode != "revision"
    return MemberSettings(
        member_id=member_id,
        cluster_id=cluster_id,
        name=config.name,
        client_urls=tuple(map(str, config.advertise_client_urls)),
        heartbeat_s=config.heartbeat_interval_ms / 1000,
        election_ticks=config.election_ticks,
        pre_vote=config.pre_vote,
        request_bytes_max=config.max_request_bytes,
        txn_ops_max=config.max_txn_ops,
        snapshot_count=config.snapshot_count,
        snapshot_catchup_entries=config.snapshot_catchup_entries,
        quota_backend_bytes=config.quota_backend_bytes,
        warning_apply_s=config.warning_apply_duration_s,
        strict_reconfig_check=config.strict_reconfig_check,
        learners_max=config.max_learners,
        compaction_batch_revisions=config.compaction_batch_limit,
        compaction_sleep_s=config.compaction_sleep_interval_s,
        auto_compaction_periodic=periodic,
        auto_compaction_retention=(
            config.auto_compaction_s() if periodic else config.auto_compaction_revisions()
        ),
        watch_progress_notify_s=config.watch_progress_notify_interval_s,
        self_repair=config.corrupt_self_repair,
        corrupt_check_s=config.corrupt_check_time_s,
        compact_hash_check_s=(
            config.compact_hash_check_time_s if config.gate("CompactHashCheck") else 0.0
        ),
        client_cert_auth=config.client_cert_auth,
        nospace_auto_disarm=config.nospace_auto_disarm,
        password_length_min=config.password_min_length,
        lease_checkpoints=config.gate("LeaseCheckpoint", unset=True),
        fast_lease_keep_alive=config.gate("FastLeaseKeepAlive"),
        priority_request=config.gate("PriorityRequest"),
    )


def summary(config: Config) -> dict[str, object]:
    """The fields of the line "starting an etcd server"; URLs as texts."""
    listed = config.summary()
    return {
        name: list(map(str, value))
        if isinstance(value, tuple) and value and isinstance(value[0], URL)
        else value
        for name, value in listed.items()
    }
