"""Our etcdctl as it is used: following, locking, electing, saving, mirroring, being told no.

Where the original can do the same, both do it and are compared.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from keyraft.cli.ctl.command import Command
from keyraft.cli.ctl.flags import shown
from keyraft.cli.ctl.tree import ROOT
from tests.cli.etcdctl_forms import COMMANDS, UNREACHABLE
from tests.golden.sessions import line
from tests.support.ports import free_ports
from tests.support.server import (
    ETCDCTL,
    ORACLE,
    ORACLE_DIRECTORY,
    OURS,
    Server,
    environment,
    needs_oracle,
)

pytestmark = [pytest.mark.real, needs_oracle()]

MINE = (sys.executable, "-m", "keyraft.cli.etcdctl")
ORIGINAL = (ETCDCTL,)
LIMIT_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An original server."""
    made = Server(ORACLE, tmp_path_factory.mktemp("etcdctl") / "data")
    made.start()
    yield made
    made.kill()


def run(
    tool: Sequence[str],
    *words: str,
    stdin: bytes = b"",
    variables: dict[str, str] | None = None,
    limit_s: float = LIMIT_S,
) -> tuple[int, str, str]:
    """(exit code, standard output, standard error without the log) of one command."""
    done = subprocess.run(
        [*tool, *words],
        input=stdin,
        capture_output=True,
        env=environment() | (variables or {}),
        timeout=limit_s,
        check=False,
    )
    out, err = (part.decode("utf-8", "replace") for part in (done.stdout, done.stderr))
    kept = [line for line in err.splitlines(True) if not line.startswith("{")]
    return done.returncode, out, "".join(kept)


def both(*words: str, stdin: bytes = b"", variables: dict[str, str] | None = None) -> None:
    """Asserts that both tools do the same."""
    first = run(ORIGINAL, *words, stdin=stdin, variables=variables)
    second = run(MINE, *words, stdin=stdin, variables=variables)
    assert first == second, words


class Following:
    """A command that goes on, with its output line by line."""

    def __init__(self, tool: Sequence[str], *words: str, stdin: int | IO[bytes] = -3) -> None:
        self.process = subprocess.Popen(
            [*tool, *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            bufsize=0,
        )

    def lines(self, count: int) -> list[str]:
        assert self.process.stdout is not None
        return [self.process.stdout.readline().decode().rstrip("\n") for _ in range(count)]

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode

    def wait(self) -> int:
        """Its exit code, once it ends by itself."""
        with self.process:
            return self.process.wait(LIMIT_S)


def put(server: Server, key: str, value: str) -> None:
    assert run(ORIGINAL, f"--endpoints={server.endpoint}", "put", key, value)[0] == 0


# --- no server, bad surroundings ---------------------------------------------------------------


def test_without_a_server_both_give_up_alike() -> None:
    (port,) = free_ports(1)
    options = [f"--endpoints=127.0.0.1:{port}", "--command-timeout=300ms", "--dial-timeout=200ms"]
    lines = [*UNREACHABLE, line("get a --user=u:p"), line("snapshot save nosuch/file")]
    lines += [line(f"{words} -w json") for words in ("get a", "lease grant 5", "endpoint status")]
    with ThreadPoolExecutor(8) as many:
        told = [
            many.map(lambda each: run(tool, *options, *each[0], stdin=each[1]), lines)  # noqa: B023
            for tool in (ORIGINAL, MINE)
        ]
        for (words, _), first, second in zip(lines, *told):
            if words[0] == "defrag":
                assert re.fullmatch(r"(.*\])\. took \S+\. (\(.*\)\n)", second[2])
                second = (*second[:2], re.sub(r"\. took \S+\.", "", second[2]))
            assert first == second, words
    code, out, err = run(MINE, *options, "endpoint", "health")
    assert (code, out) == (1, "")
    assert err == (
        f"127.0.0.1:{port} is unhealthy: failed to commit proposal: context deadline exceeded\n"
        "Error: unhealthy cluster\n"
    )
    both(*options, "endpoint", "status")


def test_commands_without_a_deadline_wait_for_their_server(tmp_path: Path) -> None:
    server = Server(ORACLE, tmp_path / "data")
    here = f"--endpoints={server.endpoint}"
    waiting = [
        Following(MINE, here, *words, stdin=subprocess.DEVNULL)
        for words in (
            ["--command-timeout=1ms", "elect", "e", "me"],
            ["--command-timeout=1ms", "lock", "l", "echo", "held"],
            ["--command-timeout=1ms", "role", "add", "r"],
            ["--command-timeout=1ms", "watch", "w", "--rev=1"],
        )
    ]
    server.start()
    try:
        assert waiting[0].lines(2)[1] == "me"
        assert waiting[1].lines(1) == ["held"]
        assert waiting[2].lines(1) == ["Role r created"]
        put(server, "w", "v")
        assert waiting[3].lines(3) == ["PUT", "w", "v"]
        for each in waiting:
            each.end()
    finally:
        server.kill()


def test_variables_stand_in_for_flags_and_conflicts_are_refused(server: Server) -> None:
    put(server, "env", "1")
    here = {"ETCDCTL_ENDPOINTS": server.endpoint, "ETCDCTL_API": "3"}
    both("get", "env", variables=here | {"ETCDCTL_WRITE_OUT": "fields"})
    both("get", "env", variables=here | {"ETCDCTL_WRITE_OUT": ""})
    both("get", "env", f"--endpoints={server.endpoint}", variables=here)
    both("get", "env", variables=here | {"ETCDCTL_COMMAND_TIMEOUT": "never"})
    code, _, _ = run(MINE, "version", "--endpoints=x", variables=here)
    assert code == 0, "a command without a client does not look at the variables"


def test_tls_flags_are_checked(server: Server, tmp_path: Path) -> None:
    here = f"--endpoints={server.endpoint}"
    both(here, "--cert=", "get", "a")
    both(here, "--cacert=", "get", "a")
    missing = tmp_path / "nosuch.pem"
    for flags in ([f"--cacert={missing}"], [f"--cert={missing}", f"--key={missing}"]):
        first, second = (run(tool, here, *flags, "get", "a") for tool in (ORIGINAL, MINE))
        assert first[0] == second[0] == 128
        assert "no such file or directory" in second[2]


# --- watch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["simple", "json", "fields"])
def test_events_are_shown_alike(server: Server, form: str) -> None:
    here = f"--endpoints={server.endpoint}"
    key = f"watch-{form}"
    first = run(ORIGINAL, here, "put", key, "0", "-w=json")
    revision = json.loads(first[1])["header"]["revision"]
    for words in (["put", key, "a"], ["put", key, "b"], ["del", key]):
        assert run(ORIGINAL, here, *words)[0] == 0
    shown = []
    for tool in (ORIGINAL, MINE):
        words = ["watch", key, f"--rev={revision}", "--prev-kv", f"--write-out={form}"]
        following = Following(tool, here, *words)
        lines = following.lines({"simple": 16, "json": 1, "fields": 49}[form])
        following.end()
        shown.append("\n".join(lines).replace(',"CancelReason":""', ""))
    assert shown[0] == shown[1]


def test_a_command_is_run_for_each_event(server: Server) -> None:
    here = f"--endpoints={server.endpoint}"
    show = 'echo "$ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"'
    put(server, "exec", 'a "quoted"')
    shown = []
    for tool in (ORIGINAL, MINE):
        following = Following(tool, here, "watch", "exec", "--rev=1", "--", "sh", "-c", show)
        shown.append(following.lines(4))
        following.end()
    assert shown[0] == shown[1]
    both(here, "watch", "exec", "--rev=1", "--", "sh", "-c", "exit 3")
    both(here, "watch", "exec", "--rev=1", "--", "nosuch-command")


def test_watches_are_read_from_standard_input(server: Server) -> None:
    following = Following(
        MINE, f"--endpoints={server.endpoint}", "watch", "-i", stdin=subprocess.PIPE
    )
    put(server, "in-a", "1")
    put(server, "in-b", "2")
    assert following.process.stdin is not None
    following.process.stdin.write(b"watch in-a --rev=1\n")
    assert following.lines(3) == ["PUT", "in-a", "1"]
    following.process.stdin.write(b"watch in- --prefix --rev=1 -- echo ran\n")
    assert following.lines(8) == ["PUT", "in-a", "1", "PUT", "in-b", "2", "ran", "ran"]
    following.process.stdin.write(b"progress\n")
    assert following.lines(1)[0].startswith("progress notify: ")
    following.process.stdin.close()
    assert following.wait() == 3


def test_a_watch_survives_its_server(tmp_path: Path) -> None:
    server = Server(ORACLE, tmp_path / "data").start()
    try:
        put(server, "k", "1")
        following = Following(MINE, f"--endpoints={server.endpoint}", "watch", "k", "--rev=1")
        assert following.lines(3) == ["PUT", "k", "1"]
        server.kill()
        server.start()
        put(server, "k", "2")
        assert following.lines(3) == ["PUT", "k", "2"]
        following.end()
    finally:
        server.kill()


# --- locks and elections -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_releases_the_lock(server: Server, number: int) -> None:
    here = f"--endpoints={server.endpoint}"
    first = Following(MINE, here, "lock", "l")
    key, value = first.lines(2)
    assert key.startswith("l/") and not value
    waiting = Following(ORIGINAL, here, "lock", "l", "echo", "held")
    assert first.end(number) == 0
    assert waiting.lines(1) == ["held"]
    assert waiting.wait() == 0
    assert run(MINE, here, "get", "l/", "--prefix") == (0, "", "")


def test_a_contender_that_is_stopped_leaves_no_key(server: Server) -> None:
    here = f"--endpoints={server.endpoint}"
    first = Following(ORIGINAL, here, "lock", "m")
    first.lines(2)
    second = Following(MINE, here, "lock", "m")
    count = ["get", "m/", "--prefix", "--count-only", "-w=fields"]
    while '"Count" : 2' not in run(ORIGINAL, here, *count)[1]:
        assert second.process.poll() is None
    assert second.end() == 1
    assert '"Count" : 1' in run(ORIGINAL, here, *count)[1]
    first.end()


def test_the_lock_names_itself_to_its_command(server: Server) -> None:
    here = f"--endpoints={server.endpoint}"
    code, out, _ = run(
        MINE, here, "lock", "n", "sh", "--", "-c", "echo $ETCD_LOCK_KEY $ETCD_LOCK_REV"
    )
    key, revision = out.split()
    assert code == 0 and key.startswith("n/") and int(revision) > 1


@pytest.mark.parametrize("name", ["INT", "TERM", "KILL", "USR1"])
def test_a_command_under_the_lock_is_ended_by_a_signal(server: Server, name: str) -> None:
    """255 and the signal's name, as Go tells it."""
    here = f"--endpoints={server.endpoint}"
    both(here, "lock", "signalled", "sh", "--", "-c", f"kill -{name} $$")
    assert run(MINE, here, "get", "signalled", "--prefix") == (0, "", "")


@pytest.mark.parametrize("command", [["lock", "early"], ["elect", "early", "me"]])
def test_a_signal_that_comes_while_the_program_starts_counts(
    server: Server, command: list[str]
) -> None:
    """It is there before the first line of Python has run."""
    here = f"--endpoints={server.endpoint}"
    holder = Following(ORIGINAL, here, *command)
    holder.lines(2)

    def pending() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        os.kill(os.getpid(), signal.SIGINT)

    early = subprocess.run(
        [*MINE, here, *command],
        capture_output=True,
        env=environment(),
        timeout=LIMIT_S,
        preexec_fn=pending,
        check=False,
    )
    assert (early.returncode, early.stderr) == (1, b"Error: context canceled\n")
    count = ["get", "early/", "--prefix", "--count-only", "-w=fields"]
    assert '"Count" : 1' in run(ORIGINAL, here, *count)[1]
    holder.end()


def test_a_signal_ends_what_waits_for_a_server_that_is_not_there() -> None:
    (port,) = free_ports(1)
    waiting = Following(MINE, f"--endpoints=127.0.0.1:{port}", "--debug", "lock", "nowhere")
    assert waiting.process.stderr is not None
    while b"failed to connect" not in waiting.process.stderr.readline():
        assert waiting.process.poll() is None
    assert waiting.end() == 1


def test_log_lines_say_when_and_where(server: Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [*MINE, f"--endpoints={server.endpoint}", "snapshot", "save", str(tmp_path / "s")],
        capture_output=True,
        env=environment(),
        timeout=LIMIT_S,
        check=True,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["msg"] for line in lines] == [
        "created temporary db file",
        "fetching snapshot",
        "fetched snapshot",
        "saved",
    ]
    for one in lines:
        assert list(one)[:4] == ["level", "ts", "caller", "msg"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d{4})", one["ts"])
        assert re.fullmatch(r"ctl/snapshot\.py:\d+", one["caller"])


def test_a_refusal_has_its_line_in_the_log(server: Server) -> None:
    """The same as the original's but for caller, time and addresses."""
    lines = []
    for tool in (ORIGINAL, MINE):
        done = subprocess.run(
            [*tool, f"--endpoints={server.endpoint}", "put", "k", "v", "--lease=7"],
            capture_output=True,
            env=environment(),
            timeout=LIMIT_S,
            check=False,
        )
        line = json.loads(done.stderr.splitlines()[0])
        lines.append({name: line[name] for name in ("level", "logger", "msg", "attempt", "error")})
        assert line["target"].endswith(f"/{server.endpoint}")
    assert lines[0] == lines[1]


def test_leaders_are_elected_and_observed(server: Server) -> None:
    here = f"--endpoints={server.endpoint}"
    first = Following(MINE, here, "elect", "e", "one")
    assert first.lines(2)[1] == "one"
    observers = [Following(tool, here, "elect", "-l", "e") for tool in (ORIGINAL, MINE)]
    for observer in observers:
        assert observer.lines(2)[1] == "one"
    second = Following(ORIGINAL, here, "elect", "e", "two")
    assert first.end() == 0
    assert second.lines(2)[1] == "two"
    for observer in observers:
        assert observer.lines(2)[1] == "two"
        assert observer.end() == 0
    second.end()


# --- leases ------------------------------------------------------------------------------------


def test_a_lease_is_kept_alive_until_it_is_revoked(server: Server) -> None:
    here = f"--endpoints={server.endpoint}"
    lease = run(MINE, here, "lease", "grant", "2")[1].split()[1]
    following = Following(MINE, here, "lease", "keep-alive", lease)
    assert following.lines(2) == [f"lease {lease} keepalived with TTL(2)"] * 2
    assert run(MINE, here, "lease", "revoke", lease)[0] == 0
    said = following.process.stdout.read().decode().splitlines()  # type: ignore[union-attr]
    assert said[-1] == f"lease {lease} expired or revoked."
    assert following.wait() == 0


# --- snapshots ---------------------------------------------------------------------------------


def test_a_saved_snapshot_is_whole_or_not_there(server: Server, tmp_path: Path) -> None:
    here = f"--endpoints={server.endpoint}"
    put(server, "snap", "1")
    path = tmp_path / "a.db"
    code, out, _ = run(MINE, here, "snapshot", "save", str(path))
    assert (code, out) == (0, f"Snapshot saved at {path}\n")
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    status = run([str(ORACLE_DIRECTORY / "etcdutl")], "snapshot", "status", str(path), "-w=json")
    assert status[0] == 0 and json.loads(status[1])["revision"] > 1
    assert not list(tmp_path.glob("*.part"))
    several = [f"--endpoints={server.endpoint},{server.endpoint}"]
    assert run(MINE, *several, "snapshot", "save", str(tmp_path / "b.db"))[0] == 5
    nowhere = tmp_path / "nosuch" / "c.db"
    both(here, "snapshot", "save", str(nowhere))
    (port,) = free_ports(1)
    away = [f"--endpoints=127.0.0.1:{port}", "--command-timeout=300ms"]
    code, out, err = run(MINE, *away, "snapshot", "save", str(tmp_path / "d.db"))
    assert (code, out, err) == (5, "", "Error: context deadline exceeded\n")
    assert sorted(os.listdir(tmp_path)) == ["a.db"]


def test_the_older_spellings_reach_etcdutl(server: Server, tmp_path: Path) -> None:
    here = f"--endpoints={server.endpoint}"
    path = tmp_path / "a.db"
    put(server, "older", "1")
    assert run(MINE, here, "snapshot", "save", str(path))[0] == 0
    utl = (sys.executable, "-m", "keyraft.cli.etcdutl")
    for words in (["status", str(path)], ["status", str(path), "-w=json"], ["status"]):
        code, out, err = run(utl, "snapshot", *words)
        told = f"Deprecated: Use `etcdutl snapshot {words[0]}` instead.\n\n"
        assert run(MINE, "snapshot", *words) == (code, out, told + err)
        first = run(ORIGINAL, "snapshot", *words)
        assert (first[0], first[2][: len(told)]) == (code, told)
    restored = tmp_path / "restored"
    flags = [f"--data-dir={restored}", "--skip-hash-check=false"]
    variables = {"ETCDCTL_API": "3"}
    assert run(MINE, "snapshot", "restore", str(path), *flags, variables=variables)[0] == 0
    assert run(MINE, "defrag", f"--data-dir={restored}")[0] == 0
    assert run(MINE, "defrag", f"--data-dir={tmp_path / 'nosuch'}")[0] == 1
    again = Server(ORACLE, restored).start()
    try:
        assert run(MINE, f"--endpoints={again.endpoint}", "get", "older")[1] == "older\n1\n"
    finally:
        again.kill()


# --- the rest ----------------------------------------------------------------------------------


def find(path: str) -> Command:
    command = ROOT
    for name in path.split():
        command = next(child for child in command.children if child.name == name)
    return command


def test_every_flag_of_the_original_is_there_with_its_default() -> None:
    option = re.compile(r"\s+(?:-(\w), )?\s*--([\w-]+)(?:\[=(\w+)\]|=(\S*))")

    def original(path: str) -> set[tuple[str, str, str]]:
        shown_there = run(ORIGINAL, *path.split(), "--help")[1].partition("OPTIONS:")[2]
        found = {
            (match[2], match[1] or "", (match[3] or match[4] or "").strip('"'))
            for match in map(option.match, shown_there.splitlines())
            if match
        }
        assert len(found) > 15
        return {each for each in found if each[0] != "help"}

    with ThreadPoolExecutor(4) as many:
        for path, wanted in zip(COMMANDS, many.map(original, COMMANDS)):
            flags = {
                (flag.name, flag.short, shown(flag, flag.default))
                for flag in find(path).all_flags()
            }
            assert wanted <= flags, path


def test_a_mirror_follows(server: Server, tmp_path: Path) -> None:
    target = Server(ORACLE, tmp_path / "target").start()
    here, there = f"--endpoints={server.endpoint}", f"--endpoints={target.endpoint}"
    try:
        for number in range(5):
            put(server, f"mirror/{number}", str(number))
        mirror = Following(
            MINE, here, "make-mirror", "--prefix=mirror/", "--dest-prefix=copy/", target.endpoint
        )
        watch = Following(ORIGINAL, there, "watch", "copy/", "--prefix", "--rev=1")
        first = watch.lines(15)
        assert sorted(first[1::3]) == [f"copy/{number}" for number in range(5)]
        put(server, "mirror/9", "nine")
        assert watch.lines(3) == ["PUT", "copy/9", "nine"]
        assert run(ORIGINAL, here, "del", "mirror/", "--prefix")[0] == 0
        assert sorted(watch.lines(18)[1::3])[-1] == "copy/9"
        watch.end()
        mirror.end()
    finally:
        target.kill()


@pytest.mark.parametrize(
    ("flags", "key"),
    [([], "app/key"), (["--dest-prefix=to/"], "to/key"), (["--no-dest-prefix"], "key")],
)
def test_a_mirror_that_begins_at_a_revision_keeps_the_prefix(
    server: Server, tmp_path: Path, flags: list[str], key: str
) -> None:
    target = Server(ORACLE, tmp_path / "target").start()
    here, there = f"--endpoints={server.endpoint}", f"--endpoints={target.endpoint}"
    try:
        answer = json.loads(run(ORIGINAL, here, "put", "app/key", "new", "-w=json")[1])
        revision = answer["header"]["revision"]
        mirror = Following(
            MINE, here, "make-mirror", "--prefix=app/", f"--rev={revision}", *flags, target.endpoint
        )
        watch = Following(ORIGINAL, there, "watch", "", "--prefix", "--rev=1")
        assert watch.lines(3) == ["PUT", key, "new"]
        watch.end()
        mirror.end()
    finally:
        target.kill()


def test_progress_asked_for_before_the_stream_is_open_is_told(server: Server) -> None:
    put(server, "progress", "1")
    follower = Following(
        MINE, f"--endpoints={server.endpoint}", "watch", "-i", stdin=subprocess.PIPE
    )
    assert follower.process.stdin is not None
    follower.process.stdin.write(b"watch progress\nprogress\n")
    follower.process.stdin.flush()
    assert follower.lines(1)[0].startswith("progress notify: ")
    follower.end(signal.SIGKILL)


def test_the_leadership_is_moved_from_the_leader_only(server: Server) -> None:
    here = f"--endpoints={server.endpoint}"
    both(here, "move-leader", "1")
    both(here, "move-leader", "zz")


def test_the_cluster_is_asked_for_its_endpoints(server: Server) -> None:
    here = f"--endpoints={server.endpoint}"
    code, out, _ = run(MINE, here, "endpoint", "health", "--cluster", "-w=json")
    assert code == 0
    assert json.loads(out)[0]["endpoint"] == f"http://{server.endpoint}"


def test_passwords_are_typed_unseen(server: Server) -> None:
    import pty

    here = f"--endpoints={server.endpoint}"
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*MINE, here, "user", "add", "typed"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(terminal)
    seen = b""
    for prompt in (b"Password of typed: ", b"again for confirmation: "):
        while prompt not in seen:
            seen += os.read(controller, 1_000)
        os.write(controller, b"secret\n")
    out, err = process.communicate(timeout=LIMIT_S)
    os.close(controller)
    assert (process.returncode, out) == (0, b"User typed created\n"), err
    assert b"secret" not in seen
    assert run(ORIGINAL, here, "user", "delete", "typed")[0] == 0


def test_the_check_judges_a_load(server: Server) -> None:
    here = f"--endpoints={server.endpoint}"
    code, out, err = run(MINE, here, "check", "datascale", "--auto-compact", "--auto-defrag")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == (
        "Start data scale check for work load [10000 key-value pairs, 1024 bytes per key-value, "
        "50 concurrent clients]."
    )
    assert lines[1].startswith("Compacting with revision ")
    assert lines[-1].startswith("PASS: Approximate system memory used : ")
    put(server, "/etcdctl-check-perf/x", "1")
    both(here, "check", "perf")
    both(here, "check", "perf", "--load=nosuch")


# --- four ways: either tool, either server -----------------------------------------------------


@pytest.mark.parametrize("kind", ["original", "ours"])
def test_both_tools_say_the_same_of_both_servers(kind: str, tmp_path: Path) -> None:
    server = Server(ORACLE if kind == "original" else OURS, tmp_path / "data").start()
    here = f"--endpoints={server.endpoint}"
    try:
        for number in range(6):
            tool = (ORIGINAL, MINE)[number % 2]
            assert run(tool, here, "put", f"k{number}", f"v{number}") == (0, "OK\n", "")
        txn = b'version("k0") = "1"\n\nput k0 new\nget k1\n\n\n'
        assert run(MINE, here, "txn", stdin=txn)[1] == "SUCCESS\n\nOK\n\nk1\nv1\n"
        assert run(ORIGINAL, here, "del", "k5")[1] == "1\n"
        for words in (
            ["get", "k", "--prefix"],
            ["get", "k", "--prefix", "-w=json"],
            ["get", "k", "--prefix", "-w=fields", "--limit=2"],
            ["get", "k", "--prefix", "--sort-by=MODIFY", "--order=DESCEND"],
            ["get", "k", "--prefix", "--keys-only"],
            ["get", "k0", "--rev=2"],
            ["get", "k0", "--rev=100"],
            ["get", "k0", "-w=protobuf"],
            ["del", "nosuch"],
            ["compaction", "3"],
            ["compaction", "100"],
            ["member", "list"],
            ["alarm", "list"],
            ["lease", "revoke", "1"],
        ):
            if words == ["compaction", "3"]:
                assert run(ORIGINAL, here, *words) == (0, "compacted revision 3\n", "")
            both(here, *words)
        streamed = run(MINE, here, "get", "k", "--prefix", "--stream")
        if kind == "ours":
            assert streamed == run(MINE, here, "get", "k", "--prefix")
        else:
            unknown = "unknown method RangeStream for service etcdserverpb.KV"
            assert streamed == (1, "", f"Error: rpc error: code = Unimplemented desc = {unknown}\n")
    finally:
        server.kill()
