"""Every flag of the server (etcd 3.7.1): its kind, its default, and what it means.

The table is the one source of the command line, the environment variables, the configuration
file's keys and the help text. Durations are kept in seconds (`…_s`), the two intervals of Raft
in milliseconds (`…_ms`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from keyraft.config.flagvalues import (
    BOOL,
    CLUSTER_STATE,
    DURATION,
    FALLBACK,
    GATES,
    INT,
    INT64,
    ORIGINS,
    STRING,
    STRINGS,
    UINT,
    UINT32,
    UINT64,
    UNIQUE,
    URLS,
    V2_PHASE,
    Kind,
)

Row = tuple[str, Kind, str, str]


class Flag(NamedTuple):
    """One flag; `default` is text as an operator would write it."""

    name: str
    kind: Kind
    default: str
    section: str
    help: str

    @property
    def field(self) -> str:
        """The name of the field of `Config` that holds the value."""
        unit = "_s" if self.kind is DURATION else "_ms" if self.name in IN_MILLISECONDS else ""
        return self.name.replace("-", "_") + unit

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "ETCD_" + self.name.upper().replace("-", "_")


IN_MILLISECONDS: Final = ("heartbeat-interval", "election-timeout")

_SECTIONS: Final[dict[str, tuple[Row, ...]]] = {
    "Member": (
        (
            "name",
            STRING,
            "default",
            "Member name; must match its key in initial-cluster; a warning is logged if left at default",
        ),
        (
            "data-dir",
            STRING,
            "",
            "Where member/ (wal, snap) lives; empty value triggers the default",
        ),
        ("wal-dir", STRING, "", "Separate directory for WAL (default data-dir/member/wal)"),
        ("snapshot-count", UINT64, "10000", "Applied entries between on-disk snapshots"),
        (
            "snapshot-catchup-entries",
            UINT64,
            "5000",
            "Raft entries kept in memory after log compaction for slow followers",
        ),
        (
            "heartbeat-interval",
            UINT,
            "100",
            "Milliseconds between leader heartbeats; also the raft tick",
        ),
        (
            "election-timeout",
            UINT,
            "1000",
            "Milliseconds without a leader before an election; must be at least 5× heartbeat-interval and at most 50000",
        ),
        (
            "initial-election-tick-advance",
            BOOL,
            "true",
            "On boot skip most of the first election timeout",
        ),
        ("listen-peer-urls", URLS, "http://localhost:2380", "Peer listen URLs (comma list)"),
        (
            "listen-client-urls",
            URLS,
            "http://localhost:2379",
            "Listen URLs for gRPC (and HTTP unless listen-client-http-urls is set)",
        ),
        (
            "listen-client-http-urls",
            URLS,
            "",
            "HTTP-only client URLs; when set, listen-client-urls serve gRPC only",
        ),
        ("max-snapshots", UINT, "5", "Snapshot files (.snap and .snap.db) to keep, 0 = all"),
        ("max-wals", UINT, "5", "Log files to keep, 0 = all; purge pass every 30 s"),
        ("memory-mlock", BOOL, "false", "Lock pages of the database in memory"),
        (
            "quota-backend-bytes",
            INT64,
            "0",
            "Database size limit; 0 = 2147483648; negative = no quota; more than 8 GiB only warns",
        ),
        (
            "nospace-auto-disarm",
            BOOL,
            "true",
            "Disarm NOSPACE when a compaction has made room again (not a flag of etcd)",
        ),
        ("backend-bbolt-freelist-type", STRING, "", "Free-list representation: array or map"),
        (
            "backend-batch-interval",
            DURATION,
            "0s",
            "Longest delay before a database commit; 0 = 100ms",
        ),
        (
            "backend-batch-limit",
            INT,
            "0",
            "Most buffered operations before a database commit; 0 = 10000",
        ),
        ("max-txn-ops", UINT, "128", "Limit on compares/ops per txn"),
        (
            "max-request-bytes",
            UINT,
            "1572864",
            "Limit on one proposal; gRPC receive limit is this + 524288; >10 MiB warns",
        ),
        ("max-concurrent-streams", UINT32, "4294967295", "HTTP/2 streams per client connection"),
        ("grpc-keepalive-min-time", DURATION, "5s", "Clients pinging faster are cut off"),
        ("grpc-keepalive-interval", DURATION, "2h0m0s", "Server ping period, 0 disables"),
        (
            "grpc-keepalive-timeout",
            DURATION,
            "20s",
            "Extra wait before closing after a ping, 0 disables",
        ),
        ("socket-reuse-port", BOOL, "false", "SO_REUSEPORT on listeners"),
        ("socket-reuse-address", BOOL, "false", "SO_REUSEADDR on listeners"),
        ("enable-grpc-gateway", BOOL, "true", "Serve the JSON gateway under /v3/"),
        (
            "raft-read-timeout",
            DURATION,
            "5s",
            "Read deadline on peer connections; values below 5s are raised to 5s",
        ),
        ("raft-write-timeout", DURATION, "5s", "Write deadline on peer connections; same floor"),
        ("feature-gates", GATES, "", "Comma list Name=true/false"),
    ),
    "Clustering": (
        (
            "initial-advertise-peer-urls",
            URLS,
            "http://localhost:2380",
            "This member's peer URLs told to others",
        ),
        (
            "initial-cluster",
            STRING,
            "default=http://localhost:2380",
            "Bootstrap map name=url,…; if only name changes the default follows the name; cleared when discovery is used",
        ),
        (
            "initial-cluster-state",
            CLUSTER_STATE,
            "new",
            "'new' for a new cluster, 'existing' to join one",
        ),
        ("initial-cluster-token", STRING, "etcd-cluster", "Salt of member and cluster IDs"),
        (
            "advertise-client-urls",
            URLS,
            "http://localhost:2379",
            "Client URLs published to the cluster; mandatory if listen-client-urls is set by flag",
        ),
        ("discovery-token", STRING, "", "V3 discovery: token (needs discovery-endpoints)"),
        ("discovery-endpoints", UNIQUE, "", "V3 discovery: gRPC endpoints of the registry cluster"),
        ("discovery-dial-timeout", DURATION, "2s", "V3 discovery: dial timeout"),
        ("discovery-request-timeout", DURATION, "5s", "V3 discovery: per request timeout"),
        ("discovery-keepalive-time", DURATION, "2s", "V3 discovery: client keepalive period"),
        ("discovery-keepalive-timeout", DURATION, "6s", "V3 discovery: client keepalive timeout"),
        ("discovery-insecure-transport", BOOL, "true", "V3 discovery: no TLS"),
        (
            "discovery-insecure-skip-tls-verify",
            BOOL,
            "false",
            "V3 discovery: do not verify server cert",
        ),
        ("discovery-cert", STRING, "", "V3 discovery: client certificate"),
        ("discovery-key", STRING, "", "V3 discovery: client key"),
        ("discovery-cacert", STRING, "", "V3 discovery: CA bundle"),
        ("discovery-user", STRING, "", "V3 discovery: user name (user[:password])"),
        ("discovery-password", STRING, "", "V3 discovery: password"),
        ("discovery-fallback", FALLBACK, "exit", "What to do when discovery fails: 'exit'"),
        ("discovery-srv", STRING, "", "DNS domain for SRV bootstrap"),
        (
            "discovery-srv-name",
            STRING,
            "",
            "Suffix for SRV service names (etcd-server[-ssl]-<name>)",
        ),
        ("strict-reconfig-check", BOOL, "true", "Refuse membership changes that would lose quorum"),
        ("pre-vote", BOOL, "true", "Raft pre-vote"),
        (
            "auto-compaction-retention",
            STRING,
            "0",
            "0 off; periodic: integer = hours, else Go duration; revision: count",
        ),
        (
            "auto-compaction-mode",
            STRING,
            "periodic",
            "'periodic' or 'revision' (which looks every 5 minutes)",
        ),
        ("v2-deprecation", V2_PHASE, "write-only", "Accepted and ignored"),
    ),
    "Security": (
        ("cert-file", STRING, "", "Client-facing server certificate"),
        ("key-file", STRING, "", "Its key"),
        (
            "client-cert-file",
            STRING,
            "",
            "Certificate shown by this server as a client; checked at the start, nothing here shows it",
        ),
        ("client-key-file", STRING, "", "Its key"),
        (
            "client-cert-auth",
            BOOL,
            "false",
            "Require and verify client certificates (CN becomes user name)",
        ),
        ("client-crl-file", STRING, "", "Revoked client certificates"),
        ("client-cert-allowed-hostname", STRINGS, "", "Allowed SAN host names, comma list"),
        ("trusted-ca-file", STRING, "", "CA for client certificates"),
        ("auto-tls", BOOL, "false", "Self-signed client TLS"),
        ("peer-cert-file", STRING, "", "Peer certificate"),
        ("peer-key-file", STRING, "", "Its key"),
        ("peer-client-cert-file", STRING, "", "Certificate used when dialing peers"),
        ("peer-client-key-file", STRING, "", "Its key"),
        ("peer-client-cert-auth", BOOL, "false", "Require peer client certificates"),
        ("peer-trusted-ca-file", STRING, "", "Peer CA"),
        ("peer-auto-tls", BOOL, "false", "Self-signed peer TLS"),
        ("peer-cert-allowed-cn", STRINGS, "", "Allowed CNs of peers"),
        ("peer-cert-allowed-hostname", STRINGS, "", "Allowed SAN hosts of peers"),
        ("peer-crl-file", STRING, "", "Revoked peer certificates"),
        ("peer-skip-client-san-verification", BOOL, "false", "Do not check peer client SAN"),
        ("self-signed-cert-validity", UINT, "1", "Years for auto-TLS certificates"),
        ("cipher-suites", STRINGS, "", "TLS 1.2 suites; error if only TLS1.3 is allowed"),
        ("tls-min-version", STRING, "TLS1.2", "TLS1.2 or TLS1.3"),
        ("tls-max-version", STRING, "", "Same values or empty = highest"),
        ("cors", ORIGINS, "*", "Allowed browser origins"),
        (
            "host-whitelist",
            UNIQUE,
            "*",
            "Allowed HTTP Host names on insecure listeners (421 otherwise)",
        ),
    ),
    "Auth": (
        (
            "auth-token",
            STRING,
            "simple",
            "'simple', or jwt,sign-method=…,pub-key=…,priv-key=…,ttl=…",
        ),
        ("auth-token-ttl", UINT, "300", "Seconds a simple token lives after last use"),
        (
            "bcrypt-cost",
            UINT,
            "10",
            "Password hash cost 4-31 (another value becomes 10 with a warning)",
        ),
        (
            "password-min-length",
            UINT,
            "0",
            "Characters a new password must have, 0 = any (not a flag of etcd)",
        ),
    ),
    "Logging and monitoring": (
        ("logger", STRING, "zap", "zap, or capnslog for the plain lines of etcd 3.3"),
        (
            "log-outputs",
            UNIQUE,
            "default",
            "'default', stdout, stderr, systemd/journal or file paths",
        ),
        ("log-level", STRING, "info", "debug, info, warn, error, panic, fatal"),
        ("log-format", STRING, "json", "json or console"),
        ("enable-log-rotation", BOOL, "false", "Rotate a single file output"),
        (
            "log-rotation-config-json",
            STRING,
            '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}',
            "Rotation settings",
        ),
        (
            "audit-log",
            STRING,
            "",
            "File, or stderr, for a line of JSON per call of a client (not a flag of etcd)",
        ),
        (
            "audit-log-maxsize",
            UINT,
            "100",
            "MiB from which the file is set aside, 0 = no limit (not a flag of etcd)",
        ),
        (
            "audit-log-maxbackup",
            UINT,
            "10",
            "Files set aside that are kept, 0 = all (not a flag of etcd)",
        ),
        (
            "audit-log-overflow",
            STRING,
            "drop",
            "While the file cannot be written: 'drop' lines or 'refuse' calls (not a flag of etcd)",
        ),
        (
            "enable-pprof",
            BOOL,
            "false",
            "/debug/pprof on client URLs (also on when log-level=debug)",
        ),
        (
            "metrics",
            STRING,
            "basic",
            "'basic' or 'extensive', which adds latency histograms of every RPC",
        ),
        ("listen-metrics-urls", URLS, "", "Extra listeners for /metrics and health paths"),
        ("warning-apply-duration", DURATION, "100ms", "Slow-apply log threshold"),
        (
            "warning-unary-request-duration",
            DURATION,
            "300ms",
            "Slow-RPC log threshold (0 means 300ms)",
        ),
    ),
    "Tracing": (
        ("enable-distributed-tracing", BOOL, "false", "OpenTelemetry export"),
        ("distributed-tracing-address", STRING, "localhost:4317", "OTLP collector"),
        ("distributed-tracing-service-name", STRING, "etcd", "Service name"),
        ("distributed-tracing-instance-id", STRING, "", "Service instance id"),
        ("distributed-tracing-sampling-rate", INT, "0", "Samples per million"),
    ),
    "Data care": (
        ("corrupt-check-time", DURATION, "4h0m0s", "Period of hash comparison with peers, 0 off"),
        (
            "corrupt-self-repair",
            BOOL,
            "true",
            "A member whose keys differ from the majority's takes their database (not a flag of etcd)",
        ),
        (
            "compact-hash-check-time",
            DURATION,
            "1m0s",
            "Period of compaction-hash comparison (gate CompactHashCheck); must be greater than 0",
        ),
        ("compaction-batch-limit", INT, "0", "Revisions deleted per compaction step; 0 = 1000"),
        ("compaction-sleep-interval", DURATION, "0s", "Pause between compaction steps; 0 = 10ms"),
        (
            "watch-progress-notify-interval",
            DURATION,
            "0s",
            "Progress notify period; 0 = 10m; values below 100ms are raised to 100ms",
        ),
        ("downgrade-check-time", DURATION, "5s", "Period of downgrade status checks"),
        (
            "bootstrap-defrag-threshold-megabytes",
            UINT,
            "0",
            "Defragment at boot if it frees at least this much",
        ),
        ("max-learners", INT, "1", "Learners allowed"),
    ),
    "Unsafe and other": (
        ("unsafe-no-fsync", BOOL, "false", "No fsync"),
        ("force-new-cluster", BOOL, "false", "Become a one-member cluster, dropping others"),
        ("config-file", STRING, "", "YAML file; everything else is then ignored"),
        ("version", BOOL, "false", "Print version and exit 0"),
    ),
}

FLAGS: Final[dict[str, Flag]] = {
    row[0]: Flag(row[0], row[1], row[2], section, row[3])
    for section, rows in _SECTIONS.items()
    for row in rows
}
"""All flags that are in use, by name, in the order of the help text."""
