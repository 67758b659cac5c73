"""The store as the linearizability checker knows it, and histories made of client calls.

State: (revision, ((key, value, create, mod, version), ...)) sorted by key. Inputs are tuples:

    ("put", key, value)            → ("rev", revision)
    ("pair", key, key, value)      → ("rev", revision)
    ("delete", key)                → ("rev", revision, deleted)
    ("wipe", key, key, value)      → ("rev", revision): all before the second, which is put
    ("all", key)                   → ("all", revision, ((key, value, mod, version), ...))
    ("get", key)                   → ("kv", revision, value | None, mod, version)
    ("cas", key, mod, value)       → ("rev", revision, succeeded)
    ("expire", (key, ...))         → ("rev", revision)

An output of None is an outcome nobody saw: the operation happened, or it did not.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

Item = tuple[str, str, int, int, int]
State = tuple[int, tuple[Item, ...]]

EMPTY: State = (1, ())


def step(state: Hashable, call: Any, output: Any) -> Iterable[Hashable]:
    """What may follow `state` when `call` was answered with `output`."""
    assert isinstance(state, tuple)
    revision, items = state
    kind, key = call[0], call[1]
    right: tuple[Any, ...]
    if kind == "expire":
        if output != ("rev", revision + 1):
            return ()
        left = tuple(item for item in items if item[0] not in key)
        return ((revision + 1, left),) if len(left) < len(items) else ()
    found = next((item for item in items if item[0] == key), None)
    if kind == "get":
        if output is None:
            return (state,)
        right = (
            ("kv", revision, found[1], found[3], found[4])
            if found is not None
            else ("kv", revision, None, 0, 0)
        )
        return (state,) if output == right else ()
    if kind == "all":
        if output is None:
            return (state,)
        inside = tuple((i[0], i[1], i[3], i[4]) for i in items if i[0] < key)
        return (state,) if output == ("all", revision, inside) else ()
    if kind == "put":
        after = _put(revision, items, key, call[2])
        right = ("rev", revision + 1)
    elif kind == "pair":
        after = _put(revision, items, key, call[3])
        after = _put(revision, after[1], call[2], call[3])
        right = ("rev", revision + 1)
    elif kind == "wipe":
        after = _put(revision, tuple(i for i in items if i[0] >= call[2]), call[2], call[3])
        right = ("rev", revision + 1)
    elif kind == "delete":
        after = (
            (revision + 1, tuple(item for item in items if item[0] != key))
            if found is not None
            else state
        )
        right = ("rev", after[0], int(found is not None))
    elif kind == "cas":
        succeeded = (found[3] if found is not None else 0) == call[2]
        after = _put(revision, items, key, call[3]) if succeeded else state
        right = ("rev", after[0], succeeded)
    else:
        raise ValueError(f"unknown call {kind}")
    if output is None:
        return (after,) if after == state else (state, after)
    return (after,) if output == right else ()


def _put(revision: int, items: tuple[Item, ...], key: str, value: str) -> State:
    new = revision + 1
    out: list[Item] = []
    placed = False
    for item in items:
        if item[0] == key:
            out.append((key, value, item[2], new, item[4] + 1))
            placed = True
        else:
            if not placed and item[0] > key:
                out.append((key, value, new, new, 1))
                placed = True
            out.append(item)
    if not placed:
        out.append((key, value, new, new, 1))
    return (new, tuple(out))
