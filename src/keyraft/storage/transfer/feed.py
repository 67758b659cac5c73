"""A snapshot export for those who are called back rather than wait."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

from keyraft.storage.transfer.environment import TransferError
from keyraft.storage.transfer.exporting import DIGEST_BYTES, SnapshotExport
from keyraft.storage.transfer.pace import Pace

BLOCK_BYTES: Final = 524_288  # what is asked of the process, and handed on, at once


class Sink(Protocol):
    """Where a snapshot goes. Called on the loop."""

    def block(self, data: bytes, remaining_bytes: int, last: bool) -> bool:
        """A piece of the database, BLOCK_BYTES at most, or at last the digest; `remaining_bytes`
        of the database are still to come. False: no more before `SnapshotFeed.resume`."""

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
        """The sink takes blocks again."""
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
        loop = asyncio.get_running_loop()
        pace = Pace(loop.time(), time.thread_time())
        while data := await export.read(BLOCK_BYTES):
            await self._room.wait()
            left = export.remaining_bytes
            if not self._sink.block(data, max(0, left - DIGEST_BYTES), not left):
                self._room.clear()
            # Others have their turn, however fast the client reads.
            await asyncio.sleep(pace.pause_s(loop.time(), time.thread_time(), len(data)))
