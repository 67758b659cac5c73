"""The events of one answer of the cluster, encoded once for all who get the same of them.

A WatchResponse is put together from parts: the header (1) and the events (11) are the same for all
watchers with the same wishes, the watch id (2) between them is each watcher's own.
"""

from __future__ import annotations

from typing import Final

from keyraft.base.ids import UINT64_MAX
from keyraft.base.varints import plain_varint
from keyraft.proto import mvcc_pb2, rpc_pb2

NO_PUT: Final = 1
NO_DELETE: Final = 2
PREVIOUS: Final = 4

FRAGMENT_BYTES: Final = 1_572_864  # of one message to who wants fragments; etcd's largest request
PIECE_BYTES: Final = 16_000  # with a head, one frame
LARGE_BYTES: Final = 16_000  # from here on the bytes are shared instead of copied
INVALID_ID: Final = -1
_FRAGMENT: Final = b"\x38\x01"


def varint(number: int) -> bytes:
    """Unsigned, or as protobuf writes a negative int64."""
    return plain_varint(number & UINT64_MAX)


def header_field(header: rpc_pb2.ResponseHeader) -> bytes:
    """Field 1 of a response."""
    encoded = header.SerializeToString()
    return b"\x0a" + varint(len(encoded)) + encoded


def id_field(watch_id: int) -> bytes:
    """Field 2 of a WatchResponse; zero is left out."""
    return b"\x10" + varint(watch_id) if watch_id else b""


class PassedEvent:
    """One event as field 11, with and without what was there before."""

    __slots__ = ("is_delete", "plain", "previous", "revision")

    def __init__(self, event: mvcc_pb2.Event) -> None:
        self.revision = event.kv.mod_revision
        self.is_delete = event.type == mvcc_pb2.Event.DELETE
        encoded = event.SerializeToString()
        self.plain = self.previous = b"\x5a" + varint(len(encoded)) + encoded
        if event.HasField("prev_kv"):
            event.ClearField("prev_kv")
            encoded = event.SerializeToString()
            self.plain = b"\x5a" + varint(len(encoded)) + encoded


class ChosenEvents:
    """The events for one kind of watcher."""

    __slots__ = ("events", "payload", "pieces")

    def __init__(self, events: list[bytes]) -> None:
        self.events = events
        self.payload = b"".join(events)
        self.pieces: list[bytes] | None = None
        if len(self.payload) >= LARGE_BYTES:
            payload = self.payload
            self.pieces = [
                payload[at : at + PIECE_BYTES] for at in range(0, len(payload), PIECE_BYTES)
            ]


class PassedEvents:
    """All events of one answer, in order; `after` is the revision that is needed next."""

    __slots__ = ("_bodies", "after", "events", "first", "header")

    def __init__(self, header: bytes, events: list[PassedEvent]) -> None:
        """`header`: field 1; `events`: at least one."""
        self.header = header
        self.events = events
        self.first = events[0].revision
        self.after = events[-1].revision + 1
        self._bodies: dict[tuple[int, int], ChosenEvents | None] = {}

    def body(self, variant: int, revision: int) -> ChosenEvents | None:
        """The events from `revision` on, for watchers of a variant; None: there are none."""
        key = (variant, max(revision, self.first))
        if key in self._bodies:
            return self._bodies[key]
        previous = bool(variant & PREVIOUS)
        chosen = [
            event.previous if previous else event.plain
            for event in self.events
            if event.revision >= revision
            and not variant & (NO_DELETE if event.is_delete else NO_PUT)
        ]
        body = self._bodies[key] = ChosenEvents(chosen) if chosen else None
        return body


def fragments(head: bytes, events: list[bytes], bytes_max: int = FRAGMENT_BYTES) -> list[bytes]:
    """Messages of up to `bytes_max`, or of one event; all but the last are marked as fragments."""
    groups: list[list[bytes]] = [[]]
    size = len(head)
    for event in events:
        if groups[-1] and size + len(event) >= bytes_max:
            groups.append([])
            size = len(head)
        groups[-1].append(event)
        size += len(event)
    last = groups.pop()
    messages = [b"".join((head, _FRAGMENT, *group)) for group in groups]
    return [*messages, b"".join((head, *last))]
