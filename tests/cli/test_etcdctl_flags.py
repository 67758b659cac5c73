"""How etcdctl reads its command line, quotes, prints numbers, and lays out its help."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keyraft.base.sizes import size
from keyraft.cli.ctl import gofmt
from keyraft.cli.ctl.command import Command, UnknownCommand, find
from keyraft.cli.ctl.completion import SHELLS
from keyraft.cli.ctl.discovery import discover
from keyraft.cli.ctl.exits import Exit
from keyraft.cli.ctl.flags import CommandFlag, CommandHelpWanted, FlagError, parse
from keyraft.cli.ctl.help import help_text
from keyraft.cli.ctl.main import run
from keyraft.cli.ctl.printers.json import encode, plain
from keyraft.cli.ctl.printers.table import boxed
from keyraft.cli.ctl.tree import ROOT
from keyraft.cli.ctl.txn import compare, operation
from keyraft.cli.ctl.watch import BadWatch, split
from keyraft.proto import rpc_pb2
from tests.support.names import NameServer, asked_here, srv_zone

FLAGS = [
    CommandFlag("all", "bool", False, "", "a"),
    CommandFlag("count", "int", 0, "", "c"),
    CommandFlag("name", "string", "x", "", "n"),
    CommandFlag("wait", "duration", 5.0, ""),
    CommandFlag("hosts", "strings", ["h"], ""),
]


def test_flags_come_in_every_spelling() -> None:
    words = ["-ac", "3", "k", "--name=y", "--hosts", "p,q", "-n", "z", "--hosts=r", "--wait=1m1s"]
    values, arguments = parse(FLAGS, [*words, "--", "--all=false"])
    assert arguments == ["k", "--all=false"]
    assert values.values == {
        "all": True,
        "count": 3,
        "name": "z",
        "wait": 61.0,
        "hosts": ["p", "q", "r"],
    }
    assert values.given == {"all", "count", "name", "hosts", "wait"}
    values, arguments = parse(FLAGS, ["-c5", "-n=v", "--all=false", "-"])
    assert (values["count"], values["name"], values["all"], arguments) == (5, "v", False, ["-"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--nosuch"], "unknown flag: --nosuch"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["-az"], "unknown shorthand flag: 'z' in -az"),
        (["--count"], "flag needs an argument: --count"),
        (["-c"], "flag needs an argument: 'c' in -c"),
        (["--=x"], "bad flag syntax: --=x"),
        (
            ["--all=perhaps"],
            'invalid argument "perhaps" for "-a, --all" flag: strconv.ParseBool: '
            'parsing "perhaps": invalid syntax',
        ),
        (
            ["--wait=5"],
            'invalid argument "5" for "--wait" flag: time: missing unit in duration "5"',
        ),
    ],
)
def test_what_is_no_flag_is_told_in_the_originals_words(words: list[str], text: str) -> None:
    with pytest.raises(FlagError) as told:
        parse(FLAGS, words)
    assert str(told.value) == text


def test_help_is_asked_for_both_ways() -> None:
    for word in ("-h", "--help"):
        with pytest.raises(CommandHelpWanted):
            parse(FLAGS, [word])


def test_commands_are_found_by_any_clear_beginning() -> None:
    assert find(ROOT, ["mem", "l", "x"]) == (_command("member list"), ["x"])
    words = ["--endpoints", "get", "pu", "--lease", "3", "k"]
    assert find(ROOT, words) == (_command("put"), [*words[:2], *words[3:]])
    assert find(ROOT, ["--rev", "3", "get", "k"]) == (_command("get"), ["--rev", "3", "k"])
    with pytest.raises(UnknownCommand) as told:
        find(ROOT, ["gett"])
    assert "Did you mean this?\n\tget\n" in str(told.value)
    with pytest.raises(UnknownCommand):
        find(ROOT, ["m"])  # make-mirror, member, move-leader


def _command(path: str) -> Command:
    command = ROOT
    for name in path.split():
        command = next(child for child in command.children if child.name == name)
    return command


def _all(command: Command) -> Iterator[Command]:
    yield command
    for child in command.children:
        yield from _all(child)


def test_every_command_has_help_and_work(capsys: pytest.CaptureFixture[str]) -> None:
    import importlib

    for command in _all(ROOT):
        assert help_text(command).endswith("(applies to all commands).\n")
        if command.run:
            module, _, name = command.run.partition(":")
            assert callable(getattr(importlib.import_module(module), name)), command.path
        else:
            assert command.children
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for title in ("Key-value commands", "Cluster maintenance commands", "Utility commands"):
        assert f"\n{title}\n" in shown
    assert "--endpoints" not in shown
    assert run(["options"]) == 0
    assert "--endpoints strings" in capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    shown = capsys.readouterr().out
    for command in _all(ROOT):
        if command is not ROOT:
            assert command.name in shown
    assert run(["completion", "nosuch"]) == 1


def test_words_are_split_like_a_shell_would() -> None:
    assert gofmt.words("put 'a b' \"x\\ny\" z") == ["put", "a b", "x\ny", "z"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (20480, "20 kB"),
        (1_234_567, "1.2 MB"),
        (98_304, "98 kB"),
        (2_147_483_648, "2.1 GB"),
    ],
)
def test_sizes_have_two_digits(count: int, text: str) -> None:
    assert size(count) == text


def test_json_is_what_the_original_makes_of_a_message() -> None:
    message = rpc_pb2.RangeResponse(
        header={"revision": 7}, kvs=[{"key": b"k", "value": b"\xff", "lease": 3}], count=1
    )
    assert encode(plain(message)) == (
        '{"header":{"revision":7},"kvs":[{"key":"aw==","value":"/w==","lease":3}],"count":1}'
    )
    assert encode({"a": "<&>\u2028"}) == '{"a":"\\u003c\\u0026\\u003e\\u2028"}'


def test_tables_are_as_wide_as_their_cells() -> None:
    assert boxed(["id", "is_on"], [["a", "true"], ["bcd", "no"]]) == (
        "┌─────┬───────┐\n"
        "│ ID  │ IS ON │\n"
        "├─────┼───────┤\n"
        "│   a │  true │\n"
        "│ bcd │    no │\n"
        "└─────┴───────┘\n"
    )


def test_conditions_and_requests_of_txn() -> None:
    made = compare('mod("a b") > "12"')
    assert (made.key, made.mod_revision, made.result) == (b"a b", 12, rpc_pb2.Compare.GREATER)
    assert compare('lease("k") = "1f"').lease == 31
    assert compare('val("k") != "x\\ny"').value == b"x\ny"
    assert operation("get k --prefix").request_range.range_end == b"l"
    assert operation('put "a b" "x\\ny"').request_put.value == b"x\ny"
    assert operation("del k").request_delete_range.key == b"k"
    for bad in ('mod("a") ~ "1"', 'mod(a) = "1"', 'mod("a") = "z"', "mod"):
        with pytest.raises(Exit) as ended:
            compare(bad)
        assert ended.value.code == 3
    for bad in ("nosuch k", "get", "get k --nosuch"):
        with pytest.raises(Exit) as ended:
            operation(bad)
        assert ended.value.code == 3


def test_what_to_watch_and_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert split(["k"], ["watch", "k"]) == (["k"], [])
    assert split(["k", "e", "echo", "x"], ["watch", "k", "e", "--", "echo", "x"]) == (
        ["k", "e"],
        ["echo", "x"],
    )
    with pytest.raises(BadWatch):
        split([], ["watch"])
    with pytest.raises(BadWatch):
        split(["k"], ["watch", "k", "--"])
    monkeypatch.setenv("ETCDCTL_WATCH_KEY", "k")
    monkeypatch.setenv("ETCDCTL_WATCH_RANGE_END", "z")
    assert split(["echo"], ["watch", "--", "echo"]) == (["k", "z"], ["echo"])
    with pytest.raises(BadWatch):
        split(["j"], ["watch", "j"])


# --- discovery ---------------------------------------------------------------------------------


ZONE = srv_zone(
    {
        "_etcd-client-ssl._tcp.example.org.": ["0 0 2379 a.example.org."],
        "_etcd-client._tcp.example.org.": [
            "10 0 2380 c.example.org.",
            "0 0 2379 b.example.org.",
        ],
        "_etcd-client-x._tcp.example.org.": ["0 0 1 x.example.org."],
    }
)


def test_endpoints_are_discovered_in_order(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with asked_here(ZONE, monkeypatch) as server:
        look_for_endpoints(server, capfd)


def look_for_endpoints(server: NameServer, capfd: pytest.CaptureFixture[str]) -> None:
    assert discover("example.org", "", True) == [
        "https://a.example.org.:2379",
        "http://b.example.org.:2379",
        "http://c.example.org.:2380",
    ]
    assert discover("example.org", "", False) == ["https://a.example.org.:2379"]
    said = capfd.readouterr().err
    assert 'ignoring discovered insecure endpoint "http://b.example.org.:2379"' in said
    assert discover("example.org", "x", True) == ["http://x.example.org.:1"]
    with pytest.raises(Exit) as ended:
        discover("nosuch.example.org", "", True)
    at = f"on 127.0.0.1:{server.port}: no such host"
    assert ended.value.code == 1
    assert ended.value.text == (
        f"dns lookup errors: lookup _etcd-client-ssl._tcp.nosuch.example.org {at} and "
        f"lookup _etcd-client._tcp.nosuch.example.org {at}"
    )
