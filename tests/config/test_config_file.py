"""The configuration file: etcd's keys, etcd's strictness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyraft.config.arguments import load
from keyraft.config.config import ConfigError
from keyraft.config.file import parse_config_file


def values(text: str) -> dict[str, Any]:
    return parse_config_file(text.encode())[0]


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config_file(text.encode())
    return str(caught.value)


def test_a_file_replaces_flags_and_variables(tmp_path: Path) -> None:
    path = tmp_path / "etcd.yaml"
    path.write_text("name: m1\nlog-outputs: [/dev/null]\nheartbeat-interval: 50\n")
    config = load(["--config-file", str(path), "--name=other"], {"ETCD_NAME": "third"})
    assert config.name == "m1"
    assert config.heartbeat_interval_ms == 50
    again = load([], {"ETCD_CONFIG_FILE": str(path)})
    assert again.name == "m1"


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="open /nonexistent: no such file or directory"):
        load(["--config-file=/nonexistent"], {})


def test_urls_are_one_text_lists_are_lists_durations_are_nanoseconds() -> None:
    got = values(
        "listen-client-urls: http://127.0.0.1:2, http://127.0.0.1:1\n"
        "cipher-suites: [A, B]\n"
        "grpc-keepalive-timeout: 1500000000\n"
        "cors: http://a:1,http://b:1\n"
        "host-whitelist: b,a\n"
        "feature-gates: CompactHashCheck=true\n"
        "unknown-key: whatever\n"
    )
    assert [str(url) for url in got["listen-client-urls"]] == [
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
    ]
    assert got["cipher-suites"] == ("A", "B")
    assert got["grpc-keepalive-timeout"] == 1.5
    assert got["cors"] == ("http://a:1", "http://b:1")
    assert got["host-whitelist"] == ("a", "b")
    assert got["feature-gates"] == {"CompactHashCheck": True}


def test_keys_of_a_section_set_the_flags_they_stand_for() -> None:
    got = values(
        "client-transport-security: {cert-file: c, client-cert-auth: true, auto-tls: true,"
        " allowed-hostname: [h]}\n"
        "peer-transport-security: {key-file: k, allowed-cn: [a, b]}\n"
        "socket-options: {reuse-port: true}\n"
        "discovery-config: {token: t, client: {endpoints: [e], dial-timeout: 1000000000,"
        " secure: {cert: x}, auth: {username: u}}}\n"
    )
    assert got["cert-file"] == "c"
    assert got["client-cert-auth"] is True
    assert got["auto-tls"] is True
    assert got["client-cert-allowed-hostname"] == ("h",)
    assert got["peer-key-file"] == "k"
    assert got["peer-cert-allowed-cn"] == ("a", "b")
    assert got["socket-reuse-port"] is True
    assert (got["discovery-token"], got["discovery-endpoints"]) == ("t", ("e",))
    assert (got["discovery-cert"], got["discovery-user"]) == ("x", "u")
    assert got["discovery-dial-timeout"] == 1
    assert got["initial-cluster"] == ""


def test_old_spellings_of_keys() -> None:
    got = values(
        "experimental-corrupt-check-time: 2000000000\n"
        "experimental-initial-corrupt-check: true\n"
        "experimental-peer-skip-client-san-verification: true\n"
        "feature-gates: CompactHashCheck=true\n"
    )
    assert got["corrupt-check-time"] == 2
    assert got["feature-gates"] == {"CompactHashCheck": True, "InitialCorruptCheck": True}
    assert got["peer-skip-client-san-verification"] is True
    for key in ("catchup", "catch-up"):
        got = values(f"experimental-snapshot-{key}-entries: 7")
        assert got["snapshot-catchup-entries"] == 7
    assert refused("experimental-memory-mlock: true\nmemory-mlock: false") == (
        "cannot set --experimental-memory-mlock and --memory-mlock at the same time, "
        "please use --memory-mlock only"
    )
    assert refused(
        "experimental-peer-skip-client-san-verification: true\n"
        "peer-transport-security: {skip-client-san-verification: true}"
    ).startswith("cannot set --experimental-peer-skip-client-san-verification and ")
    assert refused(
        "feature-gates: LeaseCheckpoint=true\nexperimental-enable-lease-checkpoint: false"
    ).startswith("cannot specify both flags: --experimental-enable-lease-checkpoint=false and ")
    assert refused("experimental-corrupt-check-time: 2s").endswith(
        "configYAML.Config.experimental-corrupt-check-time of type time.Duration"
    )


def test_wrong_types_are_refused() -> None:
    prefix = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
    assert refused("max-wals: x") == (
        prefix + "string into Go struct field configYAML.Config.max-wals of type uint"
    )
    assert refused("grpc-keepalive-timeout: 10m") == (
        prefix + "string into Go struct field configYAML.Config.grpc-keepalive-timeout of type "
        "time.Duration"
    )
    assert refused("pre-vote: 3") == (
        prefix + "number into Go struct field configYAML.Config.pre-vote of type bool"
    )
    assert refused("name: [a]") == (
        prefix + "array into Go struct field configYAML.Config.name of type string"
    )
    assert refused("auto-compaction-retention: 1") == (
        prefix
        + "number into Go struct field configYAML.Config.auto-compaction-retention of type string"
    )
    assert refused("a: b: c").startswith("error converting YAML to JSON: yaml: ")
    assert refused("- a").startswith(prefix + "array into Go value")


def test_a_bad_list_of_urls_ends_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_config_file(b"listen-peer-urls: foo")
    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        "unexpected error setting up listen-peer-urls: "
        "URL scheme must be http, https, unix, or unixs: foo\n"
    )


def test_keys_without_effect_are_named(tmp_path: Path) -> None:
    path, log = tmp_path / "etcd.yaml", tmp_path / "log"
    path.write_text(
        f"name: m1\nlog-outputs: [{log}]\nheartbeat-intervall: 50\nsocket-options: {{reuse: true}}\n"
        "Name: m2\nname: m3\n1: 2\nsocket-reuse-port: true\n"
    )
    config = load(["--config-file", str(path)], {})
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = {line["msg"]: line["keys"] for line in lines if "keys" in line}
    assert told == {
        "unknown keys in the configuration file have no effect": [
            "heartbeat-intervall",
            "socket-options.reuse",
            "1",
            "socket-reuse-port",
        ],
        "keys that come again in the configuration file: the last one counts": ["name"],
    }
    assert config.name == "m3"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cert-file: /x", "it belongs to client-transport-security"),
        ("client-cert-auth: true", "it belongs to client-transport-security"),
        ("peer-trusted-ca-file: /x", "it belongs to peer-transport-security"),
        ("client-transport-security: {cert-fil: /x}", "cert-fil is not known"),
        ("peer-transport-security: {client-cert-autth: true}", "is to protect something"),
    ],
)
def test_a_key_that_would_protect_something_must_have_its_effect(text: str, why: str) -> None:
    assert why in refused(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "a: &a [*a]\n",
        "? [1]\n: 2\n",
        "a: !!python/object:os.system x\n",
        "\x00",
        "a: 0x" + "f" * 5_000,
        "snapshot-count: " + "9" * 5_000,
        "name: 2020-01-01\n",
        "name: {a: 1}\n",
        "- a\n",
        "listen-client-urls: [http://a:1]\n",
    ],
    ids=range(11),
)
def test_a_file_of_any_content_ends_in_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "etcd.yaml"
    path.write_text(text)
    try:
        config = load(["--config-file", str(path)], {})
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert config.name == "default", "nothing of it is known"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("host-whitelist: [a]", "array into Go struct field configYAML.configJSON.host-whitelist of type string"),
        (
            "client-transport-security: 5",
            "number into Go struct field configYAML.configJSON.client-transport-security of type "
            "embed.securityConfig",
        ),
        (
            "peer-transport-security: {cert-file: 5}",
            "number into Go struct field "
            "securityConfig.configJSON.peer-transport-security.cert-file of type string",
        ),
        (
            "socket-options: {reuse-port: 1}",
            "number into Go struct field SocketOpts.Config.socket-options.reuse-port of type bool",
        ),
        (
            "discovery-config: [1]",
            "array into Go struct field configYAML.Config.discovery-config of type "
            "v3discovery.DiscoveryConfig",
        ),
        (
            "discovery-config: {client: {secure: {cert: 1}}}",
            "number into Go struct field "
            "SecureConfig.Config.discovery-config.client.secure.cert of type string",
        ),
        (
            "quota-backend-bytes: 9999999999999999999999",
            "number 1e+22 into Go struct field configYAML.Config.quota-backend-bytes of type int64",
        ),
    ],
)  # fmt: skip
def test_wrong_types_are_told_with_their_place_as_by_etcd(text: str, reason: str) -> None:
    told = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
    assert refused(text) == told + reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: a\n  b: c", "line 2: mapping values are not allowed in this context"),
        ("name: [a", "line 1: did not find expected ',' or ']'"),
        ('name: "a', "found unexpected end of stream"),
        ("a:\n\t- b", "line 2: found character that cannot start any token"),
    ],
)
def test_what_is_no_yaml_is_told_as_by_etcd(text: str, reason: str) -> None:
    assert refused(text) == f"error converting YAML to JSON: yaml: {reason}"
