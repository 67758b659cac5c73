"""The configuration file: YAML (so JSON too) with etcd's keys and etcd's strictness.

Keys are flag names; a wrong type is refused. The original silently ignores a key that it does not
know, and a repeated key (the last one counts): here both are logged. Only a key that would protect
something, but has no effect where it stands, is refused. Durations are whole nanoseconds only,
lists of URLs are one comma-separated string, and TLS, socket and discovery settings are in sections
of their own. A number where text is wanted is refused too (`auto-compaction-retention: "1"` needs
its quotes). Source: etcd `embed.ConfigFromFile`, which decodes YAML by way of JSON.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Container, Mapping
from typing import Any, Final, NamedTuple

import yaml

from keyraft.base.durations import SECOND
from keyraft.base.urls import URLError, parse_urls
from keyraft.config.config import DEFAULT_INITIAL_CLUSTER, ConfigError
from keyraft.config.flagset import default_value
from keyraft.config.flagtable import FLAGS
from keyraft.config.flagvalues import (
    BOOL,
    DURATION,
    GATES,
    INT,
    INT64,
    ORIGINS,
    UINT,
    UINT32,
    UINT64,
    UNIQUE,
    URLS,
    Kind,
    ValueRefused,
    parse_origins,
)
from keyraft.config.oldflags import OLD_FLAGS, translate

CONFIG_FILE_BYTES_MAX: Final = 1024 * 1024

# Text in the file although the flag is a list; the rest of the lists are real lists.
_TEXT_LISTS: Final = ("host-whitelist",)
_NOT_IN_FILE: Final = frozenset(
    name
    for name in FLAGS
    if name in ("config-file", "version", "discovery-fallback", "raft-read-timeout")
    or name in ("raft-write-timeout", "client-crl-file", "peer-crl-file", "auto-tls")
    or name.startswith(("socket-", "peer-", "client-c", "client-k", "trusted-"))
    or name in ("cert-file", "key-file")
    or (name.startswith("discovery-") and not name.startswith("discovery-srv"))
)
_SECURITY: Final = {
    "cert-file": ("cert-file", str),
    "key-file": ("key-file", str),
    "client-cert-file": ("client-cert-file", str),
    "client-key-file": ("client-key-file", str),
    "client-cert-auth": ("client-cert-auth", bool),
    "trusted-ca-file": ("trusted-ca-file", str),
    "auto-tls": ("auto-tls", bool),
    "allowed-cn": ("cert-allowed-cn", list),
    "allowed-hostname": ("cert-allowed-hostname", list),
    "skip-client-san-verification": ("skip-client-san-verification", bool),
}
_SECURE: Final = ("client-transport-security", "peer-transport-security")
_SECTIONS: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(_SECURE, frozenset(_SECURITY)),
    "socket-options": frozenset(("reuse-port", "reuse-address")),
    "discovery-config": frozenset(("token", "client")),
}
_PROTECTING: Final = frozenset(
    f"{prefix}{flag}" for prefix in ("", "peer-") for flag, _ in _SECURITY.values()
) | {"client-crl-file", "peer-crl-file"}
"""Flags about TLS; in a file they are keys of a section."""
_INTEGERS: Final = {
    INT: (-(1 << 63), (1 << 63) - 1),
    INT64: (-(1 << 63), (1 << 63) - 1),
    UINT: (0, (1 << 64) - 1),
    UINT64: (0, (1 << 64) - 1),
    UINT32: (0, (1 << 32) - 1),
    DURATION: (-(1 << 63), (1 << 63) - 1),
}
_GO_NAMES: Final = {str: "string", bool: "bool", list: "[]string"}
# Other spellings of a key, for files that were written for 3.5.14 and later.
_OLD_CATCH_UP: Final = "experimental-snapshot-catchup-entries"
_CATCH_UP: Final = "experimental-snapshot-catch-up-entries"
_IN_JSON: Final = frozenset(
    (
        "listen-peer-urls",
        "listen-client-urls",
        "listen-client-http-urls",
        "initial-advertise-peer-urls",
        "advertise-client-urls",
        "cors",
        "host-whitelist",
        "client-transport-security",
        "peer-transport-security",
        "feature-gates",
    )
)
"""Keys of etcd's `configJSON`; all others are of its `Config`."""
_STRUCTS: Final[Mapping[str, str]] = {
    "client-transport-security": "embed.securityConfig",
    "peer-transport-security": "embed.securityConfig",
    "socket-options": "transport.SocketOpts",
    "discovery-config": "v3discovery.DiscoveryConfig",
    "discovery-config.client": "clientv3.ConfigSpec",
    "discovery-config.client.secure": "clientv3.SecureConfig",
    "discovery-config.client.auth": "clientv3.AuthConfig",
}
"""Section → the type that etcd decodes it into."""
_PROBLEMS: Final[Mapping[str, str]] = {
    "mapping values are not allowed here": "mapping values are not allowed in this context",
    "found character '\\t' that cannot start any token": "found character that cannot start any token",
}
"""PyYAML's words → go-yaml's; most are the same, both are libyaml's."""
_URL_LABELS: Final = {"advertise-client-urls": "advertise-peer-urls"}  # etcd's messages mix them up


class ConfigFile(NamedTuple):
    """The values of a file, and its keys without effect."""

    values: dict[str, Any]  # by flag name
    explicit: frozenset[str]  # the keys that it sets
    unknown: tuple[str, ...]  # keys without effect, with their section
    repeated: tuple[str, ...]  # keys that it sets twice


def read_config_file(path: str) -> ConfigFile:
    """A file's content.

    Raises ConfigError; ends the process with exit code 1 on a bad list of URLs, as etcd does.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(CONFIG_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"open {path}: {(error.strerror or '').lower()}") from None
    if len(text) > CONFIG_FILE_BYTES_MAX:
        raise ConfigError(f"{path}: more than {CONFIG_FILE_BYTES_MAX} bytes")
    return parse_config_file(text)


class _Loader(yaml.SafeLoader):
    """Remembers keys that come twice in one section."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        times = Counter(
            str(key.value).lower() for key, _ in node.value if isinstance(key, yaml.ScalarNode)
        )
        self.repeated += sorted(name for name, count in times.items() if count > 1)
        return super().construct_mapping(node, deep)


def parse_config_file(text: bytes) -> ConfigFile:
    """As `read_config_file`, from the file's text."""
    repeated: list[str] = []
    try:
        loader = _Loader(text)
        document = loader.get_single_data()
        repeated = loader.repeated
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"error converting YAML to JSON: yaml: {_yaml_problem(error)}") from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise _wrong_type(document, "", "embed.configYAML")
    flags = FLAGS | OLD_FLAGS
    unknown = _unknown_keys(document, flags)
    values = {name: default_value(flag) for name, flag in flags.items()}
    # Keys match in any case. Of several the last in sorted order counts, as in Go's JSON.
    given = {str(key).lower(): document[key] for key in sorted(document, key=str)}
    explicit = {str(key) for key in document}
    if _CATCH_UP in explicit:
        given[_OLD_CATCH_UP] = given[_CATCH_UP]
        explicit.add(_OLD_CATCH_UP)
    for name, flag in flags.items():
        if name in given and name not in _NOT_IN_FILE and given[name] is not None:
            value = _decode(name, flag.kind, given[name], values[name])
            values[name] = values[name] if value is None else value
    _security(given, "client-transport-security", "", values, explicit)
    _security(given, "peer-transport-security", "peer-", values, explicit)
    sockets = _section(given, "socket-options")
    for key in ("reuse-port", "reuse-address"):
        values[f"socket-{key}"] = _typed(sockets.get(key, False), bool, f"socket-options.{key}")
    _discovery(given, values)
    named = str(given.get("feature-gates") or "").split(",")
    translate(values, explicit, [piece.partition("=")[0].strip() for piece in named])
    if values["initial-cluster"] == DEFAULT_INITIAL_CLUSTER and (
        values["discovery-srv"] or values["discovery-endpoints"]
    ):
        values["initial-cluster"] = ""
    values["initial-cluster-state"] = values["initial-cluster-state"] or "new"
    values["self-signed-cert-validity"] = values["self-signed-cert-validity"] or 1
    return ConfigFile(values, frozenset(explicit), unknown, tuple(repeated))


def _unknown_keys(document: Mapping[object, object], flags: Container[str]) -> tuple[str, ...]:
    """The keys that have no effect; raises ConfigError where one would protect something."""
    unknown: list[str] = []
    for key, value in document.items():
        name = str(key).lower()
        if name in _SECTIONS:
            if isinstance(value, dict):
                known = _SECTIONS[name]
                unknown += (f"{name}.{each}" for each in value if str(each).lower() not in known)
        elif name not in flags or name in _NOT_IN_FILE:
            unknown.append(str(key))
    for key in unknown:
        section, dot, name = key.lower().rpartition(".")
        if section in _SECURE:
            raise ConfigError(f"{key} is not known, and {section} is to protect something")
        if not dot and name in _PROTECTING:
            section = f"{'peer' if name.startswith('peer-') else 'client'}-transport-security"
            raise ConfigError(f"{key} has no effect where it stands: it belongs to {section}")
    return tuple(unknown)


def _decode(name: str, kind: Kind, value: object, previous: Any) -> Any:
    if kind is URLS:
        text = _typed(value, str, name)
        if not text:
            return None
        try:
            return parse_urls(text.split(","))
        except URLError as error:
            label = _URL_LABELS.get(name, name)
            print(f"unexpected error setting up {label}: {error}", file=sys.stderr)
            raise SystemExit(1) from None
    if kind is ORIGINS or name in _TEXT_LISTS:
        text = _typed(value, str, name)
        try:
            return (parse_origins(text) if kind is ORIGINS else UNIQUE.parse(text, ())) or None
        except ValueRefused as error:
            raise ConfigError(f"new UniqueURLs should never fail: {error}") from None
    if kind is GATES:
        try:
            return GATES.parse(_typed(value, str, name), previous)
        except ValueRefused as error:
            raise ConfigError(str(error)) from None
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _wrong_type(value, name, kind.go_type)
        return value / SECOND if kind is DURATION else value
    if kind is BOOL:
        return _typed(value, bool, name)
    if kind.go_type == "[]string":
        items = tuple(_typed(value, list, name))
        return tuple(sorted(set(items))) if kind is UNIQUE else items
    return _typed(value, str, name)


def _typed(value: object, wanted: type, name: str) -> Any:
    """The value as Go would decode it into a field of this type; raises ConfigError."""
    if wanted is list:
        if not isinstance(value, list):
            raise _wrong_type(value, name, "[]string")
        return [_typed(item, str, name) for item in value]
    if not isinstance(value, wanted):
        raise _wrong_type(value, name, _GO_NAMES[wanted])
    return value


def _section(given: Mapping[str, object], path: str) -> dict[str, Any]:
    """The section at `path`, of the one above it."""
    value = given.get(path.rpartition(".")[2])
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong_type(value, path, _STRUCTS[path])
    return {str(key).lower(): item for key, item in value.items() if item is not None}


def _security(
    given: Mapping[str, object], name: str, prefix: str, values: dict[str, Any], explicit: set[str]
) -> None:
    section = _section(given, name)
    for key, (flag, wanted) in _SECURITY.items():
        if key not in section:
            continue
        value = _typed(section[key], wanted, f"{name}.{key}")
        if not prefix and flag == "cert-allowed-hostname":
            flag = "client-cert-allowed-hostname"
        if prefix + flag in values:
            values[prefix + flag] = tuple(value) if wanted is list else value
    if prefix:
        explicit.update(f"{prefix}{key}" for key in section)


def _discovery(given: Mapping[str, object], values: dict[str, Any]) -> None:
    section = _section(given, "discovery-config")
    client = _section(section, "discovery-config.client")
    secure = _section(client, "discovery-config.client.secure")
    auth = _section(client, "discovery-config.client.auth")
    for source, above, key, flag, wanted in (
        (section, "", "token", "token", str),
        (secure, "client.secure.", "cert", "cert", str),
        (secure, "client.secure.", "key", "key", str),
        (secure, "client.secure.", "cacert", "cacert", str),
        (secure, "client.secure.", "insecure-transport", "insecure-transport", bool),
        (secure, "client.secure.", "insecure-skip-tls-verify", "insecure-skip-tls-verify", bool),
        (auth, "client.auth.", "username", "user", str),
        (auth, "client.auth.", "password", "password", str),
    ):
        if key in source:
            path = f"discovery-config.{above}{key}"
            values[f"discovery-{flag}"] = _typed(source[key], wanted, path)
    if "endpoints" in client:
        values["discovery-endpoints"] = tuple(
            _typed(client["endpoints"], list, "discovery-config.client.endpoints")
        )
    for key in ("dial-timeout", "request-timeout", "keepalive-time", "keepalive-timeout"):
        if key in client:
            name = f"discovery-{key}"
            path = f"discovery-config.client.{key}"
            values[name] = _decode(path, DURATION, client[key], values[name])


def _wrong_type(value: object, name: str, go_type: str) -> ConfigError:
    """In the words of Go's JSON; `name` is the key, behind those of its sections."""
    if isinstance(value, bool):
        got = "bool"
    elif isinstance(value, int | float):
        got = "number"
        if "int" in go_type or go_type == DURATION.go_type:
            huge = isinstance(value, int) and not -(1 << 63) <= value < 1 << 64
            got = f"number {float(value) if huge else value}"
    elif isinstance(value, list):
        got = "array"
    elif isinstance(value, dict):
        got = "object"
    else:
        got = "string"
    above, _, _ = name.rpartition(".")
    section, _, _ = name.partition(".")
    owner = "configJSON" if section in _IN_JSON else "Config"
    struct = _STRUCTS[above].rpartition(".")[2] if above else "configYAML"
    field = f"Go struct field {struct}.{owner}.{name}" if name else "Go value"
    return ConfigError(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
        f"{got} into {field} of type {go_type}"
    )


def _yaml_problem(error: Exception) -> str:
    """As go-yaml says it: the line, and what is wrong."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None:
        return _one_line(error)
    problem, mark = _PROBLEMS.get(error.problem, error.problem), error.problem_mark
    if problem == "found unexpected end of stream":
        return problem
    if ", but " in problem:
        problem = f"did not find {problem.partition(', but ')[0]}"
    return f"line {mark.line + 1}: {problem}" if mark is not None else problem


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
