"""Maintenance.Snapshot: the database as a bbolt file and its SHA-256, in pieces of 32 KiB.

What was written before the call is in it: the write buffer is committed first. The pieces come
from a process of its own that reads one transaction, and may go to several who asked at the same
time; here they are only passed on, as fast as the client takes them (etcd `api/v3rpc/maintenance.go`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from keyraft.base.errors import EtcdError, PostponedError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import ServerStream
from keyraft.mvcc.backend import META, META_STORAGE_VERSION
from keyraft.mvcc.wire import field, varint
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.service.guard import Guard

BLOB_BYTES: Final = 32_768  # of one SnapshotResponse, as etcd sends them
_UNKNOWN: Final = 2
_UNAVAILABLE: Final = 14

# Fields of a SnapshotResponse. A gigabyte is passed on here: each copy of it that is not made, and
# each call for a message of its own, leaves the loop to the others.
_REMAINING: Final = b"\x10"
_BLOB: Final = b"\x1a"
_VERSION: Final = b"\x22"


class Feed(Protocol):
    """An export under way."""

    def resume(self) -> None:
        """More pieces may come."""

    def close(self) -> None:
        """No more are wanted."""


OpenSnapshot = Callable[["SnapshotHandler"], Feed]
"""Starts an export whose pieces go to `SnapshotHandler.block`."""


class SnapshotHandler:
    """One Snapshot call."""

    def __init__(
        self, member: Member, guard: Guard, stream: ServerStream, open_snapshot: OpenSnapshot
    ) -> None:
        self._member = member
        self._guard = guard
        self._stream = stream
        self._open_snapshot = open_snapshot
        self._feed: Feed | None = None
        self._version = b""  # as a field of each answer
        self._started = False
        self._opened_s = 0.0
        self._over = False

    # --- the transport's side -----------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """The request; there is only one."""
        if self._started:
            return
        self._started = True
        try:
            parse(rpc_pb2.SnapshotRequest, message)
            self._guard.check_admin(self._stream)
        except PostponedError:
            self._started = False
            raise
        except (EtcdError, RawError) as refusal:
            self._finish(refusal.code, refusal.text)
            return
        self._member.logger.info("sending database snapshot to client")
        self._member.backend.flush(self._begin)

    def on_half_close(self) -> None:
        """Expected."""

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._end()
        if self._feed is not None:
            self._feed.close()

    def on_writable(self) -> None:
        """The client has read."""
        if self._feed is not None:
            self._feed.resume()

    # --- the export's side --------------------------------------------------------------------

    def block(self, data: bytes, remaining_bytes: int, last: bool) -> bool:
        """Passes a block on, cut into messages; whether more may come at once."""
        if self._over:
            return False
        view, version = memoryview(data), self._version
        behind_bytes = remaining_bytes + len(view)
        framed: list[bytes | memoryview] = []
        for start in range(0, len(view), BLOB_BYTES):
            piece = view[start : start + BLOB_BYTES]
            behind_bytes -= len(piece)
            left = _REMAINING + varint(behind_bytes) if behind_bytes else b""
            head = left + _BLOB + varint(len(piece))
            size = len(head) + len(piece) + len(version)
            framed += (b"\0" + size.to_bytes(4, "big") + head, piece, version)
        self._stream.send_framed(b"".join(framed), len(framed) // 3)
        if last:
            self._member.logger.info("successfully sent database snapshot to client")
            self._finish(0, "")
        return self._stream.writable > 0

    def failed(self, text: str) -> None:
        """The export came to nothing."""
        self._member.logger.warn("failed to send database snapshot to client", error=text)
        self._finish(_UNKNOWN, text)

    def unread(self, text: str) -> None:
        """The client has not read, and what waits for it is given up."""
        self._member.logger.warn("failed to send database snapshot to client", error=text)
        if not self._over:
            self._end()
            self._stream.drop(_UNAVAILABLE, text)

    def _begin(self) -> None:
        if self._over:
            return
        stored = self._member.backend.get(META, META_STORAGE_VERSION) or b""
        version = stored.decode("utf-8", "replace").encode()
        self._version = field(_VERSION, version) if version else b""
        self._opened_s = self._member.loop.time()
        self._feed = self._open_snapshot(self)

    def _finish(self, code: int, text: str) -> None:
        if not self._over:
            self._end()
            self._stream.finish(code, text)

    def _end(self) -> None:
        self._over = True
        self._guard.left(self._stream)
        if self._feed is not None:
            member = self._member
            member.counters.snapshot_stream_s.observe(member.loop.time() - self._opened_s)
