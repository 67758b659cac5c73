"""The compares of a transaction: whether what is stored is as the client expects (etcd `txn.go`).

A range is compared key by key, `store.slice_keys` keys in a step. What is the same for all keys is
computed once. A value is taken out of its row only if the row may contain the wanted value: most
compares of values test equality, and most rows do not match.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from operator import eq, gt, lt, ne
from typing import TYPE_CHECKING, Any, Final

from ..proto import rpc_pb2
from . import read
from .index import Item

if TYPE_CHECKING:
    from .store import Store

_EQUAL: Final = rpc_pb2.Compare.EQUAL
_NOT_EQUAL: Final = rpc_pb2.Compare.NOT_EQUAL
_VERSION: Final = rpc_pb2.Compare.VERSION
_CREATE: Final = rpc_pb2.Compare.CREATE
_MOD: Final = rpc_pb2.Compare.MOD
_VALUE: Final = rpc_pb2.Compare.VALUE
_LEASE: Final = rpc_pb2.Compare.LEASE

ROWS_AT_ONCE: Final = 32  # rows read together; with large values a step ends after them

Test = Callable[[Any, Any], bool]
"""(what is stored, what is wanted) -> whether the compare holds."""


def _always(_: object, __: object) -> bool:
    """A result that no release of etcd knows."""
    return True


_TESTS: Final[dict[int, Test]] = {
    _EQUAL: eq,
    _NOT_EQUAL: ne,
    rpc_pb2.Compare.GREATER: gt,
    rpc_pb2.Compare.LESS: lt,
}
_NUMBERS: Final = {_MOD: 1, _CREATE: 3, _VERSION: 4}
"""The position of a target's number in an `Item`."""


def holds(store: Store, compare: rpc_pb2.Compare, at: int) -> bool:
    """Whether the compare of one key holds at revision `at`."""
    read.check_readable(store, at)
    items = store.index.find([compare.key], at)
    if not items:
        return _holds_for_none(compare)
    if compare.target == _VALUE:
        return _values_hold(compare, store.rows(items))
    return _numbers_hold(store, compare, items)


def holds_steps(store: Store, compare: rpc_pb2.Compare, at: int) -> Generator[None, None, bool]:
    """Whether it holds for each key of a range; an empty range counts as a missing key."""
    found = False
    with_values = compare.target == _VALUE
    for items in read.chunks(store, compare.key, read.range_end_of(compare.range_end), at):
        found = found or bool(items)
        if not with_values:
            if not _numbers_hold(store, compare, items):
                return False
        else:
            left = store.slice_keys << read.VALUE_SHIFT  # bytes of values beside the keys
            for first in range(0, len(items), ROWS_AT_ONCE):
                rows = store.rows(items[first : first + ROWS_AT_ONCE])
                if not _values_hold(compare, rows):
                    return False
                left -= sum(map(len, rows))
                if left <= 0:
                    left = store.slice_keys << read.VALUE_SHIFT
                    yield
                    read.check_readable(store, at)
        yield
    return found or _holds_for_none(compare)


def _holds_for_none(compare: rpc_pb2.Compare) -> bool:
    """A missing key has no value, not even an empty one; its numbers are 0."""
    return compare.target != _VALUE and _test_of(compare)(0, _wanted(compare))


def _values_hold(compare: rpc_pb2.Compare, rows: list[bytes]) -> bool:
    result, wanted = compare.result, compare.value
    test = _test_of(compare)
    exact = result in (_EQUAL, _NOT_EQUAL)
    for stored in rows:
        if exact and wanted not in stored:  # so its value is not equal either
            if result == _EQUAL:
                return False
        elif not test(read.parse_stored(stored).value, wanted):
            return False
    return True


def _numbers_hold(store: Store, compare: rpc_pb2.Compare, items: list[Item]) -> bool:
    test, wanted, target = _test_of(compare), _wanted(compare), compare.target
    place = _NUMBERS.get(target)
    if place is not None:
        return all(test(item[place], wanted) for item in items)
    if target == _LEASE:
        return all(test(store.lease_at(item[0], item[1], item[2]), wanted) for item in items)
    return not items or test(0, wanted)


def _test_of(compare: rpc_pb2.Compare) -> Test:
    return _TESTS.get(compare.result, _always)


def _wanted(compare: rpc_pb2.Compare) -> int:
    """The number compared with; 0 when the union holds another target's."""
    target = compare.target
    if target == _VERSION:
        return compare.version
    if target == _CREATE:
        return compare.create_revision
    if target == _MOD:
        return compare.mod_revision
    return compare.lease if target == _LEASE else 0
