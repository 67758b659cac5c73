"""Index checkpoints: a shortcut that is never believed too much."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.mvcc import MemoryBackend, Store
from keyraft.mvcc import backend as b
from keyraft.mvcc.checkpoint import HEAD_BYTES, decode, encode
from keyraft.storage.backend import (
    Checkpoints,
    LMDBEngine,
    WriteBuffer,
    load_checkpoint,
    save_checkpoint,
)
from tests.support.examples import examples


class Leases:
    def __init__(self) -> None:
        self.attached: list[tuple[int, bytes]] = []

    def exists(self, lease_id: int) -> bool:
        return True

    def attach(self, lease_id: int, key: bytes) -> None:
        self.attached.append((lease_id, key))

    def detach(self, lease_id: int, key: bytes) -> None:
        return None


def fill(store: Store, count: int) -> None:
    store.backend.put(b.LEASE, b"\x00" * 7 + b"\x05", b"")
    for number in range(count):
        store.put_key(b"%03d" % (number % 40), b"%d" % number, 5 if number % 7 == 0 else 0)
        store.end()
        if number % 9 == 0:
            store.delete_keys([b"%03d" % (number % 40), b"absent"])


def memory(store: Store) -> tuple[object, ...]:
    """All that a restart must bring back."""
    entries = {k: e if isinstance(e, int) else bytes(e) for k, e in store.index.entries.items()}
    order = list(store.index.live), list(store.index.dead)
    return entries, order, store.key_leases, store.revision, store.compact_revision


def test_a_store_from_a_checkpoint_is_the_store_from_the_rows() -> None:
    backend = MemoryBackend()
    store = Store(backend, Leases())
    fill(store, 100)
    store.compact(50)
    while store.compactions.step() is not None:
        pass
    data = encode(store)
    for more in (0, 30):
        fill(store, more)
        checkpoint = decode(data, data[:HEAD_BYTES])
        assert checkpoint is not None and checkpoint.revision <= store.revision
        leases, rows_leases = Leases(), Leases()
        short = Store(backend, leases, checkpoint=checkpoint)
        whole = Store(backend, rows_leases)
        assert memory(short) == memory(whole) == memory(store)
        assert sorted(leases.attached) == sorted(rows_leases.attached)
        assert leases.attached
        short.check()


def test_a_checkpoint_older_than_a_compaction_is_compacted_or_left() -> None:
    backend = MemoryBackend()
    store = Store(backend, Leases())
    fill(store, 60)
    data = encode(store)
    at = store.revision
    fill(store, 60)
    for compact_at, usable in ((at - 5, True), (at, True), (at + 3, False)):
        store.compact(compact_at)
        while store.compactions.step() is not None:
            pass
        checkpoint = decode(data, data[:HEAD_BYTES])
        assert checkpoint is not None
        assert checkpoint.covers(compact_at, compact_at) == usable
        assert memory(Store(backend, Leases(), checkpoint=checkpoint)) == memory(store)


@examples(100)
@given(data=st.data())
def test_damage_anywhere_is_noticed(data: st.DataObject) -> None:
    store = Store(MemoryBackend(), Leases())
    fill(store, 20)
    good = encode(store)
    assert decode(good, None) is None
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    assert decode(bytes(bad), good[:HEAD_BYTES]) is None
    assert decode(good[:at], good[:HEAD_BYTES]) is None
    assert decode(good + b"\x00", good[:HEAD_BYTES]) is None


class Loop:
    """Timers that the test runs; `call_soon` collects what threads hand in."""

    def __init__(self) -> None:
        self.timers: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        self.calls.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Loop:
        self.timers.append((callback, args))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def run(self, what: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> None:
        calls = list(what)
        what.clear()
        for callback, args in calls:
            callback(*args)


class Life:
    """A store over a real database, from start to stop or crash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = Loop()
        self.engine = LMDBEngine(path, lambda *call: None, lambda: None)
        self.buffer = WriteBuffer(self.engine, self.loop, self.failed)
        checkpoint = load_checkpoint(path, self.buffer)
        self.loaded = checkpoint.revision if checkpoint else 0
        self.store = Store(self.buffer, Leases(), checkpoint=checkpoint)

    def failed(self, text: str) -> None:
        raise AssertionError(text)

    def commit(self) -> None:
        done: list[int] = []
        self.buffer.flush(lambda: done.append(1))
        while not done:
            self.engine.wait()

    def crash(self) -> None:
        self.engine.close()


@pytest.mark.real
def test_the_process_writes_one_that_a_killed_member_starts_from(tmp_path: Path) -> None:
    life = Life(tmp_path)
    fill(life.store, 200)
    life.commit()
    loop = Loop()
    checkpoints = Checkpoints(tmp_path, life.store, life.buffer, loop, loop.call_soon, 0, 100)
    covered = life.store.revision
    loop.run(loop.timers)
    assert checkpoints._thread is not None
    checkpoints._thread.join()
    fill(life.store, 30)
    loop.run(loop.calls)
    assert checkpoints.written == 1 and checkpoints.revision == covered
    assert len(loop.timers) == 1
    life.commit()
    before = memory(life.store)
    life.crash()
    (tmp_path / "index.123.tmp").write_bytes(b"left over")
    life = Life(tmp_path)
    assert life.loaded == covered
    assert memory(life.store) == before
    assert not list(tmp_path.glob("*.tmp"))
    life.crash()


@pytest.mark.real
def test_a_stop_writes_one_and_an_older_database_does_not_believe_it(tmp_path: Path) -> None:
    path, old = tmp_path / "kv", tmp_path / "old"
    life = Life(path)
    fill(life.store, 50)
    life.buffer.close()
    shutil.copy(path / "data.mdb", old)
    life = Life(path)
    assert life.loaded == 0
    loop = Loop()
    checkpoints = Checkpoints(path, life.store, life.buffer, loop, loop.call_soon, 0, 10)
    fill(life.store, 50)
    checkpoints.stop()
    assert checkpoints.written == 1
    before = memory(life.store)
    life.buffer.close()
    life = Life(path)
    assert life.loaded == life.store.revision and memory(life.store) == before
    life.buffer.close()
    shutil.copy(old, path / "data.mdb")
    life = Life(path)
    assert life.loaded == 0 and life.store.revision < before[3]  # type: ignore[operator]
    life.store.check()
    life.buffer.close()


@pytest.mark.real
def test_a_missing_file_or_a_lost_commit_means_reading_all_rows(tmp_path: Path) -> None:
    life = Life(tmp_path)
    fill(life.store, 50)
    life.commit()
    save_checkpoint(tmp_path, life.store, life.buffer)
    before = memory(life.store)
    life.crash()  # the file is in place, but the database never vouched for it
    life = Life(tmp_path)
    assert life.loaded == 0 and memory(life.store) == before
    save_checkpoint(tmp_path, life.store, life.buffer)
    life.buffer.close()
    (tmp_path / "index").unlink()
    life = Life(tmp_path)
    assert life.loaded == 0 and memory(life.store) == before
    life.buffer.close()
