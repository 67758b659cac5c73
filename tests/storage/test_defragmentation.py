"""Defragmentation beside a running member: the file shrinks, nothing is lost, whatever dies when."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from keyraft.mvcc import backend as b
from keyraft.storage.backend import LMDBEngine, WriteBuffer, writer
from sim.loop import SimLoop
from tests.storage.test_lmdb_engine import Calls, put
from tests.support.server import environment

pytestmark = pytest.mark.real

VALUE = b"v" * 1_000


def fill(engine: LMDBEngine, count: int = 3_000) -> None:
    """Many pairs of which few are left."""
    pairs: dict[bytes, bytes | None] = {b"%06d" % n: VALUE for n in range(count)}
    for changes in (pairs, {key: None for key in pairs if not key.endswith(b"00")}):
        engine.commit({b.LEASE: dict(changes)}, lambda: None)
        engine.wait()


def content(engine: LMDBEngine) -> dict[bytes, bytes]:
    return dict(engine.range(b.LEASE, b"", None))


BESIDE = """
import sys
from pathlib import Path
from keyraft.mvcc import backend
from keyraft.storage.backend import LMDBReader
reader = LMDBReader(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.readline()
for key, value in reader.range(backend.LEASE, b"", None):
    print(key.decode(), flush=True)
"""


class Beside:
    """Another process that has the database open, and reads it when it is told."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", BESIDE, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"open\n"

    def keys(self) -> list[bytes]:
        return self._process.communicate(b"\n")[0].split()


def defragment(engine: LMDBEngine) -> str | None:
    told: list[str | None] = []
    engine.defragment(told.append)
    engine.wait()
    assert len(told) == 1
    return told[0]


def test_the_file_shrinks_and_nothing_is_lost(tmp_path: Path) -> None:
    engine = LMDBEngine(tmp_path / "kv", Calls())
    fill(engine)
    beside = Beside(tmp_path / "kv")  # an export that began before
    before, kept = engine.size_bytes, content(engine)
    assert len(kept) == 30 and before > 3_000_000
    assert defragment(engine) is None
    data = tmp_path / "kv" / "data.mdb"
    assert engine.size_bytes == data.stat().st_size < before // 20
    assert data.stat().st_mode & 0o777 == 0o600
    assert content(engine) == kept
    put(engine, later=b"1")  # the next commits go to the new file, and so do new readers
    assert content(engine) == {**kept, b"later": b"1"}
    assert Beside(tmp_path / "kv").keys() == sorted(content(engine))
    assert beside.keys() == sorted(kept)
    assert defragment(engine) is None, "again and again"
    engine.close()
    assert not (tmp_path / "kv" / writer.COPY_NAME).exists()
    engine = LMDBEngine(tmp_path / "kv", Calls())
    assert content(engine) == {**kept, b"later": b"1"}
    engine.close()


def test_reads_and_writes_go_on_meanwhile(tmp_path: Path) -> None:
    """What is written while the copy is made waits in the buffer, and is read from there."""
    loop, calls = SimLoop(), Calls()
    engine = LMDBEngine(tmp_path / "kv", calls)
    fill(engine)
    buffer = WriteBuffer(engine, loop, lambda text: None)
    told: list[str | None] = []
    durable: list[int] = []
    buffer.defragment(told.append)
    buffer.defragment(told.append)  # the second waits for the first
    buffer.put(b.LEASE, b"new", b"1")
    buffer.delete(b.LEASE, b"000000")
    buffer.flush(lambda: durable.append(1))
    assert buffer.get(b.LEASE, b"new") == b"1" and buffer.get(b.LEASE, b"000000") is None
    assert buffer.get(b.LEASE, b"000100") == VALUE
    keys = [key for key, _ in buffer.range(b.LEASE)]
    assert keys[0] == b"000100" and keys[-1] == b"new"
    buffer.check()
    assert not durable and not told
    while len(told) < 2 or not durable:
        engine.wait()
        calls.run()
    assert told == [None, None]
    assert content(engine)[b"new"] == b"1" and b"000000" not in content(engine)
    buffer.close()
    engine = LMDBEngine(tmp_path / "kv", Calls())
    assert len(content(engine)) == 30
    engine.close()


Step = Callable[[Path], None]


def opened(path: Path) -> Any:
    return lmdb.open(str(path), map_size=1 << 30, max_dbs=16)


def half_a_copy(path: Path) -> None:
    env = opened(path)
    writer.copy_compactly(env, str(path))
    env.close()
    os.truncate(path / writer.COPY_NAME / writer.DATA_NAME, 10_000)


def whole_copy(path: Path) -> None:
    env = opened(path)
    writer.copy_compactly(env, str(path))
    env.close()


def without_lock_file(path: Path) -> None:
    whole_copy(path)
    (path / writer.LMDB_LOCK_NAME).unlink()


def exchanged(path: Path) -> None:
    without_lock_file(path)
    os.rename(path / writer.COPY_NAME / writer.DATA_NAME, path / writer.DATA_NAME)


@pytest.mark.parametrize("step", [half_a_copy, whole_copy, without_lock_file, exchanged])
def test_a_crash_behind_each_step_leaves_all_of_it(tmp_path: Path, step: Step) -> None:
    path = tmp_path / "kv"
    engine = LMDBEngine(path, Calls())
    fill(engine)
    kept = content(engine)
    engine.close()
    step(path)
    crashed = tmp_path / "crashed"
    shutil.copytree(path, crashed)  # as the disk is then; LMDB keeps nothing of the first in mind
    engine = LMDBEngine(crashed, Calls())
    assert content(engine) == kept
    assert not (crashed / writer.COPY_NAME).exists()
    put(engine, later=b"1")
    assert defragment(engine) is None
    assert content(engine) == {**kept, b"later": b"1"}
    engine.close()


KILLER = """
import os, signal, sys, time
time.sleep(float(sys.argv[2]))
os.kill(int(sys.argv[1]), signal.SIGKILL)
"""


def test_the_storage_process_may_die_at_any_moment(tmp_path: Path) -> None:
    """Whenever it comes, before, amid or behind the exchange, all is there and the rest goes on."""
    engine = LMDBEngine(tmp_path / "kv", Calls())
    fill(engine, 20_000)
    expected = content(engine)
    for round_ in range(8):
        killer = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", KILLER, str(engine.writer_pid), f"{round_ * 0.004}"]
        )
        told = defragment(engine)
        assert told is None or "storage process" in told
        assert killer.wait() == 0
        assert content(engine) == expected
        engine.commit({b.LEASE: {b"round": b"%d" % round_}}, lambda: None)
        engine.wait()
        expected[b"round"] = b"%d" % round_
        assert content(engine) == expected
    engine.close()


def test_without_space_for_a_copy_it_is_said_and_all_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "kv"
    engine = LMDBEngine(path, Calls())
    fill(engine)
    kept = content(engine)
    # The process may write no file above 4 KiB.
    subprocess.run(["prlimit", f"--pid={engine.writer_pid}", "--fsize=4096:"], check=True)
    assert defragment(engine) is not None
    subprocess.run(["prlimit", f"--pid={engine.writer_pid}", "--fsize=unlimited:"], check=True)
    assert content(engine) == kept
    put(engine, later=b"1")
    assert defragment(engine) is None
    engine.close()
