"""A snapshot export for those who are called back rather than wait."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from keyraft.storage.transfer.environment import TransferError
from keyraft.storage.transfer.exporting import BLOB_BYTES, DIGEST_BYTES, SnapshotExport

_READ_BYTES: Final = 16 * BLOB_BYTES  # what is asked of the process at once


class Sink(Protocol):
    """Where a snapshot goes. Called on the loop."""

    def blob(self, data: memoryview, remaining_bytes: int, last: bool) -> bool:
        """A piece of the database, or at last the digest; `remaining_bytes` of the database are
        still to come. False: no more before `SnapshotFeed.resume`."""

    def failed(self, text: str) -> None:
        """There will be no more, and what there was is worthless."""


class SnapshotFeed:
    """One export and its sink; ends by itself, or is closed."""

    __slots__ = ("_path", "_room", "_sink", "_task")

    def __init__(self, path: str, sink: Sink) -> None:
        """Starts at once, on the running loop. `path`: the `kv` directory."""
        self._path = path
        self._sink = sink
        self._room = asyncio.Event()
        self._room.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def resume(self) -> None:
        """The sink takes blobs again."""
        self._room.set()

    def close(self) -> None:
        """Breaks off; the sink is not called any more."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            export = await SnapshotExport.start(self._path)
            try:
                await self._hand_on(export)
            finally:
                await export.close()
        except (TransferError, OSError) as error:
            self._sink.failed(str(error))

    async def _hand_on(self, export: SnapshotExport) -> None:
        while data := memoryview(await export.read(_READ_BYTES)):
            remaining = export.remaining_bytes - DIGEST_BYTES
            for start in range(0, len(data), BLOB_BYTES):
                await self._room.wait()
                piece = data[start : start + BLOB_BYTES]
                behind = max(0, remaining + len(data) - start - len(piece))
                if not self._sink.blob(piece, behind, not export.remaining_bytes):
                    self._room.clear()
            await asyncio.sleep(0)  # others have their turn, however fast the client reads
