"""Compares of a transaction: over each key of a range, in steps that large values make smaller."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest

from keyraft.mvcc import MemoryBackend, Store, compares
from keyraft.proto import rpc_pb2

from .test_steps import Leases, gone_through, put

VALUES = [b"", b"a", b"ab", b"*\x02ab", b"zz*\x01a", b"0\x05", b"*"]
RESULTS: dict[int, Callable[[Any, Any], bool]] = {
    rpc_pb2.Compare.EQUAL: operator.eq,
    rpc_pb2.Compare.NOT_EQUAL: operator.ne,
    rpc_pb2.Compare.GREATER: operator.gt,
    rpc_pb2.Compare.LESS: operator.lt,
}


@pytest.mark.parametrize("lease", [0, 5])
@pytest.mark.parametrize("result", RESULTS)
def test_a_value_is_compared_and_nothing_else_of_its_row(result: int, lease: int) -> None:
    """Keys and leases that hold the wanted bytes, and values that look like fields, do not mislead."""
    store = Store(MemoryBackend(), Leases())
    holds = RESULTS[result]
    for value in VALUES:
        put(store, b"k*\x01a" + value, value, lease=lease)
    for wanted in [*VALUES, b"k", b"\x01a", b"\x06"]:
        for value in VALUES:
            compare = rpc_pb2.Compare(
                key=b"k*\x01a" + value, target=rpc_pb2.Compare.VALUE, value=wanted
            )
            compare.result = result  # type: ignore[assignment]  # an enum's number
            assert compares.holds(store, compare, store.revision) == holds(value, wanted)
        compare.key, compare.range_end = b"k", b"l"
        _, found = gone_through(compares.holds_steps(store, compare, store.revision))
        assert found == all(holds(value, wanted) for value in VALUES)  # type: ignore[operator]


def test_large_values_make_a_step_smaller() -> None:
    store = Store(MemoryBackend(), Leases())
    compare = rpc_pb2.Compare(
        key=b"k", range_end=b"l", target=rpc_pb2.Compare.VALUE, result=3, value=b"other"
    )
    for number in range(256):
        put(store, b"k%03d" % number, b"v")
    assert gone_through(compares.holds_steps(store, compare, store.revision)) == (1, True)
    for number in range(256):
        put(store, b"k%03d" % number, b"v" * 100_000)
    steps, held = gone_through(compares.holds_steps(store, compare, store.revision))
    assert held and steps == 1 + 256 // compares.ROWS_AT_ONCE
