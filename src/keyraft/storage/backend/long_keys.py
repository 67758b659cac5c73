"""Keys that are longer than LMDB takes: names of users and roles, which clients choose.

etcd's database takes keys of 32 KiB, LMDB's of 511 bytes. A longer one is stored under its first
bytes and its hash, with the key itself in front of the value:

    key     the first 479 bytes, then the SHA-256 of the whole key (32 bytes): 511 bytes; no
            other key is so long
    value   length of the key (4 bytes, big endian), the key, the value

Long keys are not stored in the order of the keys. So a reader that wants such a bucket in order
sorts it (`ordered`); it holds few keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from operator import itemgetter
from typing import Final

from ...mvcc.backend import AUTH_ROLES, AUTH_USERS

PLAIN_BYTES_MAX: Final = 510  # longer keys are stored under a hash
BUCKETS: Final = frozenset((AUTH_USERS, AUTH_ROLES))
"""The buckets whose keys clients choose; keys of all other buckets are short."""

_STORED_BYTES: Final = 511
_PREFIX_BYTES: Final = _STORED_BYTES - 32
_KEY: Final[Callable[[tuple[bytes, bytes]], bytes]] = itemgetter(0)


def stored_key(key: bytes) -> bytes:
    """What `key` is stored under."""
    if len(key) <= PLAIN_BYTES_MAX:
        return key
    return key[:_PREFIX_BYTES] + sha256(key).digest()


def stored_value(key: bytes, value: bytes) -> bytes:
    """What is stored for `key`."""
    if len(key) <= PLAIN_BYTES_MAX:
        return value
    return len(key).to_bytes(4, "big") + key + value


def original(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Key and value of what is stored."""
    if len(key) != _STORED_BYTES:
        return key, value
    end = 4 + int.from_bytes(value[:4], "big")
    return bytes(value[4:end]), value[end:]


def ordered(
    stored: Iterable[tuple[bytes, bytes]], start: bytes = b"", end: bytes | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of [start, end) by their keys, as they are asked for. `stored` comes in stored
    order, from `stored_start(start)` on or from further in front.

    Only keys with the same first 479 bytes can be stored in another order than their own, and they
    stand together: each such group is read whole and sorted.
    """
    group: list[tuple[bytes, bytes]] = []
    prefix = b""
    for key, value in stored:
        key = bytes(key)
        if group and not key.startswith(prefix):
            yield from _within(sorted(group, key=_KEY), start, end)
            group = []
        if len(key) >= _PREFIX_BYTES:
            prefix = key[:_PREFIX_BYTES]
            group.append(original(key, value))
        elif end is not None and key >= end:
            return
        elif key >= start:
            yield key, value
    yield from _within(sorted(group, key=_KEY), start, end)


def stored_start(start: bytes) -> bytes:
    """Where in stored order the keys from `start` on begin, at the latest."""
    return start[:_PREFIX_BYTES]


def _within(
    pairs: list[tuple[bytes, bytes]], start: bytes, end: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    for pair in pairs:
        if pair[0] >= start and (end is None or pair[0] < end):
            yield pair
