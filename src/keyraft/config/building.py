"""The configuration made from the values of the flags, checked as a whole; raises ConfigError.

What a flag's text may be is the matter of its `Kind`; here is what flags may not be together.
Sources: etcd `server/embed/config.go`, `server/etcdmain/config.go` (3.7.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyraft.base import limits
from keyraft.base.durations import SECOND, format_duration
from keyraft.base.gotext import quote as go_quote
from keyraft.base.urls import URLError, check_bind_urls, check_host_urls
from keyraft.config.config import (
    BCRYPT_COST,
    COMPACTION_BATCH,
    COMPACTION_SLEEP_S,
    DEFAULT_NAME,
    ELECTION_TIMEOUT_MS_MAX,
    PROGRESS_NOTIFY_S,
    PROGRESS_NOTIFY_S_MIN,
    RAFT_IO_TIMEOUT_S_MIN,
    SAMPLING_RATE_MAX,
    TLS_VERSIONS,
    UNSET_ADVERTISE,
    V2_DEPRECATION,
    Config,
    ConfigError,
)
from keyraft.config.flagtable import FLAGS
from keyraft.logs.zap import PLAIN, LoggingError, build_logger


def build_config(values: Mapping[str, Any], explicit: frozenset[str]) -> Config:
    """The checked configuration from values by flag name; raises ConfigError.

    `advertise-client-urls` may be missing (an empty tuple) when it must be given and is not.
    """
    fields = {
        flag.field: values[name]
        for name, flag in FLAGS.items()
        if name not in ("config-file", "version")
    }
    config = Config(**fields, explicit=explicit)
    try:
        log = build_logger(
            config.log_outputs or ("default",),
            config.log_level,
            PLAIN if config.logger == PLAIN else config.log_format,
            config.enable_log_rotation,
            config.log_rotation_config_json,
        )
    except LoggingError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(
            f'open sink "{error.filename}": open {error.filename}: {(error.strerror or "").lower()}'
        ) from None
    config = config._replace(log=log)
    try:
        validate(config)
    except ConfigError as error:
        error.log = log
        raise
    return _with_effective_values(config)


def validate(config: Config) -> None:
    """Refuses, in etcd's order and words, what makes no sense; raises ConfigError."""
    if config.logger not in ("zap", PLAIN):
        raise ConfigError(f"unknown logger option {go_quote(config.logger)}")
    _validate_urls(config)
    _validate_bootstrap(config)
    heartbeat, election = config.heartbeat_interval_ms, config.election_timeout_ms
    if heartbeat == 0:
        raise ConfigError(f"--heartbeat-interval must be >0 (set to {heartbeat}ms)")
    if election == 0:
        raise ConfigError(f"--election-timeout must be >0 (set to {election}ms)")
    if 5 * heartbeat > election:
        raise ConfigError(
            f"--election-timeout[{election}ms] should be at least as 5 times as "
            f"--heartbeat-interval[{heartbeat}ms]"
        )
    if election > ELECTION_TIMEOUT_MS_MAX:
        raise ConfigError(
            f"--election-timeout[{election}ms] is too long, and should be set less than "
            f"{ELECTION_TIMEOUT_MS_MAX}ms"
        )
    if config.listen_client_urls and not config.advertise_client_urls:
        raise ConfigError(UNSET_ADVERTISE)
    if config.auto_compaction_mode == "":
        raise ConfigError("undefined auto-compaction-mode")
    if config.auto_compaction_mode not in ("periodic", "revision"):
        raise ConfigError(f"unknown auto-compaction-mode {go_quote(config.auto_compaction_mode)}")
    _validate_features(config)
    if config.audit_log_overflow not in ("drop", "refuse"):
        raise ConfigError(f"unknown audit-log-overflow {go_quote(config.audit_log_overflow)}")
    if config.name == DEFAULT_NAME:
        config.log.warn(
            "it isn't recommended to use default name, please set a value for --name. "
            "Note that etcd might run into issue when multiple members have the same default name",
            name=config.name,
        )
    _validate_tls(config)


def _validate_urls(config: Config) -> None:
    try:
        check_bind_urls(config.listen_peer_urls)
        check_bind_urls(config.listen_client_urls)
        check_bind_urls(config.listen_client_http_urls)
        if not config.listen_client_http_urls:
            config.log.warn(
                "Running http and grpc server on single port. "
                "This is not recommended for production."
            )
        check_bind_urls(config.listen_metrics_urls)
    except URLError as error:
        raise ConfigError(str(error)) from None
    try:
        check_host_urls(config.initial_advertise_peer_urls)
    except URLError as error:
        urls = ",".join(map(str, config.initial_advertise_peer_urls))
        raise ConfigError(
            f'--initial-advertise-peer-urls {go_quote(urls)} must be "host:port" ({error})'
        ) from None
    try:
        check_host_urls(config.advertise_client_urls)
    except URLError as error:
        urls = ",".join(map(str, config.advertise_client_urls))
        raise ConfigError(
            f'--advertise-client-urls {go_quote(urls)} must be in the format "host:port", '
            f'"unix:/path/to/socket" or "unixs:/path/to/socket" ({error})'
        ) from None


def _validate_bootstrap(config: Config) -> None:
    ways = (config.initial_cluster, config.discovery_srv, config.discovery_endpoints)
    if config.initial_cluster_state not in ("new", "existing"):
        raise ConfigError(f"unexpected clusterState {go_quote(config.initial_cluster_state)}")
    if sum(map(bool, ways)) > 1:
        raise ConfigError(
            "multiple discovery or bootstrap flags are set. "
            'Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"'
        )
    if bool(config.discovery_token) != bool(config.discovery_endpoints):
        raise ConfigError("both --discovery-token and --discovery-endpoints must be set")
    if not all(endpoint.strip() for endpoint in config.discovery_endpoints):
        raise ConfigError("--discovery-endpoints must not contain empty endpoints")


def _validate_features(config: Config) -> None:
    if config.enable_distributed_tracing:
        rate = config.distributed_tracing_sampling_rate
        reason = "must be positive" if rate < 0 else f"must be less than {SAMPLING_RATE_MAX}"
        if not 0 <= rate <= SAMPLING_RATE_MAX:
            raise ConfigError(
                f"distributed tracing configurition is not valid: (tracing sampling rate {reason})"
            )
    if config.gate("LeaseCheckpointPersist") and not config.gate("LeaseCheckpoint"):
        raise ConfigError(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate "
            "LeaseCheckpoint"
        )
    if config.gate("LeaseCheckpoint") and not config.gate("LeaseCheckpointPersist"):
        config.log.warn(
            "Detected that checkpointing is enabled without persistence. "
            "Consider enabling feature gate LeaseCheckpointPersist"
        )
    if config.compact_hash_check_time_s <= 0:
        shown = format_duration(round(config.compact_hash_check_time_s * SECOND))
        raise ConfigError(f"--compact-hash-check-time must be >0 (set to {shown})")


def _validate_tls(config: Config) -> None:
    for version in (config.tls_min_version, config.tls_max_version):
        if version not in TLS_VERSIONS:
            raise ConfigError(
                f"unexpected TLS version {go_quote(version)} (must be one of: TLS1.2, TLS1.3)"
            )
    lowest, highest = TLS_VERSIONS[config.tls_min_version], TLS_VERSIONS[config.tls_max_version]
    if highest and lowest > highest:
        raise ConfigError(
            f"min version ({config.tls_min_version}) is greater than max version "
            f"({config.tls_max_version})"
        )
    if lowest == 13 and config.cipher_suites:
        raise ConfigError("cipher suites cannot be configured when only TLS1.3 is enabled")


def _with_effective_values(config: Config) -> Config:
    cost = config.bcrypt_cost
    if not 4 <= cost <= 31:
        config.log.warn(
            "use default bcrypt cost instead of the invalid given cost",
            min_cost=4,
            max_cost=31,
            default_cost=BCRYPT_COST,
            given_cost=cost,
        )
        cost = BCRYPT_COST
    return config._replace(
        v2_deprecation=V2_DEPRECATION,
        bcrypt_cost=cost,
        quota_backend_bytes=config.quota_backend_bytes or limits.QUOTA_BACKEND_BYTES,
        backend_batch_interval_s=config.backend_batch_interval_s or limits.BACKEND_BATCH_INTERVAL_S,
        backend_batch_limit=config.backend_batch_limit or limits.BACKEND_BATCH_OPS,
        compaction_batch_limit=config.compaction_batch_limit or COMPACTION_BATCH,
        compaction_sleep_interval_s=config.compaction_sleep_interval_s or COMPACTION_SLEEP_S,
        watch_progress_notify_interval_s=max(
            config.watch_progress_notify_interval_s or PROGRESS_NOTIFY_S, PROGRESS_NOTIFY_S_MIN
        ),
        warning_unary_request_duration_s=config.warning_unary_request_duration_s or 0.3,
        raft_read_timeout_s=max(config.raft_read_timeout_s, RAFT_IO_TIMEOUT_S_MIN),
        raft_write_timeout_s=max(config.raft_write_timeout_s, RAFT_IO_TIMEOUT_S_MIN),
        data_dir=config.data_dir or f"{config.name}.etcd",
    )
