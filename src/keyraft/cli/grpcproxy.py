"""`etcd grpc-proxy start`: the proxy that understands gRPC, in front of a cluster."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Final

from keyraft.base.durations import format_duration
from keyraft.cli.ctl.flags import CommandFlag, CommandHelpWanted, FlagError, parse, without_flags
from keyraft.logs.zap import DescriptorOutput, ZapLogger

_UINT32_MAX: Final = (1 << 32) - 1
_SECOND: Final = 1_000_000_000

FLAGS: Final = (
    CommandFlag(
        "advertise-client-url",
        "string",
        "127.0.0.1:23790",
        "advertise address to register (must be reachable by client)",
    ),
    CommandFlag("auto-tls", "bool", False, "proxy TLS using generated certificates"),
    CommandFlag(
        "cacert",
        "string",
        "",
        "verify certificates of TLS-enabled secure etcd servers using this CA bundle",
    ),
    CommandFlag(
        "cert",
        "string",
        "",
        "identify secure connections with etcd servers using this TLS certificate file",
    ),
    CommandFlag(
        "cert-file",
        "string",
        "",
        "identify secure connections to the proxy using this TLS certificate file",
    ),
    CommandFlag("client-crl-file", "string", "", "proxy client certificate revocation list file."),
    CommandFlag("data-dir", "string", "default.proxy", "Data directory for persistent data"),
    CommandFlag("debug", "bool", False, "Enable debug-level logging for grpc-proxy."),
    CommandFlag(
        "dial-keepalive-time",
        "duration",
        0.0,
        "keepalive time for client(grpc-proxy) connections (default 0, disable).",
    ),
    CommandFlag(
        "dial-keepalive-timeout",
        "duration",
        20.0,
        "keepalive timeout for client(grpc-proxy) connections (default 20s).",
    ),
    CommandFlag(
        "discovery-srv",
        "string",
        "",
        "domain name to query for SRV records describing cluster endpoints",
    ),
    CommandFlag(
        "discovery-srv-name", "string", "", "service name to query when using DNS discovery"
    ),
    CommandFlag(
        "enable-pprof",
        "bool",
        False,
        'Enable runtime profiling data via HTTP server. Address is at client URL + "/debug/pprof/"',
    ),
    CommandFlag(
        "endpoints", "strings", ["127.0.0.1:2379"], "comma separated etcd cluster endpoints"
    ),
    CommandFlag(
        "endpoints-auto-sync-interval",
        "duration",
        0.0,
        "etcd endpoints auto sync interval (disabled by default)",
    ),
    CommandFlag(
        "experimental-enable-grpc-logging", "bool", False, "logging all grpc requests and responses"
    ),
    CommandFlag(
        "experimental-leasing-prefix",
        "string",
        "",
        "leasing metadata prefix for disconnected linearized reads.",
    ),
    CommandFlag(
        "experimental-serializable-ordering",
        "bool",
        False,
        "Ensure serializable reads have monotonically increasing store revisions across endpoints.",
    ),
    CommandFlag(
        "grpc-keepalive-interval",
        "duration",
        7200.0,
        "Frequency duration of server-to-client ping to check if a connection is alive "
        "(0 to disable).",
    ),
    CommandFlag(
        "grpc-keepalive-min-time",
        "duration",
        5.0,
        "Minimum interval duration that a client should wait before pinging proxy.",
    ),
    CommandFlag(
        "grpc-keepalive-timeout",
        "duration",
        20.0,
        "Additional duration of wait before closing a non-responsive connection (0 to disable).",
    ),
    CommandFlag("insecure-discovery", "bool", False, "accept insecure SRV records"),
    CommandFlag(
        "insecure-skip-tls-verify",
        "bool",
        False,
        "skip authentication of etcd server TLS certificates (CAUTION: this option should be "
        "enabled only for testing purposes)",
    ),
    CommandFlag(
        "key",
        "string",
        "",
        "identify secure connections with etcd servers using this TLS key file",
    ),
    CommandFlag(
        "key-file",
        "string",
        "",
        "identify secure connections to the proxy using this TLS key file",
    ),
    CommandFlag("listen-addr", "string", "127.0.0.1:23790", "listen address"),
    CommandFlag(
        "listen-cipher-suites",
        "strings",
        [],
        "Comma-separated list of supported TLS cipher suites between client/proxy (empty will be "
        "auto-populated by Go).",
    ),
    CommandFlag(
        "max-concurrent-streams",
        "uint",
        _UINT32_MAX,
        "Maximum concurrent streams that each client can open at a time.",
    ),
    CommandFlag(
        "max-recv-bytes",
        "int",
        2_147_483_647,
        "message receive limits in bytes (default value is math.MaxInt32)",
    ),
    CommandFlag(
        "max-send-bytes",
        "int",
        1_572_864,
        "message send limits in bytes (default value is 1.5 MiB)",
    ),
    CommandFlag(
        "metrics-addr",
        "string",
        "",
        "listen for endpoint /metrics requests on an additional interface",
    ),
    CommandFlag("namespace", "string", "", "string to prefix to all keys for namespacing requests"),
    CommandFlag(
        "permit-without-stream",
        "bool",
        False,
        "Enable client(grpc-proxy) to send keepalive pings even with no active RPCs.",
    ),
    CommandFlag(
        "resolver-prefix",
        "string",
        "",
        "prefix to use for registering proxy (must be shared with other grpc-proxy members)",
    ),
    CommandFlag(
        "resolver-ttl", "int", 0, "specify TTL, in seconds, when registering proxy endpoints"
    ),
    CommandFlag(
        "self-signed-cert-validity",
        "uint",
        1,
        "The validity period of the proxy certificates, unit is year",
    ),
    CommandFlag(
        "tls-max-version",
        "string",
        "",
        "Maximum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3 (empty "
        "defers to Go).",
    ),
    CommandFlag(
        "tls-min-version",
        "string",
        "TLS1.2",
        "Minimum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3.",
    ),
    CommandFlag(
        "trusted-ca-file",
        "string",
        "",
        "verify certificates of TLS-enabled secure proxy using this CA bundle",
    ),
)

GROUP_HELP: Final = """grpc-proxy related command

Usage:
  etcd grpc-proxy [command]

Available Commands:
  start       start the grpc proxy

Flags:
  -h, --help   help for grpc-proxy

Use "etcd grpc-proxy [command] --help" for more information about a command."""


def grpc_proxy(words: list[str]) -> int:
    """Runs `etcd grpc-proxy WORDS`; the exit code."""
    places = without_flags(FLAGS, words)
    if not places or words[places[0]] != "start":
        print(GROUP_HELP)
        return 0
    rest = words[: places[0]] + words[places[0] + 1 :]
    try:
        values, _ = parse(FLAGS, rest)
        streams = values["max-concurrent-streams"]
        if streams > _UINT32_MAX:
            raise FlagError(
                f'invalid argument "{streams}" for "--max-concurrent-streams" flag: '
                f'strconv.ParseUint: parsing "{streams}": value out of range'
            )
    except CommandHelpWanted:
        print(f"start the grpc proxy\n\n{usage()}", end="")
        return 0
    except FlagError as error:
        print(f"Error: {error}\n{usage()}\n{error}", file=sys.stderr)
        return 1
    # Loaded here, so that help needs no server in memory.
    from keyraft.proxy.grpcproxy import OptionError, ProxyOptions, run_proxy

    fields: dict[str, Any] = {
        name.replace("-", "_"): tuple(value) if isinstance(value, list) else value
        for name, value in values.values.items()
    }
    log = ZapLogger((DescriptorOutput(2),), "debug" if values["debug"] else "info")
    try:
        code = run_proxy(ProxyOptions(**fields), log)
    except OptionError as error:
        print(error, file=sys.stderr)
        return 1
    if os.getpid() != 1:
        signal.signal(code, signal.SIG_DFL)
        os.kill(os.getpid(), code)
    return 0


def usage() -> str:
    """The flags as the original shows them."""
    rows = [
        (f"      --{flag.name}{_kind(flag)}", f"{flag.usage}{_default(flag)}") for flag in FLAGS
    ]
    rows.append(("  -h, --help", "help for start"))
    rows.sort(key=lambda row: "help" if row[0] == "  -h, --help" else row[0][8:])
    width = max(len(left) for left, _ in rows) + 3
    lines = "".join(f"{left:{width}}{right}\n" for left, right in rows)
    return f"Usage:\n  etcd grpc-proxy start [flags]\n\nFlags:\n{lines}"


def _kind(flag: CommandFlag) -> str:
    if flag.kind == "bool":
        return ""
    return " uint32" if flag.name == "max-concurrent-streams" else f" {flag.kind}"


def _default(flag: CommandFlag) -> str:
    if not flag.default:
        return ""
    if flag.kind == "string":
        return f' (default "{flag.default}")'
    if flag.kind == "strings":
        return f" (default [{','.join(flag.default)}])"
    if flag.kind == "duration":
        return f" (default {format_duration(round(flag.default * _SECOND))})"
    return f" (default {flag.default})"
