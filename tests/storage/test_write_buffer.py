"""The write buffer over a dictionary engine: reads see everything, crashes lose whole batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyraft.mvcc import Backend, BackendError
from keyraft.mvcc import backend as b
from keyraft.storage.backend import MemoryEngine, WriteBuffer
from tests.support.examples import examples


class FakeTimer:
    def __init__(self, loop: FakeLoop, call: tuple[Callable[..., Any], tuple[Any, ...]]) -> None:
        self.loop = loop
        self.call = call

    def cancel(self) -> None:
        if self in self.loop.timers:
            self.loop.timers.remove(self)


class FakeLoop:
    """Calls wait until the test runs them."""

    def __init__(self) -> None:
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any:
        return self.call_later(0.0, callback, *args)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> FakeTimer:
        timer = FakeTimer(self, (callback, args))
        self.timers.append(timer)
        return timer

    def run(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer.call[0](*timer.call[1])


keys = st.binary(min_size=1, max_size=2)
buckets = st.sampled_from([b.KEY, b.LEASE])


class BufferMachine(RuleBasedStateMachine):
    """The model is all states there ever were, one per sealed batch."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = FakeLoop()
        self.engine = MemoryEngine()
        self.now: dict[bytes, dict[bytes, bytes]] = {b.KEY: {}, b.LEASE: {}}
        self.sealed: list[dict[bytes, dict[bytes, bytes]]] = [{b.KEY: {}, b.LEASE: {}}]
        self.writes = 0
        self.start()

    def start(self) -> None:
        self.buffer = WriteBuffer(self.engine, self.loop, self.failed, batch_ops=7)
        self.buffer.before_commit(self.seal)
        self.done_wanted = self.done = 0
        self.held = False

    def failed(self, text: str) -> None:
        raise AssertionError(text)

    def seal(self) -> None:
        assert not self.held, "half an entry is sealed"
        self.sealed.append({bucket: dict(pairs) for bucket, pairs in self.now.items()})
        self.buffer.put(b.META, b.META_CONSISTENT_INDEX, b"%d" % (len(self.sealed) - 1))

    @rule(bucket=buckets, key=keys, value=st.binary(max_size=2))
    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        self.buffer.put(bucket, key, value)
        self.now[bucket][key] = value

    @rule(bucket=buckets, key=keys)
    def delete(self, bucket: bytes, key: bytes) -> None:
        self.buffer.delete(bucket, key)
        self.now[bucket].pop(key, None)

    @rule()
    def flush(self) -> None:
        def done() -> None:
            self.done += 1

        self.buffer.flush(done)
        self.done_wanted += 1

    @rule()
    def begin_or_end_an_entry(self) -> None:
        if self.held:
            self.held = False
            self.buffer.release()
        else:
            self.buffer.hold()
            self.held = True

    @rule()
    def time_passes(self) -> None:
        self.loop.run()

    @rule()
    def disk_answers(self) -> None:
        self.engine.settle()

    @rule()
    def crash(self) -> None:
        self.engine = MemoryEngine(self.engine.disk)
        self.loop.timers.clear()
        at = int(self.engine.get(b.META, b.META_CONSISTENT_INDEX) or b"0")
        self.now = {bucket: dict(pairs) for bucket, pairs in self.sealed[at].items()}
        del self.sealed[at + 1 :]
        self.start()

    @rule()
    def stop_and_start(self) -> None:
        self.buffer.close()
        if self.held:  # as after a crash: the log has what is dropped
            self.crash()
            return
        assert self.done == self.done_wanted
        self.engine = MemoryEngine(self.engine.disk)
        self.loop.timers.clear()
        self.start()

    @rule(
        bucket=buckets, start=st.binary(max_size=2), end=st.none() | keys, limit=st.integers(0, 4)
    )
    def read(self, bucket: bytes, start: bytes, end: bytes | None, limit: int) -> None:
        want = sorted(
            (k, v) for k, v in self.now[bucket].items() if k >= start and (end is None or k < end)
        )
        if limit:
            want = want[:limit]
        assert list(self.buffer.range(bucket, start, end, limit)) == want

    @rule(bucket=buckets, key=keys)
    def read_one(self, bucket: bytes, key: bytes) -> None:
        assert self.buffer.get(bucket, key) == self.now[bucket].get(key)

    @rule(bucket=buckets, wanted=st.lists(keys, max_size=3))
    def get_all(self, bucket: bytes, wanted: list[bytes]) -> None:
        found = self.buffer.get_all(bucket, wanted)
        assert found == [self.now[bucket].get(key) for key in wanted]

    @precondition(lambda self: self.buffer.statistics()["pending_ops"] > 0)
    @invariant()
    def something_will_commit(self) -> None:
        assert self.held or self.loop.timers or self.buffer.statistics()["committing"]

    @invariant()
    def sound(self) -> None:
        self.buffer.check()


BufferMachine.TestCase.settings = examples(60, stateful_step_count=40)
TestBuffer = BufferMachine.TestCase


def test_a_failed_engine_stops_everything_once() -> None:
    reports: list[str] = []
    engine = MemoryEngine()
    buffer = WriteBuffer(engine, FakeLoop(), reports.append)
    as_backend: Backend = buffer
    as_backend.put(b.KEY, b"a", b"1")
    as_backend.flush()
    engine.fail("no space left")
    engine.fail("again")
    assert reports == ["no space left"]
    assert as_backend.get(b.KEY, b"a") == b"1"
    with pytest.raises(BackendError, match="no space left"):
        as_backend.put(b.KEY, b"b", b"2")
    buffer.close()


def test_every_bucket_is_there_when_another_database_has_taken_the_place() -> None:
    loop = FakeLoop()
    buffer = WriteBuffer(MemoryEngine(), loop, lambda text: None)
    buffer.put(b.KEY, b"old", b"1")
    buffer.exchange(MemoryEngine)
    for bucket in (*b.BUCKETS, b.OWN):
        assert buffer.get(bucket, b"k") is None
        buffer.put(bucket, b"k", b"v")
        assert list(buffer.range(bucket)) == [(b"k", b"v")]


def test_a_slow_disk_makes_larger_batches_not_more() -> None:
    loop = FakeLoop()
    engine = MemoryEngine()
    buffer = WriteBuffer(engine, loop, lambda text: None, batch_ops=10)
    for number in range(100):
        buffer.put(b.KEY, b"%03d" % number, b"")
        loop.run()
    assert buffer.commits == 0
    assert not buffer.overloaded
    engine.settle()
    engine.settle()
    assert buffer.commits == 2
    assert len(engine.disk[b.KEY]) == 100
