"""The log over its storage, against one plain list; sizes; what a storage must answer."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.log import NullLogger
from keyraft.raft import (
    NO_LIMIT,
    ConfState,
    Entry,
    EntryUnavailableError,
    FatalError,
    LogCompactedError,
    MemoryStorage,
    Snapshot,
    SnapshotMeta,
    SnapshotOutOfDateError,
    codec,
)
from keyraft.raft.log import RaftLog
from keyraft.raft.sizes import encoded_size, limit, payload_size
from sim.raft.direct import ListLogger, storage_of


def entries_of(first: int, *terms: int) -> list[Entry]:
    return [Entry(term, index, b"%d" % index) for index, term in enumerate(terms, first)]


# --- sizes ----------------------------------------------------------------------------------------

logs = st.lists(
    st.tuples(st.integers(1, 300), st.binary(max_size=200), st.sampled_from([0, 0, 0, 1, 2])),
    max_size=40,
)


def log_of(first: int, raw: list[tuple[int, bytes, int]]) -> list[Entry]:
    terms = sorted(term for term, _, _ in raw)
    return [
        Entry(term, index, data, type_)
        for index, (term, (_, data, type_)) in enumerate(zip(terms, raw), first)
    ]


@given(st.integers(1, 40_000), logs)
def test_sizes_are_those_of_the_encodings(first: int, raw: list[tuple[int, bytes, int]]) -> None:
    entries = log_of(first, raw)
    assert encoded_size(entries) == sum(len(codec.encode_entry(e)) for e in entries)
    assert payload_size(entries) == sum(len(e.data) for e in entries)


@given(st.integers(1, 40_000), st.integers(1, 200), st.integers(1, 60))
def test_sizes_of_entries_that_are_alike(first: int, length: int, count: int) -> None:
    entries = [Entry(3, first + offset, bytes(length)) for offset in range(count)]
    assert encoded_size(entries) == sum(len(codec.encode_entry(e)) for e in entries)


@given(logs, st.integers(0, 3000), st.data())
def test_a_limit_takes_the_longest_piece_that_fits_and_at_least_one(
    raw: list[tuple[int, bytes, int]], size_max: int, data: st.DataObject
) -> None:
    entries = log_of(1, raw)
    start = data.draw(st.integers(0, len(entries)))
    stop = data.draw(st.integers(start, len(entries)))
    kept, size = limit(entries, start, stop, size_max)
    expected: list[Entry] = []
    for entry in entries[start:stop]:
        if expected and encoded_size([*expected, entry]) > size_max:
            break
        expected.append(entry)
    assert kept == expected
    assert size == encoded_size(expected)
    assert limit(entries, start, stop, NO_LIMIT) == (entries[start:stop], 0)


def test_a_limit_over_many_entries() -> None:
    entries = [Entry(1, index, bytes(100)) for index in range(1, 5001)]
    each = codec.entry_size(entries[4000])
    kept, size = limit(entries, 0, 5000, 3000 * each)
    assert size <= 3000 * each < size + each
    assert kept == entries[: len(kept)]


# --- storage --------------------------------------------------------------------------------------


def test_a_storage_knows_terms_from_its_snapshot_to_its_end() -> None:
    storage = storage_of([1])
    storage.apply_snapshot(Snapshot(meta=SnapshotMeta(ConfState([1]), 3, 3)))
    storage.append(entries_of(4, 4, 5))
    with pytest.raises(LogCompactedError):
        storage.term(2)
    assert [storage.term(index) for index in (3, 4, 5)] == [3, 4, 5]
    with pytest.raises(EntryUnavailableError):
        storage.term(6)
    assert (storage.first_index(), storage.last_index()) == (4, 5)


def test_entries_of_a_storage() -> None:
    storage = MemoryStorage()
    storage.append(entries_of(1, 1, 2, 3, 4, 5, 6))
    storage.compact(3)
    for low in (2, 3):
        with pytest.raises(LogCompactedError):
            storage.read(low, 6, NO_LIMIT)
    assert storage.entries(4, 5) == entries_of(4, 4)
    assert storage.entries(4, 7) == entries_of(4, 4, 5, 6)
    assert storage.entries(4, 7, 0) == entries_of(4, 4)
    with pytest.raises(FatalError):
        storage.read(4, 8, NO_LIMIT)


@pytest.mark.parametrize(
    ("new", "terms"),
    [
        (entries_of(1, 1, 2), [3, 4, 5]),  # compacted away
        (entries_of(3, 3, 4, 5), [3, 4, 5]),
        (entries_of(3, 3, 6, 6), [3, 6, 6]),
        (entries_of(3, 3, 4, 5, 5), [3, 4, 5, 5]),
        (entries_of(2, 3, 3, 5), [3, 5]),  # the first is compacted, the rest truncates
        (entries_of(4, 5), [3, 5]),
        (entries_of(6, 5), [3, 4, 5, 5]),
    ],
)
def test_appending_to_a_storage(new: list[Entry], terms: list[int]) -> None:
    storage = MemoryStorage()
    storage.apply_snapshot(Snapshot(meta=SnapshotMeta(ConfState([1]), 3, 3)))
    storage.append(entries_of(4, 4, 5))
    storage.append(new)
    assert [storage.term(i) for i in range(3, storage.last_index() + 1)] == terms


def test_a_gap_in_a_storage_is_refused() -> None:
    storage = storage_of([1], [1, 1])
    with pytest.raises(FatalError, match=r"missing log entry \[last: 2, append at: 4\]"):
        storage.append(entries_of(4, 1))


def test_compacting_a_storage() -> None:
    storage = storage_of([1], [1] * 5)
    storage.compact(3)
    with pytest.raises(LogCompactedError):
        storage.compact(3)
    assert (storage.first_index(), storage.last_index(), storage.term(3)) == (4, 5, 1)
    with pytest.raises(FatalError):
        storage.compact(6)


def test_snapshots_of_a_storage() -> None:
    storage = storage_of([1, 2], [1, 2, 3])
    snapshot = storage.create_snapshot(2, None, b"data")
    assert (snapshot.meta.index, snapshot.meta.term, snapshot.meta.conf_state.voters) == (
        2,
        2,
        [1, 2],
    )
    assert storage.last_index() == 3
    with pytest.raises(SnapshotOutOfDateError):
        storage.create_snapshot(2)
    with pytest.raises(SnapshotOutOfDateError):
        storage.apply_snapshot(Snapshot(meta=SnapshotMeta(ConfState(), 2, 2)))
    storage.apply_snapshot(Snapshot(meta=SnapshotMeta(ConfState([3]), 9, 4)))
    assert (storage.first_index(), storage.last_index(), storage.term(9)) == (10, 9, 4)
    assert storage.initial_state()[1].voters == [3]


# --- the log against a list -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_the_log_is_one_list_whatever_is_durable_of_it(seed: int) -> None:
    chance = random.Random(seed)
    storage = MemoryStorage()
    log = RaftLog(storage, NullLogger())
    twin: list[Entry] = []  # twin[i] has index i + 1
    pending: list[list[Entry]] = []  # writes handed out, in order
    term = 1
    for _ in range(300):
        choice = chance.randrange(0, 8)
        if choice <= 1:  # a leader's append
            term += chance.random() < 0.2
            new = [Entry(term, len(twin) + 1 + i, b"x") for i in range(chance.randrange(1, 4))]
            log.append(new)
            twin += new
        elif choice == 2 and len(twin) > log.committed:  # another leader overwrites the tail
            term += 1
            first = chance.randrange(log.committed + 1, len(twin) + 1)
            new = [Entry(term, first, b"y")]
            previous = twin[first - 2].term if first > 1 else 0
            assert log.maybe_append(previous, first - 1, new, 0) == first
            twin = twin[: first - 1] + new
        elif choice == 3 and log.unstable.has_next_entries():  # a write is handed out
            pending.append(log.unstable.next_entries())
            log.unstable.accept_in_progress()
        elif choice == 4 and pending:  # all writes are done
            for write in pending:
                storage.append(write)
            last = pending[-1][-1]
            pending = []
            if log.term(last.index) == last.term and not log.unstable.has_next_entries():
                log.unstable.stable_to(last.term, last.index)
        elif choice == 5:
            log.commit_to(chance.randrange(0, len(twin) + 1))
        elif choice == 6 and log.has_next_committed(True):
            entries, size = log.next_committed(True)
            assert entries == twin[log.applying : log.committed]
            log.accept_applying(entries, size, True, False)
        elif choice == 7 and log.applying > log.applied:
            log.release_to(log.applying)
            log.applied_to(log.applying)
        assert log.last_index() == len(twin)
        first = log.first_index()
        assert log.slice(first, len(twin) + 1, NO_LIMIT)[0] == twin[first - 1 :]
        index = chance.randrange(0, len(twin) + 3)
        expected = 0 if index == 0 else twin[index - 1].term if index <= len(twin) else None
        assert log.term(index) == expected


@pytest.mark.parametrize(
    ("leader_terms", "follower_last", "follower_term", "expected"),
    [
        ([1, 3, 3, 5, 5, 5, 5, 5], 6, 2, (1, 1)),
        ([1, 1, 1, 1, 1], 5, 0, (0, 0)),
        ([1, 2, 3], 9, 3, (9, 0)),  # not there: may match
        ([2, 2, 2], 2, 2, (2, 2)),
    ],
)
def test_finding_where_logs_may_meet(
    leader_terms: list[int], follower_last: int, follower_term: int, expected: tuple[int, int]
) -> None:
    log = RaftLog(storage_of([1], leader_terms), NullLogger())
    assert log.find_conflict_by_term(follower_last, follower_term) == expected


def test_what_is_compacted_may_match() -> None:
    storage = storage_of([1], [1, 2, 3, 4])
    storage.compact(3)
    log = RaftLog(storage, NullLogger())
    assert log.find_conflict_by_term(4, 1) == (2, 0)


def test_the_limit_covers_what_is_durable_and_what_is_not() -> None:
    storage = storage_of([1], [1, 1])
    log = RaftLog(storage, NullLogger())
    log.append([Entry(1, 3, b"abc"), Entry(1, 4, b"abc")])
    durable = 2 * codec.entry_size(Entry(1, 1))
    unstable = codec.entry_size(Entry(1, 3, b"abc"))
    for room, count in (
        (0, 1),
        (durable, 2),
        (durable + unstable - 1, 2),
        (durable + unstable, 3),
        (999, 4),
    ):
        entries, size = log.slice(1, 5, room)
        assert (len(entries), size) == (count, encoded_size(entries))


def test_appending_over_what_is_committed_stops_the_member() -> None:
    log = RaftLog(storage_of([1], [1, 1]), NullLogger())
    log.commit_to(2)
    with pytest.raises(FatalError, match="is out of range"):
        log.append(entries_of(2, 2))
    with pytest.raises(FatalError, match="conflict with committed entry"):
        log.maybe_append(1, 1, entries_of(2, 2), 2)
    with pytest.raises(FatalError, match="corrupted, truncated, or lost"):
        log.commit_to(3)
    with pytest.raises(FatalError, match="is out of range"):
        log.applied_to(3)


def test_application_pauses_at_its_limit() -> None:
    entries = [Entry(1, index, bytes(50)) for index in range(1, 6)]
    storage = MemoryStorage()
    storage.append(entries)
    each = codec.entry_size(entries[0])
    log = RaftLog(storage, NullLogger(), 2 * each)
    log.commit_to(5)
    first, size = log.next_committed(True)
    assert first == entries[:2]
    log.accept_applying(first, size, True, True)
    assert not log.has_next_committed(True)
    assert log.release_to(2) == 100
    log.applied_to(2)
    assert log.next_committed(True)[0] == entries[2:4]


def test_only_what_is_durable_may_be_applied_without_the_flag() -> None:
    log = RaftLog(storage_of([1], [1]), NullLogger())
    log.append(entries_of(2, 1))
    log.commit_to(2)
    assert [e.index for e in log.next_committed(False)[0]] == [1]
    assert [e.index for e in log.next_committed(True)[0]] == [1, 2]


def test_a_write_that_was_overtaken_does_not_count() -> None:
    logger = ListLogger()
    log = RaftLog(MemoryStorage(), logger)
    log.append(entries_of(1, 1, 1))
    log.unstable.accept_in_progress()
    log.append(entries_of(2, 2))
    log.unstable.stable_to(1, 2)
    assert log.unstable.offset == 1
    log.unstable.stable_to(1, 9)
    assert [line for level, line in logger.lines if level == "info"] == [
        "truncate the unstable entries before index 2",
        "entry at (index,term)=(2,1) mismatched with entry at (2,2) in unstable log; ignoring",
        "entry at index 9 missing from unstable log; ignoring",
    ]
