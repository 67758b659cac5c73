"""The configuration of one member: every flag of the server, checked, in one frozen value.

Fields are named after the flags; `_s` are seconds, `_ms` milliseconds, and each holds the
*effective* value: where a flag's 0 means "the default", the default is here. What the flags mean
is in `flagtable`. Sources: etcd `server/embed/config.go`, `server/etcdmain/config.go` (3.7.1).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from keyraft.base.durations import HOUR, SECOND, DurationError, format_duration, parse_duration
from keyraft.base.urls import URL, URLError, parse_urls_map
from keyraft.config.feature_gates import format_gates, is_enabled
from keyraft.config.flagtable import FLAGS
from keyraft.config.flagvalues import parse_integer
from keyraft.logs.zap import DEFAULT_LOGGER, ZapLogger

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
    """One member's immutable configuration, made by `load`."""

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
    nospace_auto_disarm: bool
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
    password_min_length: int

    # Logging and monitoring
    logger: str
    log_outputs: tuple[str, ...]
    log_level: str
    log_format: str
    enable_log_rotation: bool
    log_rotation_config_json: str
    audit_log: str
    audit_log_maxsize: int
    audit_log_maxbackup: int
    audit_log_overflow: str
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
    corrupt_self_repair: bool
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

    @property
    def discovers(self) -> bool:
        """Whether DNS or another cluster says who the members are."""
        return bool(self.discovery_srv or self.discovery_endpoints)

    def gate(self, name: str, unset: bool | None = None) -> bool:
        """Whether a feature gate is on; `unset`: what holds when nobody sets it, if not etcd's."""
        if unset is not None and name not in self.feature_gates:
            return unset
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
