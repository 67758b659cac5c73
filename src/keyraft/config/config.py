"""The configuration of one member: every flag of the server, checked, in one frozen value.

Fields are named after the flags; `_s` are seconds, `_ms` milliseconds, and each holds the
*effective* value: where a flag's 0 means "the default", the default is here. What the flags mean
is in `flagtable`. Sources: etcd `server/embed/config.go`, `server/etcdmain/config.go` (3.7.1).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyraft.base import limits
from keyraft.base.durations import HOUR, SECOND, DurationError, format_duration, parse_duration
from keyraft.base.gotext import quote as go_quote
from keyraft.base.urls import URL, URLError, check_bind_urls, check_host_urls, parse_urls_map
from keyraft.config.feature_gates import format_gates, is_enabled
from keyraft.config.flagtable import FLAGS
from keyraft.config.flagvalues import parse_integer
from keyraft.logs.zap import DEFAULT_LOGGER, LoggingError, ZapLogger, build_logger

if TYPE_CHECKING:
    from keyraft.net import Terms

DEFAULT_NAME: Final = "default"
DEFAULT_ADVERTISE_PEER: Final = "http://localhost:2380"
DEFAULT_ADVERTISE_CLIENT: Final = "http://localhost:2379"
DEFAULT_INITIAL_CLUSTER: Final = "default=http://localhost:2380"
ELECTION_TIMEOUT_MS_MAX: Final = 50_000
RAFT_IO_TIMEOUT_S_MIN: Final = 5.0
PROGRESS_NOTIFY_S: Final = 600.0
PROGRESS_NOTIFY_S_MIN: Final = 0.1
COMPACTION_BATCH: Final = 1_000  # revisions
COMPACTION_SLEEP_S: Final = 0.01
SAMPLING_RATE_MAX: Final = 1_000_000
BCRYPT_COST: Final = 10
V2_DEPRECATION: Final = "write-only"  # the value in force, whatever was given, as in 3.7
TLS_VERSIONS: Final = {"": 0, "TLS1.2": 12, "TLS1.3": 13}

UNSET_ADVERTISE: Final = (
    "--advertise-client-urls is required when --listen-client-urls is set explicitly"
)


class ConfigError(ValueError):
    """The configuration makes no sense; the message is etcd's, exit code 1.

    `log` is the logger for it: the one of the flags, if they were read so far.
    """

    log: ZapLogger = DEFAULT_LOGGER


class Config(NamedTuple):
    """One member's configuration; made by `load`, changed by nobody."""

    # Member
    name: str
    data_dir: str
    wal_dir: str
    snapshot_count: int
    snapshot_catchup_entries: int
    heartbeat_interval_ms: int
    election_timeout_ms: int
    initial_election_tick_advance: bool
    listen_peer_urls: tuple[URL, ...]
    listen_client_urls: tuple[URL, ...]
    listen_client_http_urls: tuple[URL, ...]
    max_snapshots: int
    max_wals: int
    memory_mlock: bool
    quota_backend_bytes: int
    backend_bbolt_freelist_type: str
    backend_batch_interval_s: float
    backend_batch_limit: int
    max_txn_ops: int
    max_request_bytes: int
    max_concurrent_streams: int
    grpc_keepalive_min_time_s: float
    grpc_keepalive_interval_s: float
    grpc_keepalive_timeout_s: float
    socket_reuse_port: bool
    socket_reuse_address: bool
    enable_grpc_gateway: bool
    raft_read_timeout_s: float
    raft_write_timeout_s: float
    feature_gates: Mapping[str, bool]

    # Clustering
    initial_advertise_peer_urls: tuple[URL, ...]
    initial_cluster: str
    initial_cluster_state: str
    initial_cluster_token: str
    advertise_client_urls: tuple[URL, ...]
    discovery_token: str
    discovery_endpoints: tuple[str, ...]
    discovery_dial_timeout_s: float
    discovery_request_timeout_s: float
    discovery_keepalive_time_s: float
    discovery_keepalive_timeout_s: float
    discovery_insecure_transport: bool
    discovery_insecure_skip_tls_verify: bool
    discovery_cert: str
    discovery_key: str
    discovery_cacert: str
    discovery_user: str
    discovery_password: str
    discovery_fallback: str
    discovery_srv: str
    discovery_srv_name: str
    strict_reconfig_check: bool
    pre_vote: bool
    auto_compaction_retention: str
    auto_compaction_mode: str
    v2_deprecation: str

    # Security
    cert_file: str
    key_file: str
    client_cert_file: str
    client_key_file: str
    client_cert_auth: bool
    client_crl_file: str
    client_cert_allowed_hostname: tuple[str, ...]
    trusted_ca_file: str
    auto_tls: bool
    peer_cert_file: str
    peer_key_file: str
    peer_client_cert_file: str
    peer_client_key_file: str
    peer_client_cert_auth: bool
    peer_trusted_ca_file: str
    peer_auto_tls: bool
    peer_cert_allowed_cn: tuple[str, ...]
    peer_cert_allowed_hostname: tuple[str, ...]
    peer_crl_file: str
    peer_skip_client_san_verification: bool
    self_signed_cert_validity: int
    cipher_suites: tuple[str, ...]
    tls_min_version: str
    tls_max_version: str
    cors: tuple[str, ...]
    host_whitelist: tuple[str, ...]

    # Auth
    auth_token: str
    auth_token_ttl: int
    bcrypt_cost: int

    # Logging and monitoring
    logger: str
    log_outputs: tuple[str, ...]
    log_level: str
    log_format: str
    enable_log_rotation: bool
    log_rotation_config_json: str
    enable_pprof: bool
    metrics: str
    listen_metrics_urls: tuple[URL, ...]
    warning_apply_duration_s: float
    warning_unary_request_duration_s: float

    # Tracing
    enable_distributed_tracing: bool
    distributed_tracing_address: str
    distributed_tracing_service_name: str
    distributed_tracing_instance_id: str
    distributed_tracing_sampling_rate: int

    # Data care
    corrupt_check_time_s: float
    compact_hash_check_time_s: float
    compaction_batch_limit: int
    compaction_sleep_interval_s: float
    watch_progress_notify_interval_s: float
    downgrade_check_time_s: float
    bootstrap_defrag_threshold_megabytes: int
    max_learners: int

    # Unsafe and other
    unsafe_no_fsync: bool
    force_new_cluster: bool

    explicit: frozenset[str] = frozenset()
    """The flags, or the keys of the file, that were set explicitly."""
    log: ZapLogger = DEFAULT_LOGGER
    """The logger that these flags describe."""

    @property
    def election_ticks(self) -> int:
        """The election timeout in heartbeats."""
        return self.election_timeout_ms // self.heartbeat_interval_ms

    @property
    def member_dir(self) -> str:
        """Where this member's files live."""
        return f"{self.data_dir}/member"

    @property
    def wal_directory(self) -> str:
        """Where the log's segments live, dedicated or not."""
        return self.wal_dir or f"{self.member_dir}/wal"

    @property
    def snap_directory(self) -> str:
        """Where snapshots and the database live."""
        return f"{self.member_dir}/snap"

    @property
    def request_timeout_s(self) -> float:
        """How long a proposal or a read index may take: 5 s and two election timeouts."""
        return 5.0 + 2 * self.election_timeout_ms / 1000

    def gate(self, name: str) -> bool:
        """Whether a feature gate is on."""
        return is_enabled(self.feature_gates, name)

    def tls_terms(self) -> Terms:
        """The TLS versions and cipher suites that clients and peers may use with this member."""
        from keyraft.net import Terms

        return Terms(self.tls_min_version, self.tls_max_version, self.cipher_suites)

    def peer_urls_map(self) -> dict[str, tuple[URL, ...]]:
        """Member name → peer URLs of the initial cluster; raises ConfigError."""
        try:
            return parse_urls_map(self.initial_cluster)
        except URLError as error:
            raise ConfigError(f"error setting up initial cluster: {error}") from None

    def auto_compaction_s(self) -> float:
        """The retention of periodic compaction in seconds; 0 is off. Raises ConfigError."""
        return _retention(self.auto_compaction_mode, self.auto_compaction_retention) / SECOND

    def auto_compaction_revisions(self) -> int:
        """The retention of compaction by revision; 0 is off. Raises ConfigError."""
        return _retention(self.auto_compaction_mode, self.auto_compaction_retention)

    def summary(self) -> dict[str, object]:
        """Flag → value, as the line "starting an etcd server" lists them."""
        listed: dict[str, object] = {}
        for flag in FLAGS.values():
            if not hasattr(self, flag.field) or "password" in flag.name:
                continue
            value = getattr(self, flag.field)
            if flag.field.endswith("_s"):
                value = format_duration(round(value * SECOND))
            elif flag.name == "feature-gates":
                value = format_gates(value)
            listed[flag.name] = value
        return listed


def _retention(mode: str, text: str) -> int:
    """Nanoseconds or revisions (etcd `parseCompactionRetention`)."""
    count = parse_integer(text or "0")
    if count is not None and count >= 0:
        return count if mode == "revision" else count * HOUR
    try:
        return parse_duration(text)
    except DurationError as error:
        raise ConfigError(f"error parsing CompactionRetention: {error}") from None


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
            config.log_format,
            config.enable_log_rotation,
            config.log_rotation_config_json,
        )
    except LoggingError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(
            f'couldn\'t open sink "{error.filename}": open {error.filename}: '
            f"{(error.strerror or '').lower()}"
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
    if config.logger != "zap":
        if config.logger == "capnslog":
            raise ConfigError("--logger=capnslog is removed in v3.5")
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
    if config.cipher_suites:
        from keyraft.net import unknown_suite  # without suites a start needs no OpenSSL

        suite = unknown_suite(config.cipher_suites)
        if suite is not None:
            raise ConfigError(f"unexpected TLS cipher suite {go_quote(suite)}")


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


def with_default_host(config: Config, host: str) -> Config:
    """Follows the name and, on 0.0.0.0, the machine's address in what is advertised.

    `host` is the machine's own address or empty. Only defaults are changed. So others find a member
    that was given only its name, or that listens on all addresses (etcd
    `UpdateDefaultClusterFromName`).
    """
    peers, clients = config.initial_advertise_peer_urls, config.advertise_client_urls
    default_cluster = config.initial_cluster == DEFAULT_INITIAL_CLUSTER
    changed = False
    if host and [str(url) for url in peers] == [DEFAULT_ADVERTISE_PEER]:
        if config.listen_peer_urls[0].hostname == "0.0.0.0":
            peers = (_url(host, config.listen_peer_urls[0].port),)
            changed = True
    if host and [str(url) for url in clients] == [DEFAULT_ADVERTISE_CLIENT]:
        if config.listen_client_urls[0].hostname == "0.0.0.0":
            clients = (_url(host, config.listen_client_urls[0].port),)
            changed = True
    cluster = config.initial_cluster
    if config.name != DEFAULT_NAME and default_cluster:
        cluster = ",".join(f"{config.name or DEFAULT_NAME}={url}" for url in peers)
    if changed:
        config.log.info("detected default host for advertise", host=host)
    return config._replace(
        initial_advertise_peer_urls=peers,
        advertise_client_urls=clients,
        initial_cluster=cluster,
    )


def _url(host: str, port: int) -> URL:
    return URL("http", f"{host}:{port}", "", f"http://{host}:{port}")


def machine_address() -> str:
    """The address from which this machine would connect to others; empty without a route.

    Nothing is sent: connecting a datagram socket only asks the kernel for the route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: a reserved network
        except OSError:
            return ""
        return str(probe.getsockname()[0])
