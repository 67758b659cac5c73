"""The LMDB engine with its storage process: durability, damage, death of either side."""

from __future__ import annotations

import errno
import marshal
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyraft.mvcc import BackendError
from keyraft.mvcc import backend as b
from keyraft.storage import process
from keyraft.storage.backend import DatabaseLockedError, LMDBEngine, WriteBuffer
from keyraft.storage.backend.lmdb_engine import LMDBReader
from sim.loop import SimLoop

pytestmark = pytest.mark.real


class Calls:
    """Stands for the loop: what other threads hand in runs when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, callback: Callable[..., Any], *args: Any) -> None:
        self.calls.append((callback, args))

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for callback, args in calls:
            callback(*args)


def put(engine: LMDBEngine, **pairs: bytes) -> None:
    """Commits pairs into bucket `lease` and waits."""
    done: list[int] = []
    engine.commit({b.LEASE: {k.encode(): v for k, v in pairs.items()}}, lambda: done.append(1))
    engine.wait()
    assert done == [1]


def test_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    engine = LMDBEngine(tmp_path / "kv", Calls())
    assert engine.size_in_use_bytes > 0
    assert engine.get(b.LEASE, b"a") is None
    put(engine, a=b"1", b=b"2", c=b"3")
    done: list[int] = []
    engine.commit({b.LEASE: {b"b": None, b"d": b""}, b.META: {b"m": b"x"}}, lambda: done.append(1))
    engine.wait()
    assert done == [1]
    assert engine.size_bytes > 0 and 0 < engine.size_in_use_bytes <= engine.size_bytes
    engine.close()
    calls = Calls()
    engine = LMDBEngine(tmp_path / "kv", calls)
    assert list(engine.range(b.LEASE, b"", None)) == [(b"a", b"1"), (b"c", b"3"), (b"d", b"")]
    assert list(engine.range(b.LEASE, b"b", b"d")) == [(b"c", b"3")]
    assert list(engine.range(b.LEASE, b"e", None)) == []
    assert list(engine.range(b.ALARM, b"", None)) == []
    assert engine.get(b.META, b"m") == b"x"
    engine.close()
    calls.run()


def test_a_directory_in_use_is_refused_or_waited_for(tmp_path: Path) -> None:
    first = LMDBEngine(tmp_path / "kv", Calls())
    with pytest.raises(DatabaseLockedError):
        LMDBEngine(tmp_path / "kv", Calls())
    waited: list[int] = []

    def release() -> None:
        waited.append(1)
        first.close()

    second = LMDBEngine(tmp_path / "kv", Calls(), release)
    assert waited == [1]
    second.close()


def test_a_killed_storage_process_is_replaced_and_loses_nothing(tmp_path: Path) -> None:
    engine = LMDBEngine(tmp_path / "kv", Calls())
    put(engine, a=b"1")
    first = engine.writer_pid
    os.kill(first, signal.SIGKILL)
    put(engine, b=b"2")
    assert engine.writer_pid != first
    assert list(engine.range(b.LEASE, b"", None)) == [(b"a", b"1"), (b"b", b"2")]
    engine.close()


def test_interrupts_of_the_terminal_do_not_end_the_storage_process(tmp_path: Path) -> None:
    engine = LMDBEngine(tmp_path / "kv", Calls())
    pid = engine.writer_pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    put(engine, a=b"1")
    assert engine.writer_pid == pid
    engine.close()


def test_a_batch_of_many_megabytes_gets_through(tmp_path: Path) -> None:
    engine = LMDBEngine(tmp_path / "kv", Calls())
    rows = {b"%08d" % number: b"v" * 1000 for number in range(20_000)}
    engine.commit({b.KEY: dict(rows)}, lambda: None)
    engine.wait()
    assert dict(engine.range(b.KEY, b"", None)) == rows
    engine.close()


def test_damage_is_reported_as_such(tmp_path: Path) -> None:
    (tmp_path / "kv").mkdir()
    (tmp_path / "kv" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(BackendError, match="cannot open the database"):
        LMDBEngine(tmp_path / "kv", Calls())


FULL = """
import resource, sys, threading
from keyraft.mvcc import backend as b
from keyraft.storage.backend import LMDBEngine
NONE = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, ((1 << 20) + int(sys.argv[2]), NONE))
finished = threading.Semaphore(0)
engine = LMDBEngine(sys.argv[1], lambda *call: finished.release())
reports = []
engine.on_failure(reports.append)
def commit(number):
    engine.commit({b.KEY: {b"%08d" % number: b"v" * 100_000}}, lambda: None)
    engine.wait()
for number in range(100):
    commit(number)
    if engine.starved:
        break
assert not reports, reports
rows = [key for key, _ in engine.range(b.KEY, b"", None)]
assert rows == [b"%08d" % n for n in range(number)], (rows, number)
if sys.argv[3] == "room":
    resource.prlimit(engine.writer_pid, resource.RLIMIT_FSIZE, (NONE, NONE))
    while engine.starved:
        finished.acquire(timeout=0.1)
    engine.wait()
    number += 1
    commit(number)
    number += 1
else:
    engine.abandon()
assert not reports, reports
rows = [key for key, _ in engine.range(b.KEY, b"", None)]
assert rows == [b"%08d" % n for n in range(number)], (rows, number)
engine.close()
print("committed", number)
"""


@pytest.mark.parametrize("end", ["room", "none"])
@pytest.mark.parametrize("odd_bytes", [0, 100])  # LMDB calls a write that was cut short EIO
def test_a_commit_waits_for_room_on_a_full_disk(tmp_path: Path, end: str, odd_bytes: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "kv"), str(odd_bytes), end],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("committed ")
    engine = LMDBEngine(tmp_path / "kv", Calls())
    assert len(list(engine.range(b.KEY, b"", None))) == int(done.stdout.split()[-1])
    engine.close()


MEMBER = """
import sys
from keyraft.mvcc import backend as b
from keyraft.storage.backend import LMDBEngine
engine = LMDBEngine(sys.argv[1], lambda *call: None, lambda: None)
at = int(engine.get(b.META, b"n") or b"0")
rows = [key for key, _ in engine.range(b.KEY, b"", None)]
assert rows == [b"%08d" % n for n in range(at * 10)], (len(rows), at)
print(at, flush=True)
while True:
    batch = {b.KEY: {b"%08d" % n: b"v" * 200 for n in range(at * 10, at * 10 + 10)}}
    at += 1
    batch[b.META] = {b"n": b"%d" % at}
    engine.commit(batch, lambda: None)
    engine.wait()
    print(at, flush=True)
"""


def test_a_killed_member_leaves_whole_batches_and_all_that_were_acknowledged(
    tmp_path: Path,
) -> None:
    acknowledged = 0
    for turn in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", MEMBER, str(tmp_path / "kv")], stdout=subprocess.PIPE
        ) as member:
            assert member.stdout is not None
            found = int(member.stdout.readline())
            assert found >= acknowledged
            for _ in range(3 + 7 * turn):
                acknowledged = int(member.stdout.readline())
            member.kill()
            for line in member.stdout.read().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    acknowledged = int(line)
    assert acknowledged > 0


def test_the_storage_process_ends_with_the_member(tmp_path: Path) -> None:
    script = (
        "import sys, os\nfrom keyraft.storage.backend import LMDBEngine\n"
        "engine = LMDBEngine(sys.argv[1], lambda *call: None)\n"
        "print(engine.writer_pid, flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "kv")],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    ) as member:
        assert member.stdout is not None
        pid = int(member.stdout.readline())
        os.kill(pid, 0)
        member.kill()
    # It holds the lock until it is gone, so having the lock means that it is gone.
    LMDBEngine(tmp_path / "kv", Calls(), lambda: None).close()


def test_the_storage_process_of_a_killed_member_says_nothing(tmp_path: Path) -> None:
    """It writes the last batch, and nobody reads that it has."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arguments = [process.site_directory(), str(theirs.fileno())]
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-s", process.WRITER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(theirs.fileno(),),
    ) as writer:
        theirs.close()
        with ours, open(tmp_path / "LOCK", "w") as lock:
            order = marshal.dumps((str(tmp_path), 1 << 20, [b"key"], True, 0), 2)
            socket.send_fds(ours, [order], [lock.fileno()])
        assert writer.stdin is not None and writer.stdout is not None
        assert writer.stdout.read(5) == bytes(5), "the database is open"
        writer.stdout.close()
        writer.stdin.write(bytes(8))  # an empty batch
        writer.stdin.close()
        assert writer.stderr is not None
        assert writer.stderr.read() == b""
        assert writer.wait() == 0


def test_a_storage_process_may_wait_for_its_database(tmp_path: Path) -> None:
    spare = process.StorageProcess()
    engine = LMDBEngine(tmp_path / "kv", Calls(), spare=spare)
    assert engine.writer_pid == spare.pid
    put(engine, a=b"1")
    engine.close()
    spare.stop()  # is over already


def test_a_storage_process_that_is_not_needed_ends() -> None:
    spare = process.StorageProcess()
    spare.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(spare.pid, 0)


def test_a_storage_process_that_ended_before_it_was_needed_is_an_error(tmp_path: Path) -> None:
    spare = process.StorageProcess()
    os.kill(spare.pid, signal.SIGKILL)
    os.waitid(os.P_PID, spare.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(b.BackendError, match="ended unexpectedly"):
        LMDBEngine(tmp_path / "kv", Calls(), spare=spare)


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_directory_taken_away_changes_nothing_for_who_has_it_open(
    tmp_path: Path, how: str
) -> None:
    engine = LMDBEngine(tmp_path / "kv", Calls())
    put(engine, a=b"1")
    if how == "moved":
        (tmp_path / "kv").rename(tmp_path / "aside")
    else:
        shutil.rmtree(tmp_path / "kv")
    put(engine, b=b"2")
    assert engine.get(b.LEASE, b"b") == b"2"
    assert engine.size_bytes > 0
    engine.close()
    if how == "moved":
        again = LMDBEngine(tmp_path / "aside", Calls())
        assert list(again.range(b.LEASE, b"", None)) == [(b"a", b"1"), (b"b", b"2")]
        again.close()


def test_a_database_that_cannot_be_read_any_more_is_said_once_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is over and what it wrote cannot be seen: `close` must not wait for it for ever."""
    loop = SimLoop()
    said: list[str] = []
    calls = Calls()
    buffer = WriteBuffer(LMDBEngine(tmp_path / "kv", calls), loop, said.append)

    def gone(reader: LMDBReader) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(LMDBReader, "renew", gone)
    buffer.put(b.LEASE, b"a", b"1")
    buffer.close()
    calls.run()
    assert said == ["cannot read the database: [Errno 5] Input/output error"]
