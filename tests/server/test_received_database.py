"""A leader's database is read beside the member's work, and taken over at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import pytest

from keyraft.base.errors import CompactedError, EtcdError, StoppedError
from keyraft.lease import Lessor
from keyraft.mvcc import BackendError, KVHash, MemoryBackend, Store, finished
from keyraft.mvcc.backend import KEY
from keyraft.mvcc.memory import Disk
from keyraft.mvcc.restore import RESTORED_ROWS
from keyraft.proto import rpc_pb2
from keyraft.raft import Snapshot, SnapshotMeta
from keyraft.server import hash_buckets, hash_keys
from sim.witnessed import SlowTurns

from .harness import OneMember
from .test_slices import count, slow, turn

ROWS = 3_000
LEASE = 7
INDEX = 50_000  # of the snapshot


def put(store: Store, key: bytes, value: bytes, lease: int = 0) -> None:
    store.put(rpc_pb2.PutRequest(key=key, value=value, lease=lease).SerializeToString())


def leaders() -> Disk:
    """The database of a leader that has gone on: more keys, some of them on a lease, some dead."""
    backend = MemoryBackend()
    lessor = Lessor(backend, 1)
    lessor.grant(LEASE, 600, 0.0)
    store = Store(backend, lessor)
    for number in range(100):
        put(store, b"k%03d" % number, b"v")
    for number in range(ROWS):
        put(store, b"n%05d" % (number % 1_000), b"new", LEASE if number % 3 else 0)
    store.delete_keys([b"n%05d" % number for number in range(0, 1_000, 2)])
    backend.flush()
    return backend.disk


@pytest.fixture(scope="module")
def database() -> Disk:
    return leaders()


class OnlyRead(MemoryBackend):
    """Counts the keys' rows that are read."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.rows = 0

    def range(
        self, bucket: bytes, start: bytes = b"", end: bytes | None = None, limit: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        for pair in super().range(bucket, start, end, limit):
            self.rows += bucket == KEY
            yield pair


@pytest.fixture
def one() -> OneMember:
    one = OneMember()
    one.run(1.0)
    for number in range(100):
        one.put(b"k%03d" % number, b"v")
    one.run(1.0)
    one.backend.flush()
    slow(one)
    one.unsound = True  # the database that it is given says of no index
    return one


def read(one: OneMember, database: MemoryBackend) -> list[Exception | None]:
    outcome: list[Exception | None] = []
    one.member.received.read(INDEX, database, outcome.append)
    return outcome


def install(one: OneMember, disk: Disk) -> None:
    """As the Raft loop and the log do it, with what was read."""
    member = one.member
    meta = SnapshotMeta(member.membership.state, INDEX, member.leadership.term)
    member.before_snapshot(lambda: None)
    # A database that another member wrote: but for the rows of keys it is this one's.
    for bucket, rows in disk.items():
        if rows or bucket == KEY:
            one.backend.disk[bucket] = dict(rows)
    one.backend._batch.pop(KEY, None)  # what was written to the former one is forgotten
    member.snapshot_installed(Snapshot(b"", meta))


def turns(one: OneMember, over: Callable[[], bool], each: Callable[[], None]) -> int:
    count = 0
    while not over():
        one.loop.run_until(one.loop.time() + 10.0, turn())
        each()
        count += 1
        assert count < 100_000
    return count


def test_a_database_is_read_in_steps_while_the_member_works(one: OneMember, database: Disk) -> None:
    member = one.member
    backend = OnlyRead(database)
    outcome = read(one, backend)
    most = before = 0
    puts = [one.put(b"k000", b"still here")]

    def look() -> None:
        nonlocal most, before
        most = max(most, backend.rows - before)
        before = backend.rows
        assert count(one) == 100  # what there was before
        if puts[-1].results:
            assert isinstance(puts[-1].results[0], bytes)
            puts.append(one.put(b"k000", b"still here"))

    ticked_s = member.ticked_s
    member.slices._loop = SlowTurns(one.loop, 0.005)  # type: ignore[arg-type]  # what it uses of it
    assert turns(one, lambda: bool(outcome), look) > ROWS // RESTORED_ROWS
    assert outcome == [None] and most == RESTORED_ROWS and len(puts) > 2
    assert member.ticked_s > ticked_s
    one.run(1.0)
    own = one.backend
    rows = OnlyRead(own.disk)
    own.range = rows.range  # type: ignore[method-assign]
    install(one, database)
    assert not rows.rows, "read once more"
    twin = Store(MemoryBackend(database))
    assert member.store.revision == twin.revision and one.get(b"n00001") == b"new"
    assert member.store.index.entries == twin.index.entries
    assert len(member.lessor.keys(LEASE)) == len(member.store.key_leases) > 100
    del own.range  # type: ignore[method-assign]
    one.run(1.0)
    assert not len(member.slices)
    member.store.check()
    member.lessor.check()


def test_what_there_was_before_is_freed_in_steps(one: OneMember, database: Disk) -> None:
    member = one.member
    for number in range(12_000):
        member.store.index.put(b"x%05d" % number, member.store.revision, 0)
    entries = member.store.index.entries
    read(one, MemoryBackend(database))
    one.run(1.0)
    install(one, database)
    assert entries, "all at once"
    assert turns(one, lambda: not entries, lambda: None) > 5


@pytest.mark.parametrize("ended", ["another comes", "the member stops", "damaged"])
def test_a_reading_that_ends_early_leaves_nothing(
    one: OneMember, database: Disk, ended: str
) -> None:
    member = one.member
    disk = {bucket: dict(rows) for bucket, rows in database.items()}
    if ended == "damaged":
        disk[KEY][sorted(disk[KEY])[ROWS // 2]] = b"\xff\xff"
    outcome = read(one, MemoryBackend(disk))
    turns(one, lambda: len(member.slices) > 0, lambda: None)
    if ended == "another comes":
        member.received.forget()
    elif ended == "the member stops":
        member.stop(lambda: None)
    one.run(1.0)
    assert not len(member.slices)
    if ended == "another comes":
        assert not outcome
    else:
        wanted = {"damaged": BackendError, "the member stops": StoppedError}[ended]
        assert isinstance(outcome[0], wanted)


def reading(store: Store, **fields: object) -> Generator[None, None, bytes]:
    request = rpc_pb2.RangeRequest(key=b"k", range_end=b"l", **fields)  # type: ignore[arg-type]
    work = store.range_steps(request)
    for _ in range(3):
        next(work)
    return work


@pytest.mark.parametrize("fields", [{}, {"sort_target": 4, "sort_order": 2}, {"count_only": True}])
@pytest.mark.parametrize("compacted", [False, True])
def test_a_read_under_way_goes_on_in_the_new_database_or_is_refused(
    one: OneMember, database: Disk, fields: dict[str, object], compacted: bool
) -> None:
    """The old index goes away in steps, so nobody may read on in it."""
    store = one.member.store
    fields = {**fields, "revision": store.revision - 1}
    whole = store.range_steps(rpc_pb2.RangeRequest(key=b"k", range_end=b"l", **fields))  # type: ignore[arg-type]
    wanted = finished(whole)
    work = reading(store, **fields)
    disk = database
    if compacted:
        backend = MemoryBackend({bucket: dict(rows) for bucket, rows in database.items()})
        far = Store(backend, Lessor(backend, 1))
        far.compact(far.revision - 1)
        while far.compactions.step() is not None:
            pass
        backend.flush()
        disk = backend.disk
    read(one, MemoryBackend(disk))
    one.run(1.0)
    install(one, disk)
    one.run(1.0)
    if compacted:
        with pytest.raises(CompactedError):
            finished(work)
    else:
        assert finished(work) == wanted
    assert store.statistics()["pins"] == 0


def test_hashes_under_way_are_of_one_database(one: OneMember, database: Disk) -> None:
    hashes: list[KVHash | EtcdError] = []
    whole: list[int] = []
    member = one.member
    rows = {b"z%05d" % n: b"v" for n in range(2_000)}
    for key, value in rows.items():
        one.put(key, value)
    one.run(5.0)
    hash_keys(member, 0, hashes.append, hashes.append)
    hash_buckets(member, whole.append, lambda: False)
    assert not hashes and not whole
    install(one, database)
    one.run(1.0)
    assert isinstance(hashes[0], CompactedError)
    hash_buckets(member, whole.append, lambda: False)
    one.run(1.0)
    assert whole[0] == whole[1]
    assert member.store.statistics()["pins"] == 0
