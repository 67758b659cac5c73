"""What goes on until it is stopped, in every output form; discovery from the command line; the
checks of load: ours beside the original."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from keyraft.cli.ctl.main import run as run_here
from keyraft.proto import mvcc_pb2, rpc_pb2
from tests.cli.test_etcdctl_real import MINE, ORIGINAL, Following, put, run
from tests.support.names import asked_here, srv_zone
from tests.support.server import ORACLE, OURS, Server, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An original server."""
    made = Server(ORACLE, tmp_path_factory.mktemp("forms") / "data").start()
    yield made
    made.kill()


def history(server: Server, key: str) -> int:
    """Three events of a key; the first one's revision."""
    here = f"--endpoints={server.endpoint}"
    out = run(ORIGINAL, here, "put", key, "a", "-w=fields")[1]
    put(server, key, "b")
    assert run(ORIGINAL, here, "del", key)[0] == 0
    found = re.search(r'"Revision" : (\d+)', out)
    assert found
    return int(found[1])


def test_events_in_protobuf_are_the_same_bytes(server: Server) -> None:
    revision = history(server, "binary")
    words = ["watch", "binary", f"--rev={revision}", "--prev-kv", "-w=protobuf"]
    first, second = (
        Following(tool, f"--endpoints={server.endpoint}", *words) for tool in (ORIGINAL, MINE)
    )
    assert first.process.stdout is not None and second.process.stdout is not None
    wanted = b""
    while len(events(wanted)) < 3:
        wanted += first.process.stdout.read(1)
    found = second.process.stdout.read(len(wanted))
    for following in (first, second):
        following.end()
    assert found == wanted
    assert [event.kv.value for event in events(found)] == [b"a", b"b", b""]


def events(data: bytes) -> list[mvcc_pb2.Event]:
    """The events of a whole answer; of half a one, none."""
    try:
        return list(rpc_pb2.WatchResponse.FromString(data).events)
    except DecodeError:
        return []


def test_events_in_hexadecimal_and_of_ranges(server: Server) -> None:
    revision = history(server, "hex-a")
    history(server, "hex-b")
    for words, count in (
        (["watch", "hex-a", "--hex", "--prev-kv"], 13),
        (["watch", "hex-", "--prefix"], 18),
        (["watch", "hex-a", "hex-b"], 9),
        (["watch", "hex-a", "hex-c", "-w=fields"], 46),
    ):
        shown = []
        for tool in (ORIGINAL, MINE):
            here = f"--endpoints={server.endpoint}"
            following = Following(tool, here, *words, f"--rev={revision}")
            shown.append(following.lines(count))
            following.end()
        assert shown[0] == shown[1], words


@pytest.mark.parametrize("command", [["lock", "forms"], ["elect", "forms", "me"]])
def test_what_is_held_is_shown_in_every_form(server: Server, command: list[str]) -> None:
    here = f"--endpoints={server.endpoint}"
    for form, count in (("simple", 2), ("json", 1), ("fields", 12)):
        shown = []
        for tool in (ORIGINAL, MINE):
            following = Following(tool, here, *command, f"-w={form}")
            text = "\n".join(following.lines(count))
            following.end()
            shown.append(held(text))
        assert shown[0] == shown[1], form
        assert "forms" in shown[0] or form == "json"
    # Seen only when it is held; then the original leaves its key behind, so ours goes first.
    for tool in (MINE, ORIGINAL):
        code, out, err = run(tool, here, *command, "-w=table")
        assert (code, out, err) == (4, "", "Error: table not supported as output format\n")


def held(text: str) -> str:
    """Without the lease, which also is in the key, and the revisions."""
    text = re.sub(r"forms/[0-9a-f]+", "forms/LEASE", text)
    text = re.sub(r'"key":"[^"]+"', '"key":K', text)
    text = re.sub(r'("(lease|revision|create_revision|mod_revision)":)\d+', r"\1N", text)
    return re.sub(r'("(Lease|Revision|CreateRevision|ModRevision)" : )\d+', r"\1N", text)


def test_endpoints_come_from_the_name_service(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    put(server, "discovered", "yes")
    records = [f"0 0 {server.client_port} localhost."]
    zone = srv_zone(
        {
            "_etcd-client._tcp.example.org.": records,
            "_etcd-client-blue._tcp.example.org.": records,
        }
    )
    with asked_here(zone, monkeypatch):
        for words in (
            ["--discovery-srv=example.org"],
            ["-d", "example.org", "--discovery-srv-name", "blue"],
            ["-d", "example.org", "--endpoints=127.0.0.1:1"],
        ):
            assert run_here([*words, "get", "discovered"]) == 0
            assert capfd.readouterr().out == "discovered\nyes\n"
        assert run_here(["-d", "nosuch.example.org", "get", "discovered"]) == 1
        # Of records that say nothing of TLS none is left when only secure ones are asked for.
        code = run_here(
            [
                "-d",
                "example.org",
                "--insecure-discovery=false",
                "--command-timeout=100ms",
                "get",
                "x",
            ]
        )
        out, err = capfd.readouterr()
        assert code != 0 and not out and "ignoring discovered insecure endpoint" in err


def test_downgrades_are_judged_by_our_server(tmp_path: Path) -> None:
    member = Server(OURS, tmp_path / "data").start()
    here = f"--endpoints={member.endpoint}"
    try:
        assert run(MINE, here, "downgrade", "validate", "3.6") == (
            0,
            "Downgrade validate success, cluster version 3.7\n",
            "",
        )
        code, out, err = run(MINE, here, "downgrade", "validate", "3.4")
        assert (code, out) == (1, "") and err.startswith("Error: etcdserver: ")
        assert run(MINE, here, "downgrade", "enable", "3.6")[1] == (
            "Downgrade enable success, cluster version 3.7\n"
        )
        status = run(MINE, here, "endpoint", "status", "-w=fields")[1]
        assert '"DowngradeTargetVersion" : "3.6.0"' in status
        out = run(MINE, here, "downgrade", "cancel")[1]  # the cluster may be at 3.6 by now
        assert re.fullmatch(r"Downgrade cancel success, cluster version 3\.[67]\n", out)
        for words in (["validate"], ["enable"], ["validate", "3.6", "more"]):
            assert run(MINE, here, "downgrade", *words)[0] == 128
    finally:
        member.kill()


@pytest.mark.soak
def test_the_checks_of_load_speak_as_the_original(tmp_path: Path) -> None:
    """Each takes its minute; the figures, and so the verdict, are the machine's."""
    pair = [Server(ORACLE, tmp_path / name) for name in ("one", "two")]
    for server in pair:
        server.start()

    def judged(number: int, *words: str) -> str:
        tool, server = (ORIGINAL, MINE)[number], pair[number]
        _, out, err = run(tool, f"--endpoints={server.endpoint}", "check", *words, limit_s=300)
        assert not err
        return masked(out.replace(server.endpoint, "CLIENT"))

    try:
        with ThreadPoolExecutor(2) as both:
            for words in (
                ["datascale"],
                ["datascale", "--auto-compact", "--auto-defrag"],
                ["perf"],
                ["perf", "--auto-compact", "--auto-defrag"],
            ):
                first, second = both.map(lambda number: judged(number, *words), (0, 1))  # noqa: B023
                assert first == second
    finally:
        for server in pair:
            server.kill()


def masked(text: str) -> str:
    """Without the bar, which ours shows to a terminal only, and without figures and verdicts."""
    text = re.sub(r"\r *\d+ / \d+ +[0-9.]+%( [0-9ms]+)?\n?", "", text)
    text = re.sub(r"(PASS: |FAIL: )?Throughput.*", "THROUGHPUT", text)
    text = re.sub(r"(PASS: )?Slowest request took.*", "SLOWEST", text)
    text = re.sub(r"(PASS: )?Stddev.*", "STDDEV", text)
    text = re.sub(r"used : [0-9.]+ MB", "used : N MB", text)
    return re.sub(
        r"^(PASS|FAIL)$", "VERDICT", re.sub(r"revision \d+", "revision N", text), flags=re.M
    )
