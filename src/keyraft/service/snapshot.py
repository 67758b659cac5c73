"""Maintenance.Snapshot: the database file and its SHA-256, in pieces of 32 KiB.

They are sent as fast as the client takes them (etcd `api/v3rpc/maintenance.go`).
"""

from __future__ import annotations

from typing import Final

from keyraft.base.errors import EtcdError, PostponedError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import ServerStream, status
from keyraft.mvcc.wire import field, varint
from keyraft.proto import rpc_pb2
from keyraft.service.guard import Guard
from keyraft.service.ports import Feed, Upkeep

BLOB_BYTES: Final = 32_768  # of one SnapshotResponse, as etcd sends them

# Fields of a SnapshotResponse. A gigabyte may pass here, so copies and calls for single messages
# are avoided: the loop serves others meanwhile.
_REMAINING: Final = b"\x10"
_BLOB: Final = b"\x1a"
_VERSION: Final = b"\x22"


class SnapshotHandler:
    """One Snapshot call: both its stream's handler and the sink of its blocks."""

    def __init__(self, upkeep: Upkeep, guard: Guard, stream: ServerStream) -> None:
        self._upkeep = upkeep
        self._guard = guard
        self._stream = stream
        self._feed: Feed | None = None
        self._version = b""  # the field that each answer carries
        self._started = False
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
            self._feed = self._upkeep.snapshot(self)
        except PostponedError:
            self._started = False
            raise
        except (EtcdError, RawError) as refusal:
            self._finish(refusal.code, refusal.text)

    def on_half_close(self) -> None:
        """Expected."""

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._end()

    def on_writable(self) -> None:
        """The client has read."""
        if self._feed is not None:
            self._feed.resume()

    # --- the feed's side ----------------------------------------------------------------------

    def begin(self, version: bytes) -> None:
        """Stores the version of the database that follows."""
        self._version = field(_VERSION, version) if version else b""

    def block(self, data: bytes, remaining_bytes: int, last: bool) -> bool:
        """Sends a block in several messages; returns whether more may come at once."""
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
            self._finish(0, "")
        return self._stream.writable > 0

    def failed(self, text: str) -> None:
        """The export failed."""
        self._finish(status.UNKNOWN, text)

    def unread(self, text: str) -> None:
        """The snapshot ends because the client did not read for too long."""
        if not self._over:
            self._end()
            self._stream.drop(status.UNAVAILABLE, text)

    def _finish(self, code: int, text: str) -> None:
        if not self._over:
            self._end()
            self._stream.finish(code, text)

    def _end(self) -> None:
        self._over = True
        self._guard.left(self._stream)
        if self._feed is not None:
            self._feed.close()
