"""Snapshots for clients: each holds everything that was written before the request.

The write buffer is committed first. An exporting process reads the blocks in one transaction;
several clients may share it (`storage.transfer`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from keyraft.mvcc.backend import META, META_STORAGE_VERSION

if TYPE_CHECKING:
    from keyraft.server.member import Member


class BlockSink(Protocol):
    """Receives the blocks of an export."""

    def block(self, data: bytes, remaining_bytes: int, last: bool) -> bool:
        """Takes a block; returns whether more may come at once."""

    def failed(self, text: str) -> None:
        """The export came to nothing."""

    def unread(self, text: str) -> None:
        """The export ends because the client did not read for too long."""


class SnapshotOutput(BlockSink, Protocol):
    """Receives a snapshot: the same as `service.ports.SnapshotSink`."""

    def begin(self, version: bytes) -> None:
        """Called before the blocks, with the storage version."""


class ExportHandle(Protocol):
    """An export under way."""

    def resume(self) -> None:
        """The sink has room again."""

    def close(self) -> None:
        """Ends the export."""


OpenSnapshot = Callable[[BlockSink], ExportHandle]
"""Starts an export."""


class ClientSnapshot:
    """One snapshot for a client, between its export and its sink."""

    def __init__(self, member: Member, sink: SnapshotOutput, open_snapshot: OpenSnapshot) -> None:
        self._member = member
        self._sink = sink
        self._open_snapshot = open_snapshot
        self._export: ExportHandle | None = None
        self._opened_s: float | None = None
        self._over = False
        member.logger.info("sending database snapshot to client")
        member.backend.flush(self._begin)

    def _begin(self) -> None:
        if self._over:
            return
        member = self._member
        stored = member.backend.get(META, META_STORAGE_VERSION) or b""
        self._sink.begin(stored.decode("utf-8", "replace").encode())
        self._opened_s = member.loop.time()
        self._export = self._open_snapshot(self)

    # --- the client's side --------------------------------------------------------------------

    def resume(self) -> None:
        """The client has read."""
        if self._export is not None:
            self._export.resume()

    def close(self) -> None:
        """Ends the snapshot."""
        if not self._over:
            self._end()
            if self._export is not None:
                self._export.close()

    # --- the export's side --------------------------------------------------------------------

    def block(self, data: bytes, remaining_bytes: int, last: bool) -> bool:
        """Passes a block on."""
        if self._over:
            return False
        if last:
            self._end()
            self._member.logger.info("successfully sent database snapshot to client")
        return self._sink.block(data, remaining_bytes, last)

    def failed(self, text: str) -> None:
        """The export came to nothing."""
        self._tell_failure(text)
        self._sink.failed(text)

    def unread(self, text: str) -> None:
        """The client has not read in time."""
        self._tell_failure(text)
        self._sink.unread(text)

    def _tell_failure(self, text: str) -> None:
        self._end()
        self._member.logger.warn("failed to send database snapshot to client", error=text)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            if self._opened_s is not None:
                member = self._member
                member.counters.snapshot_stream_s.observe(member.loop.time() - self._opened_s)
