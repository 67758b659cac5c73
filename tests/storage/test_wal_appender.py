"""Who writes a batch, and in which order the callbacks come."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyraft.raft.types import ConfState, Entry, HardState
from keyraft.storage.files import OsFiles
from keyraft.storage.wal import (
    WAL,
    Appender,
    SnapshotMark,
    StorageThread,
    SyncPolicy,
    WALBatch,
    WALError,
    WALWriteError,
    encode_metadata,
    read_wal,
)
from keyraft.storage.wal.appender import FAST_SYNCS_MIN, INLINE_BYTES_MAX


class World:
    """A clock, a thread and a loop that move only when told."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.sync_s = 0.0001
        self.jobs: list[Callable[[], None]] = []
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.log: list[object] = []
        self.writes = 0
        self.synced: list[tuple[float, int]] = []
        self.wal = WAL.create(OsFiles(), str(path / "wal"), encode_metadata(1, 1))
        real_write = self.wal.write
        world = self

        class Timed:
            encode = self.wal.encode
            encode_snapshot = self.wal.encode_snapshot
            release_to = self.wal.release_to

            @staticmethod
            def write(batches: list[WALBatch]) -> None:
                world.now += world.sync_s
                world.writes += 1
                real_write(batches)

        self.appender = Appender(
            Timed(),  # type: ignore[arg-type]  # a WAL whose writes take the world's time
            clock=lambda: self.now,
            submit=lambda job: self.jobs.append(job),
            call_loop=lambda function, *args: self.calls.append((function, args)),
            call_later=lambda _, function, *args: self.calls.append((function, args)),
            on_sync=lambda seconds, size: self.synced.append((seconds, size)),
        )

    def done(self, name: object) -> Callable[[WALError | None], None]:
        return lambda error: self.log.append(name if error is None else (name, str(error)))

    def put(self, index: int, size: int = 10, alone: bool = False) -> None:
        self.appender.append([Entry(1, index, bytes(size))], None, True, self.done(index), alone)

    def turn(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()
        calls, self.calls = self.calls, []
        for function, args in calls:
            function(*args)

    def warm(self) -> None:
        for index in range(1, FAST_SYNCS_MIN + 1):
            self.put(index)
            self.turn()
        self.log.clear()


def test_policy_wants_a_fast_disk_a_small_batch_and_no_company() -> None:
    policy = SyncPolicy(fast_s=0.0005)
    assert not policy.inline(100, True)
    for _ in range(FAST_SYNCS_MIN):
        policy.observe(0.0001)
    assert policy.inline(100, True)
    assert not policy.inline(100, False)
    assert not policy.inline(INLINE_BYTES_MAX + 1, True)


def test_one_slow_sync_sends_the_next_ones_to_the_thread() -> None:
    policy = SyncPolicy(fast_s=0.0005)
    for _ in range(100):
        policy.observe(0.0001)
    policy.observe(0.02)
    fast = 0
    while not policy.inline(100, True):
        policy.observe(0.0001)
        fast += 1
    assert fast >= FAST_SYNCS_MIN


def test_a_few_late_syncs_among_fast_ones_change_nothing() -> None:
    """As they are beside busy processes: one in twenty waits for a tick of the scheduler."""
    policy = SyncPolicy(fast_s=0.002)
    for number in range(2_000):
        policy.observe((0.004 if number % 40 else 0.008) if number % 20 == 19 else 0.0002)
        assert policy.inline(100, True) == (number >= FAST_SYNCS_MIN - 1), number


def test_a_disk_that_turns_slow_is_noticed_within_ten_syncs() -> None:
    policy = SyncPolicy(fast_s=0.002)
    for _ in range(1_000):
        policy.observe(0.00005)
    held_up = 0
    while policy.inline(100, True):
        policy.observe(0.01)
        held_up += 1
    assert held_up <= 10
    for _ in range(100):
        policy.observe(0.01)
        assert not policy.inline(100, True)


def test_a_disk_that_is_always_slow_is_never_trusted() -> None:
    policy = SyncPolicy(fast_s=0.0005)
    for _ in range(1000):
        policy.observe(0.0008)
        assert not policy.inline(1, True)


def test_first_writes_go_to_the_thread_later_ones_are_inline(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(1, alone=True)
    assert world.jobs and not world.log
    world.turn()
    assert world.log == [1]
    world.warm()
    following = FAST_SYNCS_MIN + 1
    world.put(following, alone=True)
    assert world.log == [following] and not world.jobs
    world.put(following + 1, alone=False)
    assert world.log == [following] and world.jobs


def test_batches_gather_behind_a_write_and_callbacks_keep_their_order(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(1)
    for index in range(2, 7):
        world.put(index, alone=True)
    world.appender.append([], HardState(1, 1, 1), False, world.done("commit"))
    assert not world.appender.idle
    assert world.log == []
    world.turn()
    assert world.log == [1]
    world.turn()
    assert world.log == [1, 2, 3, 4, 5, 6, "commit"]
    assert world.writes == 2
    assert world.appender.idle
    world.wal.close()
    assert len(read_wal(OsFiles(), str(tmp_path / "wal")).entries) == 6


def test_nothing_to_write_is_done_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.appender.append([], HardState(1, 1, 1), False, world.done("commit"))
    assert world.log == ["commit"] and not world.jobs


def test_a_lone_commit_behind_a_write_waits_for_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(1)
    world.appender.append([], HardState(1, 1, 1), False, world.done("commit"))
    assert world.log == []
    world.turn()
    assert world.log == [1, "commit"]
    assert world.appender.idle


def test_a_callback_may_hand_in_more(tmp_path: Path) -> None:
    world = World(tmp_path)

    def more(error: WALError | None) -> None:
        world.log.append("first")
        world.put(2)

    world.appender.append([Entry(1, 1, b"a")], None, True, more)
    world.turn()
    assert world.log == ["first"]
    world.turn()
    assert world.log == ["first", 2]


def test_snapshot_marks_take_their_turn(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(1)
    world.appender.save_snapshot(SnapshotMark(1, 1, ConfState([1])), world.done("mark"))
    world.turn()
    world.turn()
    assert world.log == [1, "mark"]
    assert [size > 0 for _, size in world.synced] == [True, True]


def test_a_failed_write_fails_everyone_and_nobody_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    world.put(1)
    monkeypatch.setattr(os, "pwritev", broken)
    world.put(2)
    world.appender.append([], HardState(1, 1, 1), False, world.done("commit"))
    world.turn()
    world.turn()
    world.put(3, alone=True)
    assert [entry[0] for entry in world.log if isinstance(entry, tuple)] == [1, 2, "commit", 3]
    assert all("Input/output error" in str(entry) for entry in world.log)


def test_without_room_everything_waits_in_order_and_nobody_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    real = os.pwritev

    def torn(fd: int, buffers: tuple[bytes], offset: int, flags: int = 0) -> int:
        if buffers[0][:1] and len(buffers[0]) > 8:
            return real(fd, (buffers[0][:8],), offset, 0)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(*_: object) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    world.put(1)
    world.turn()
    for refusal in (torn, full):
        monkeypatch.setattr(os, "pwritev", refusal)
        world.put(len(world.log) + 1)
        world.appender.append([], HardState(1, 1, 1), False, world.done("commit"))
        for _ in range(6):
            world.turn()
        assert world.appender.starved
        assert not world.appender.idle
    world.put(3)
    assert world.log == [1]
    monkeypatch.setattr(os, "pwritev", real)
    for _ in range(6):
        world.turn()
    assert world.log == [1, 2, "commit", 2, "commit", 3]
    assert not world.appender.starved
    world.wal.close()
    replay = read_wal(OsFiles(), str(tmp_path / "wal"))
    assert [entry.index for entry in replay.entries] == [1, 2, 3]


def test_what_the_loop_itself_had_no_room_for_waits_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    for index in range(1, FAST_SYNCS_MIN + 4):
        world.put(index)
        world.turn()
    done = list(world.log)
    real = os.pwritev

    def full(*_: object) -> int:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "pwritev", full)
    index = len(done) + 1
    world.put(index, alone=True)
    assert world.appender.starved
    world.put(index + 1)
    assert world.log == done
    monkeypatch.setattr(os, "pwritev", real)
    for _ in range(6):
        world.turn()
    assert world.log == [*done, index, index + 1]


def test_the_thread_runs_jobs_in_order_and_stops_behind_them() -> None:
    thread = StorageThread()
    ran: list[int] = []
    for number in range(100):
        thread.submit(lambda number=number: ran.append(number))  # type: ignore[misc]
    thread.stop()
    assert ran == list(range(100))


def test_write_error_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = WAL.create(OsFiles(), str(tmp_path / "wal"), encode_metadata(1, 1))

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwritev", broken)
    with pytest.raises(WALWriteError, match=r"cannot write to '.*\.wal'.*Input/output error"):
        wal.append([Entry(1, 1, b"a")], None)
