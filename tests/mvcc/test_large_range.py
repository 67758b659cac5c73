"""Large ranges: the pieces add up to the answer that would have been made in one go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.errors import CompactedError
from keyraft.mvcc import LargeRange, MemoryBackend, Store, large_range, large_range_steps
from keyraft.proto import rpc_pb2
from tests.support.examples import examples

KEYS = 300


def put(store: Store, key: bytes, value: bytes) -> None:
    store.put_key(key, value)
    store.end()


def filled() -> Store:
    store = Store(MemoryBackend())
    for number in range(KEYS):
        put(store, b"%03d" % (number * 7 % KEYS), b"v" * (number % 90))
    return store


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_range, "WHOLE_BYTES_MAX", 400)
    monkeypatch.setattr(large_range, "STEP_KEYS", 20)
    monkeypatch.setattr(large_range, "PIECE_KEYS", 16)


def answer(store: Store, request: rpc_pb2.RangeRequest, writes: bool) -> bytes:
    """The whole of it; with `writes`, another revision behind each step."""
    work = large_range_steps(store, request)
    number = 0

    def write() -> None:
        nonlocal number
        if writes:
            number += 1
            put(store, b"%03d" % (number * 11 % KEYS), b"later")
            if number % 3 == 0:
                store.delete_keys([b"%03d" % (number * 5 % KEYS)])
                store.end()

    while True:
        try:
            next(work)
        except StopIteration as end:
            found = end.value
            break
        write()
    if isinstance(found, bytes):
        assert store.compactions.pins == 0
        return found
    assert store.compactions.pins == 1
    pieces = []
    while (piece := found.next()) is not None:
        pieces.append(piece)
        write()
    assert sum(map(len, pieces)) == found.size
    assert pieces[-1] == found.tail
    found.close()
    found.close()
    assert store.compactions.pins == 0
    return b"".join(pieces)


@examples(80)
@given(
    start=st.integers(0, KEYS),
    end=st.integers(0, KEYS + 20),
    limit=st.sampled_from([-1, 0, 1, 15, 16, 17, 120, 5000]),
    back=st.sampled_from([0, 0, 3, 40]),
    order=st.integers(0, 2),
    target=st.integers(0, 4),
    least=st.sampled_from([0, 0, 30]),
    writes=st.booleans(),
)
def test_the_pieces_are_the_answer_whatever_is_written_between(
    start: int, end: int, limit: int, back: int, order: int, target: int, least: int, writes: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_range, "WHOLE_BYTES_MAX", 400)
        patch.setattr(large_range, "STEP_KEYS", 20)
        patch.setattr(large_range, "PIECE_KEYS", 16)
        store = filled()
        store.slice_keys = 50
        request = rpc_pb2.RangeRequest(
            key=b"%03d" % start,
            range_end=b"\0" if end > KEYS else b"%03d" % end,
            limit=limit,
            revision=store.revision - back if back else 0,
            sort_order=order,
            sort_target=target,
            min_mod_revision=least,
        )
        wanted = store.range(request.SerializeToString())
        assert answer(store, request, writes) == wanted


@pytest.mark.parametrize("field", ["keys_only", "count_only"])
def test_answers_without_values_are_whole(small: None, field: str) -> None:
    store = filled()
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", **{field: True})
    wanted = store.range(request.SerializeToString())
    assert answer(store, request, False) == wanted


def begun(store: Store) -> LargeRange:
    work = large_range_steps(store, rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
    while True:
        try:
            next(work)
        except StopIteration as end:
            assert isinstance(end.value, LargeRange)
            return end.value


def test_what_is_not_wanted_any_more_keeps_no_rows(small: None) -> None:
    store = filled()
    measured = begun(store)
    measured.next()
    measured.close()
    assert measured.next() is None and store.compactions.pins == 0
    work = large_range_steps(store, rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
    next(work)
    work.close()
    assert store.compactions.pins == 0


def test_another_database_ends_it(small: None) -> None:
    store = filled()
    measured = begun(store)
    measured.next()
    store.readable_from = store.revision + 1
    with pytest.raises(CompactedError):
        while measured.next() is not None:
            pass
