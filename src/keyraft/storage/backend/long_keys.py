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

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from ...mvcc.backend import AUTH_ROLES, AUTH_USERS

PLAIN_BYTES_MAX: Final = 510  # longer keys are stored under a hash
BUCKETS: Final = frozenset((AUTH_USERS, AUTH_ROLES))
"""The buckets whose keys clients choose; keys of all other buckets are short."""

_STORED_BYTES: Final = 511
_PREFIX_BYTES: Final = _STORED_BYTES - 32


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
) -> list[tuple[bytes, bytes]]:
    """The pairs of [start, end) by their keys, from all pairs as they are stored."""
    pairs = (original(bytes(key), value) for key, value in stored)
    return sorted(
        (pair for pair in pairs if pair[0] >= start and (end is None or pair[0] < end)),
        key=lambda pair: pair[0],
    )
