"""snapshot save; also status and restore, which etcdutl does now."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import BinaryIO, Final

from keyraft.base.sizes import size
from keyraft.cli.ctl.context import Context, error_text
from keyraft.cli.ctl.elsewhere import become_etcdutl
from keyraft.cli.ctl.exits import BAD_ARGS, INTERRUPTED, Exit
from keyraft.cli.ctl.gofmt import duration

SHA256_BYTES: Final = 32
SECTOR_BYTES: Final = 512  # of which a database's size is a multiple; with a checksum it is not
SYNC_BYTES: Final = 8 << 20  # synced at once


async def save(context: Context) -> None:
    """Writes a member's database to a file; never leaves an incomplete file under its name."""
    from keyraft.client.errors import EtcdError, RawError

    if len(context.arguments) != 1:
        raise Exit(BAD_ARGS, "snapshot save expects one argument <filename>")
    path = context.arguments[0]
    endpoints = context.endpoints
    if len(endpoints) != 1:
        raise Exit(
            INTERRUPTED,
            "snapshot must be requested to one selected node, not multiple "
            f"[{' '.join(endpoints)}]",
        )
    limit_s = context.timeout_s if "command-timeout" in context.values.given else None
    try:
        async with asyncio.timeout(limit_s):
            version = await _save(context, path)
    except TimeoutError:
        raise Exit(INTERRUPTED, "context deadline exceeded") from None
    except (EtcdError, RawError) as error:
        raise Exit(INTERRUPTED, f"could not write snapshot: {error_text(error)}") from None
    print(f"Snapshot saved at {path}")
    if version:
        print(f"Server version {version}")


async def _save(context: Context, path: str) -> str:
    """Streams into PATH.part, syncs, renames; the server's version."""
    from keyraft.storage.files import create_private

    part = path + ".part"
    try:
        file = os.fdopen(create_private(part), "wb")
    except OSError as error:
        reason = f"open {part}: {(error.strerror or '').lower()}"
        raise Exit(INTERRUPTED, f"could not open {part} ({reason})") from None
    try:
        with file:
            context.note("created temporary db file", path=part)
            started = time.monotonic()
            written, version = 0, ""
            async with context.client() as client:
                context.note("fetching snapshot", endpoint=context.endpoints[0])
                progress = ProgressLine()
                async with Syncing(file) as syncing:
                    async for piece in client.maintenance.snapshot():
                        file.write(piece.blob)
                        written += len(piece.blob)
                        version = version or piece.version
                        progress.show(written, written + piece.remaining_bytes)
                        await syncing.reached(written)
                progress.end()
            if written % SECTOR_BYTES != SHA256_BYTES:
                raise Exit(INTERRUPTED, f"sha256 checksum not found [bytes: {written}]")
            file.flush()
            os.fsync(file.fileno())
        took = duration(time.monotonic() - started)
        context.note("fetched snapshot", size=size(written), took=took)
        os.replace(part, path)
        _sync_folder(path)
    except OSError as error:
        raise Exit(INTERRUPTED, f"could not write snapshot: {error}") from None
    finally:
        if os.path.exists(part):
            os.unlink(part)
    context.note("saved", path=path)
    return version


class Syncing:
    """Syncs a growing file piece by piece, while it is written.

    Otherwise the system would write it in one piece, at the end or half a minute later. Then every
    write of a member whose log is on the same disk would have to wait.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._synced = 0
        self._under_way: asyncio.Future[None] | None = None

    async def reached(self, size: int) -> None:
        """Call when so many bytes are written; waits when the disk is slower. Raises OSError."""
        if size - self._synced < SYNC_BYTES:
            return
        self._synced = size
        if self._under_way is not None:
            await self._under_way
        self._file.flush()
        loop = asyncio.get_running_loop()
        self._under_way = loop.run_in_executor(None, os.fdatasync, self._file.fileno())

    async def __aenter__(self) -> Syncing:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Waits for the sync under way, because the file may be closed next."""
        if self._under_way is not None:
            await self._under_way


def _sync_folder(path: str) -> None:
    """Makes the new name durable."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class ProgressLine:
    """The progress, on standard error if that is a terminal; redrawn at most 10 times a second."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._last = 0.0

    def show(self, done: int, total: int) -> None:
        """Draws."""
        now = time.monotonic()
        if self._shown and now - self._last >= 0.1:
            self._last = now
            share = f" ({done * 100 // total}%)" if total > done else ""
            sys.stderr.write(f"\r\x1b[K{size(done)} of {size(total)}{share}")
            sys.stderr.flush()

    def end(self) -> None:
        """Clears the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def status(context: Context) -> None:
    """Shows what a snapshot file holds."""
    _elsewhere(context, "status")


def restore(context: Context) -> None:
    """Makes a data directory from a snapshot file."""
    _elsewhere(context, "restore")


def _elsewhere(context: Context, name: str) -> None:
    words = [*context.arguments, f"--write-out={context['write-out']}"]
    for flag in context.command.flags:
        if flag.name in context.values.given:
            value = context[flag.name]
            shown = str(value).lower() if isinstance(value, bool) else value
            words.append(f"--{flag.name}={shown}")
    become_etcdutl(f"snapshot {name}", *words)
