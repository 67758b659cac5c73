"""The command line and the environment are read by Go's rules, with etcd's answers."""

from __future__ import annotations

import json

import pytest

from keyraft.config.arguments import VersionWanted, load
from keyraft.config.config import Config, ConfigError
from keyraft.config.flagset import ConflictError, HelpWanted, UsageError, parse_arguments
from keyraft.config.flagtable import FLAGS
from keyraft.config.oldflags import DEPRECATED, IGNORED_NAMES, OLD_FLAGS
from keyraft.logs.zap import DEFAULT_LOGGER, ZapLogger

PLACE = ["--listen-client-urls=http://127.0.0.1:1", "--advertise-client-urls=http://127.0.0.1:1"]


class Lines:
    """A log output that keeps its lines."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, line: bytes) -> None:
        self.text += line.decode()


def loaded(*arguments: str, **environ: str) -> Config:
    config = load([*arguments, "--log-outputs=/dev/null"], environ, ZapLogger((Lines(),)))
    return config._replace(log=DEFAULT_LOGGER)  # the same for all, so that configurations compare


def refused(*arguments: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(*arguments, **environ)
    return str(caught.value)


def usage(*arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_arguments(arguments)
    return str(caught.value)


def test_every_flag_has_a_field_and_every_field_a_flag() -> None:
    fields = set(Config._fields) - {"explicit", "log"}
    assert fields == {f.field for f in FLAGS.values()} - {"config_file", "version"}
    # of etcd; password-min-length, nospace-auto-disarm, audit-log (4), corrupt-self-repair
    assert len(FLAGS) == 113 + 7
    assert len(IGNORED_NAMES) == 15


def test_one_hyphen_or_two_and_both_ways_to_give_a_value() -> None:
    flags = parse_arguments(["-name", "a", "--wal-dir=b", "-pre-vote=F", "--unsafe-no-fsync"])
    assert flags.values["name"] == "a"
    assert flags.values["wal-dir"] == "b"
    assert flags.values["pre-vote"] is False
    assert flags.values["unsafe-no-fsync"] is True
    assert flags.explicit == {"name", "wal-dir", "pre-vote", "unsafe-no-fsync"}


def test_a_bool_takes_no_word_behind_it() -> None:
    assert parse_arguments(["--pre-vote", "false", "--name=x"]).rest == ["false", "--name=x"]
    assert refused("--pre-vote", "false") == '"false" is not a valid flag'


def test_old_flags_are_accepted_and_ignored() -> None:
    config = loaded("--snapshot", "-v", "--force=true", *PLACE)
    assert config.name == "default"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nosuch"], "flag provided but not defined: -nosuch"),
        (["--enable-v2"], "flag provided but not defined: -enable-v2"),
        (["--discovery=x"], "flag provided but not defined: -discovery"),
        (
            ["--experimental-enable-v2v3=x"],
            "flag provided but not defined: -experimental-enable-v2v3",
        ),
        (
            ["--experimental-max-learners=1"],
            "flag provided but not defined: -experimental-max-learners",
        ),
        (["--name"], "flag needs an argument: -name"),
        (["---name=x"], "bad flag syntax: ---name=x"),
        (["--=x"], "bad flag syntax: --=x"),
        (["--max-wals=-1"], 'invalid value "-1" for flag -max-wals: parse error'),
        (["--max-learners=1e3"], 'invalid value "1e3" for flag -max-learners: parse error'),
        (
            ["--quota-backend-bytes=9223372036854775808"],
            'invalid value "9223372036854775808" for flag -quota-backend-bytes: value out of range',
        ),
        (
            ["--max-concurrent-streams=4294967296"],
            'invalid value "4294967296" for flag -max-concurrent-streams: '
            'strconv.ParseUint: parsing "4294967296": value out of range',
        ),
        (
            ["--grpc-keepalive-timeout=5"],
            'invalid value "5" for flag -grpc-keepalive-timeout: parse error',
        ),
        (["--pre-vote=maybe"], 'invalid boolean value "maybe" for -pre-vote: parse error'),
        (
            ["--initial-cluster-state=old"],
            'invalid value "old" for flag -initial-cluster-state: invalid value',
        ),
        (
            ["--listen-peer-urls=127.0.0.1:1"],
            'invalid value "127.0.0.1:1" for flag -listen-peer-urls: parse "127.0.0.1:1": '
            "first path segment in URL cannot contain colon",
        ),
        (
            ["--feature-gates=Nosuch=true"],
            'invalid value "Nosuch=true" for flag -feature-gates: '
            "unrecognized feature gate: Nosuch",
        ),
        (
            ["--feature-gates=AllAlpha"],
            'invalid value "AllAlpha" for flag -feature-gates: missing bool value for AllAlpha',
        ),
        (
            ["--v2-deprecation=not-yet"],
            'invalid value "not-yet" for flag -v2-deprecation: invalid value "not-yet"',
        ),
    ],
)
def test_a_wrong_command_line_is_refused(arguments: list[str], message: str) -> None:
    assert usage(*arguments) == message


def test_help_and_version() -> None:
    for word in ("-h", "--help", "-help"):
        with pytest.raises(HelpWanted):
            parse_arguments([word])
    with pytest.raises(VersionWanted):
        load(["--version"], {"ETCD_HEARTBEAT_INTERVAL": "not read"})


def test_numbers_are_read_in_every_base_that_go_knows() -> None:
    flags = parse_arguments(["--max-wals=0x10", "--snapshot-count=1_000", "--bcrypt-cost=010"])
    assert flags.values["max-wals"] == 16
    assert flags.values["snapshot-count"] == 1000
    assert flags.values["bcrypt-cost"] == 8


def test_variables_set_what_the_command_line_left_open() -> None:
    config = loaded(ETCD_NAME="n1", ETCD_HEARTBEAT_INTERVAL="50", ETCD_WAL_DIR="")
    assert (config.name, config.heartbeat_interval_ms, config.wal_dir) == ("n1", 50, "")
    assert config.initial_cluster == "n1=http://localhost:2380"
    assert config.data_dir == "n1.etcd"


def test_a_variable_beside_its_flag_is_a_conflict_even_when_empty() -> None:
    for value in ("b", ""):
        with pytest.raises(ConflictError) as caught:
            loaded("--name=a", ETCD_NAME=value)
        assert caught.value.variable == "ETCD_NAME"


def test_a_bad_variable_is_refused_and_an_unknown_one_only_noted() -> None:
    message = refused(ETCD_MAX_WALS="x")
    assert message == 'invalid value "x" for ETCD_MAX_WALS: parse error'
    lines = Lines()
    load(
        ["--log-outputs=/dev/null"],
        {"ETCD_NOSUCH": "1", "ETCD_VERSION": "9", "ETCDCTL_API": "3"},
        ZapLogger((lines,)),
    )
    assert '"unrecognized environment variable","environment-variable":"ETCD_NOSUCH=1"' in (
        lines.text
    )
    assert '"cannot set special environment variable"' in lines.text
    assert "ETCDCTL" not in lines.text


@pytest.mark.parametrize("name", ["ROOT_PASSWORD", "MY_SECRET", "API_TOKEN"])
def test_what_a_variable_with_a_secrets_name_holds_is_not_logged(name: str) -> None:
    lines = Lines()
    load(["--log-outputs=/dev/null"], {f"ETCD_{name}": "sesame"}, ZapLogger((lines,)))
    assert f"ETCD_{name}=<hidden>" in lines.text
    assert "sesame" not in lines.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extra"], '"extra" is not a valid flag'),
        (
            ["--listen-client-urls=http://127.0.0.1:1"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            ["--listen-peer-urls=http://example:1"],
            "expected IP in URL for binding (http://example:1)",
        ),
        (
            ["--initial-advertise-peer-urls=http://:1"],
            '--initial-advertise-peer-urls "http://:1" must be "host:port" '
            "(unexpected empty host (http://:1))",
        ),
        (
            ["--heartbeat-interval=100", "--election-timeout=499"],
            "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            ["--election-timeout=50001"],
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        (
            ["--initial-cluster=a=http://b:1", "--discovery-srv=example.com"],
            "multiple discovery or bootstrap flags are set. "
            'Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"',
        ),
        (
            ["--discovery-token=t"],
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (["--auto-compaction-mode=x"], 'unknown auto-compaction-mode "x"'),
        (["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (
            ["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate "
            "LeaseCheckpoint",
        ),
        (
            ["--tls-min-version=TLS1.1"],
            'unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)',
        ),
        (
            ["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            ["--tls-min-version=TLS1.3", "--cipher-suites=A"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            ["--discovery-fallback=proxy"],
            'v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"',
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_etcds_words(arguments: list[str], message: str) -> None:
    assert refused(*arguments) == message


def test_logging_flags_are_checked() -> None:
    for arguments, message in (
        (["--log-format=zzz"], "unknown log format: zzz, supported values json, console"),
        (["--log-level=zzz"], 'unrecognized level: "zzz"'),
        (
            ["--log-outputs=default,stdout"],
            'multi logoutput for "default" is not supported yet',
        ),
        (
            ["--enable-log-rotation"],
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            load(arguments, {})
        assert str(caught.value) == message


def test_zero_means_the_default_where_etcd_says_so() -> None:
    config = loaded("--raft-read-timeout=1s", "--warning-unary-request-duration=0", *PLACE)
    assert config.quota_backend_bytes == 2 << 30
    assert config.backend_batch_interval_s == 0.1
    assert config.backend_batch_limit == 10_000
    assert config.compaction_batch_limit == 1_000
    assert config.watch_progress_notify_interval_s == 600
    assert config.raft_read_timeout_s == 5
    assert config.warning_unary_request_duration_s == 0.3
    assert config.grpc_keepalive_interval_s == 7200
    assert config.election_ticks == 10
    assert config.request_timeout_s == 7


def test_compaction_retention_counts_hours_durations_or_revisions() -> None:
    assert loaded("--auto-compaction-retention=2").auto_compaction_s() == 7200
    assert loaded("--auto-compaction-retention=90s").auto_compaction_s() == 90
    by_revision = loaded("--auto-compaction-mode=revision", "--auto-compaction-retention=1000")
    assert by_revision.auto_compaction_revisions() == 1000
    with pytest.raises(ConfigError, match="error parsing CompactionRetention"):
        loaded("--auto-compaction-retention=x").auto_compaction_s()


def test_a_gate_is_on_as_set_or_by_its_stage() -> None:
    config = loaded("--feature-gates=AllAlpha=true,CompactHashCheck=false")
    assert config.gate("PriorityRequest")
    assert not config.gate("CompactHashCheck")
    assert config.gate("FastLeaseKeepAlive")
    assert not loaded().gate("PriorityRequest")


def warned(*arguments: str, **environ: str) -> list[str]:
    """The warnings about deprecated flags."""
    lines = Lines()
    log = ZapLogger((lines,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keyraft.config.building.build_logger", lambda *_: log)
        load(arguments, environ, log)
    said = [json.loads(line)["msg"] for line in lines.text.splitlines()]
    return [text for text in said if text in DEPRECATED.values()]


def test_every_old_spelling_is_the_new_one_with_a_warning() -> None:
    """Each is given another value than the default."""
    others = {"true": "false", "false": "true", "": "map", "localhost:4317": "h:1", "etcd": "x"}
    assert len(OLD_FLAGS) == 24
    for old, flag in OLD_FLAGS.items():
        new = old.removeprefix("experimental-")
        # It wants its companion.
        more = ["--feature-gates=LeaseCheckpoint=true"] if new.endswith("-persist") else []
        value = others.get(flag.default, "7s" if flag.default.endswith("s") else "7")
        by_flag = loaded(f"--{old}={value}", *more)
        by_variable = loaded(*more, **{flag.variable: value})
        assert by_flag == by_variable
        if new in FLAGS:
            assert by_flag == loaded(f"--{new}={value}")._replace(
                explicit=frozenset({old, "log-outputs"})
            )
        else:
            assert by_flag.feature_gates != loaded(*more).feature_gates
        assert warned(f"--{old}={value}", *more) == [DEPRECATED[old]]
        assert warned(*more, **{flag.variable: value}) == [DEPRECATED[old]]
    assert warned("--corrupt-check-time=1s") == []


def test_the_warnings_are_those_of_etcd_3_6() -> None:
    assert warned("--experimental-corrupt-check-time=1s") == [
        "--experimental-corrupt-check-time is deprecated in v3.6 and will be decommissioned in "
        "v3.7. Use '--corrupt-check-time' instead."
    ]
    assert warned("--experimental-compact-hash-check-enabled") == [
        "--experimental-compact-hash-check-enabled is deprecated in 3.6 and will be "
        "decommissioned in 3.7. Use '--feature-gates=CompactHashCheck=true' instead."
    ]


def test_an_old_switch_is_a_gate() -> None:
    config = loaded(
        "--experimental-initial-corrupt-check", "--feature-gates=CompactHashCheck=false"
    )
    assert config.gate("InitialCorruptCheck") and not config.gate("CompactHashCheck")
    assert not loaded("--experimental-initial-corrupt-check=false").gate("InitialCorruptCheck")
    assert loaded("--experimental-enable-lease-checkpoint").gate("LeaseCheckpoint")


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (
            ["--experimental-corrupt-check-time=1s", "--corrupt-check-time=1s"],
            {},
            "cannot set --experimental-corrupt-check-time and --corrupt-check-time at the same "
            "time, please use --corrupt-check-time only",
        ),
        (
            ["--compaction-batch-limit=5"],
            {"ETCD_EXPERIMENTAL_COMPACTION_BATCH_LIMIT": "5"},
            "cannot set --experimental-compaction-batch-limit and --compaction-batch-limit at the "
            "same time, please use --compaction-batch-limit only",
        ),
        (
            ["--feature-gates=InitialCorruptCheck=false", "--experimental-initial-corrupt-check"],
            {},
            "cannot specify both flags: --experimental-initial-corrupt-check=true and "
            "--feature-gates=InitialCorruptCheck=false at the same time, please just use "
            "--feature-gates=InitialCorruptCheck=false",
        ),
        (
            [],
            {
                "ETCD_WARNING_UNARY_REQUEST_DURATION": "1s",
                "ETCD_EXPERIMENTAL_WARNING_UNARY_REQUEST_DURATION": "2s",
            },
            "both --experimental-warning-unary-request-duration and "
            "--warning-unary-request-duration flags are set. Use only "
            "--warning-unary-request-duration",
        ),
        (
            [],
            {"ETCD_EXPERIMENTAL_CORRUPT_CHECK_TIME": "x"},
            'invalid value "x" for ETCD_EXPERIMENTAL_CORRUPT_CHECK_TIME: parse error',
        ),
        (
            ["--experimental-compact-hash-check-time=0"],
            {},
            "--compact-hash-check-time must be >0 (set to 0s)",
        ),
    ],
)
def test_an_old_spelling_does_not_stand_beside_its_new_one(
    arguments: list[str], environ: dict[str, str], message: str
) -> None:
    assert refused(*arguments, **environ) == message


def test_an_unset_duration_stands_beside_its_new_name() -> None:
    old, new = "--experimental-warning-unary-request-duration", "--warning-unary-request-duration"
    assert loaded(f"{old}=0", f"{new}=2s").warning_unary_request_duration_s == 2
    assert loaded(f"{old}=2s", f"{new}=0").warning_unary_request_duration_s == 2


def test_lists_of_urls_are_sorted_and_without_repetition() -> None:
    config = loaded(
        "--listen-client-urls=http://127.0.0.2:1,http://127.0.0.1:1,http://127.0.0.2:1",
        "--advertise-client-urls=http://h:1",
    )
    assert [str(url) for url in config.listen_client_urls] == [
        "http://127.0.0.1:1",
        "http://127.0.0.2:1",
    ]
    assert config.summary()["listen-client-urls"] == config.listen_client_urls


def test_the_stage_of_the_v2_store_is_not_for_choosing() -> None:
    config = loaded("--v2-deprecation=write-only-drop-data")
    assert config.summary()["v2-deprecation"] == "write-only"
