"""WatchResponses as bytes, put together from parts that are encoded once.

    header (1) · watch_id (2) · created (3) · canceled (4) · compact_revision (5)
    · cancel_reason (6) · fragment (7) · events (11)

The header is the same for all watchers of a revision, the events for all watchers of a range with
the same filters; only the watch id in the middle is a watcher's own. An event is encoded once, as
the finished field 11, and its KeyValue is the bytes that are stored.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from typing import Final

from ..base.varints import VARINTS
from .hooks import Event
from .wire import KV_HEADS, field, varint

NO_WATCH_ID: Final = -1  # of answers that belong to no watcher, or to all of a stream
CREATED: Final = b"\x18\x01"
CANCELED: Final = b"\x20\x01"
FRAGMENT: Final = b"\x38\x01"
_DELETE: Final = b"\x08\x01"
_SHORT_BYTES: Final = len(VARINTS) - 3  # with its head, still among `VARINTS`

REASON_EMPTY_RANGE: Final = "mvcc: watcher range is empty"
REASON_DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
REASON_COMPACTED: Final = "etcdserver: mvcc: required revision has been compacted"
REASON_TOO_MANY: Final = "etcdserver: too many requests"

KeyValueAt = Callable[[bytes, int], bytes | None]
"""(key, revision) -> the KeyValue as a read at that revision sees it."""


class EncodedEvent:
    """One event and its encodings, each made when the first watcher needs it."""

    __slots__ = ("_event", "_plain", "_with_previous", "revision")

    def __init__(self, revision: int, event: Event) -> None:
        self.revision = revision
        self._event = event
        self._plain: bytes | None = None
        self._with_previous: bytes | None = None

    def plain(self) -> bytes:
        """Field 11 without prev_kv."""
        encoded = self._plain
        if encoded is None:
            encoded = self._plain = _encode(self._event, None)
        return encoded

    def with_previous(self, kv_at: KeyValueAt) -> bytes:
        """Field 11 with prev_kv.

        Without it for a creation, or if the previous value is compacted.
        """
        encoded = self._with_previous
        if encoded is None:
            key, kv, delete = self._event
            previous = kv_at(key, self.revision - 1) if delete or not is_creation(kv) else None
            encoded = self.plain() if previous is None else _encode(self._event, previous)
            self._with_previous = encoded
        return encoded


def _encode(event: Event, previous: bytes | None) -> bytes:
    _, kv, delete = event
    size = len(kv)
    if previous is None and not delete and size < _SHORT_BYTES:
        head = KV_HEADS[size]
        return b"\x5a" + VARINTS[len(head) + size] + head + kv
    body = field(b"\x12", kv)
    if delete:
        body = _DELETE + body
    if previous is not None:
        body += field(b"\x1a", previous)
    return field(b"\x5a", body)


def _varint_end(data: bytes, at: int) -> int:
    while data[at] > 127:
        at += 1
    return at + 1


def is_creation(kv: bytes) -> bool:
    """Whether a stored KeyValue is the first of its key: create_revision equals mod_revision.

    Both fields are behind the key, in this order; the store checked the row when it read it.
    """
    at = _varint_end(kv, 1)
    length = shift = 0
    for byte in kv[1:at]:
        length |= (byte & 127) << shift
        shift += 7
    at += length
    if kv[at : at + 1] != b"\x10":
        return False
    middle = _varint_end(kv, at + 1)
    if kv[middle : middle + 1] != b"\x18":
        return False
    return kv[at + 1 : middle] == kv[middle + 1 : _varint_end(kv, middle + 1)]


def watch_id_field(watch_id: int) -> bytes:
    """Field 2; absent for 0, ten bytes for a negative one."""
    return b"\x10" + varint(watch_id) if watch_id else b""


def created(header: bytes, watch_id: int) -> bytes:
    """The answer to a create request."""
    return header + watch_id_field(watch_id) + CREATED


def refused(header: bytes, reason: str) -> bytes:
    """A create request that made no watcher."""
    text = field(b"\x32", reason.encode())
    return header + watch_id_field(NO_WATCH_ID) + CREATED + CANCELED + text


def canceled(header: bytes, watch_id: int, reason: str = "") -> bytes:
    """The answer to a cancel request, or with a reason the end of a watcher that has lost."""
    text = field(b"\x32", reason.encode()) if reason else b""
    return header + watch_id_field(watch_id) + CANCELED + text


def compacted(header: bytes, watch_id: int, compact_revision: int) -> bytes:
    """The end of a watcher whose events are compacted; `header` is that of revision 0."""
    return header + watch_id_field(watch_id) + CANCELED + b"\x28" + varint(compact_revision)


def progress(header: bytes, watch_id: int) -> bytes:
    """Nothing new up to the header's revision."""
    return header + watch_id_field(watch_id)


def fragments(head: bytes, events: list[bytes], bytes_max: int) -> list[bytes]:
    """The messages of one response, each below `bytes_max` unless a single event is larger.

    `head` is header and watch id. All but the last say that more follows.
    """
    if len(events) < 2 or len(head) + sum(map(len, events)) < bytes_max:
        return [b"".join((head, *events))]
    out: list[bytes] = []
    room = bytes_max - len(head) - len(FRAGMENT)
    ends = list(accumulate(map(len, events), initial=0))  # a revision may have many events
    start, count = 0, len(events)
    while True:
        stop = max(bisect_left(ends, ends[start] + room, start + 1) - 1, start + 1)
        if stop >= count:
            out.append(b"".join((head, *events[start:])))
            return out
        out.append(b"".join((head, FRAGMENT, *events[start:stop])))
        start = stop
