"""Snapshots for clients, delivered by callbacks.

Each export is a process that reads in one transaction. There are at most EXPORTS_MAX of them. When
all are in use, callers wait, and all who wait share the next export: each block goes to every one
of them, and the next block is read when all have room.

A client that does not read keeps a process running, and keeps pages of the database from being used
again. So its snapshot ends after UNREAD_S without a block. It ends sooner when others wait, because
they share the export or need one: then the client may be late for GRACE_S in all, and for one more
second for each PACE_BYTES_PER_S that it has taken.

DEVIATION: etcd keeps a transaction for each caller, as many and as long as they like.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from keyraft.storage.transfer.environment import TransferError
from keyraft.storage.transfer.layout import DIGEST_BYTES
from keyraft.storage.transfer.pace import Pace

BLOCK_BYTES: Final = 524_288  # read from the process, and handed on, at once
EXPORTS_MAX: Final = 3  # processes at once, 50 MB each
WAITING_MAX: Final = 1_024  # callers that wait for an export
GRACE_S: Final = 10.0
PACE_BYTES_PER_S: Final = 1 << 20
UNREAD_S: Final = 600.0
LOOK_S: Final = 1.0  # between two checks of the clients that have no room

NOT_READ: Final = "etcdserver: snapshot was not read in time"
TOO_MANY: Final = "etcdserver: too many snapshots are waited for"


class ExportSink(Protocol):
    """Receives a snapshot. Called on the loop."""

    def block(self, data: bytes, remaining_bytes: int, last: bool) -> bool:
        """A piece of the database, BLOCK_BYTES at most, or at last the digest; `remaining_bytes`
        of the database are still to come. False: no more before `SnapshotFeed.resume`."""

    def failed(self, text: str) -> None:
        """No more will come, and what came may not be used."""

    def unread(self, text: str) -> None:
        """The same, because the sink had no room for too long."""


class Export(Protocol):
    """What a feed asks of a SnapshotExport."""

    @property
    def remaining_bytes(self) -> int:
        """What `read` has not yet returned, digest included."""

    async def read(self, size: int) -> bytes:
        """The next bytes; empty at the end."""

    async def close(self) -> None:
        """Ends the process."""


class SnapshotFeed:
    """One caller's part in an export; ends by itself, or is closed."""

    __slots__ = ("_feeds", "behind_s", "group", "ready", "sink", "taken_bytes", "unread_s")

    def __init__(self, feeds: SnapshotFeeds, sink: ExportSink) -> None:
        self._feeds = feeds
        self.sink = sink
        self.group: _Group | None = None
        self.ready = True
        self.taken_bytes = 0
        self.behind_s = 0.0  # how long others had to wait for this one
        self.unread_s = 0.0  # since the last block

    def resume(self) -> None:
        """The sink has room again."""
        self.ready = True
        if self.group is not None:
            self.group.room.set()

    def close(self) -> None:
        """Breaks off; the sink is not called any more."""
        self._feeds.leave(self)

    def wait_s(self, seconds: float, others: bool) -> bool:
        """Counts time without room, while `others` wait or not; returns whether it is too much."""
        self.unread_s += seconds
        if others:
            self.behind_s += seconds
        allowed_s = GRACE_S + self.taken_bytes / PACE_BYTES_PER_S
        return self.unread_s >= UNREAD_S or self.behind_s >= allowed_s


class _Group:
    """Those who share an export, and its task."""

    __slots__ = ("members", "room", "task")

    def __init__(self, members: list[SnapshotFeed]) -> None:
        self.members = members
        self.room = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


async def _look(room: asyncio.Event) -> None:
    """Waits until a client has room, but no longer than LOOK_S."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_S):
            await room.wait()


async def _start_export(path: str) -> Export:
    from keyraft.storage.transfer.exporting import SnapshotExport  # a start does without

    return await SnapshotExport.start(path)


class SnapshotFeeds:
    """All snapshots of a member's clients. Owned by the loop; `path` is the `kv` directory."""

    def __init__(
        self,
        path: str,
        start: Callable[[str], Awaitable[Export]] = _start_export,
        now: Callable[[], float] = time.monotonic,
        look: Callable[[asyncio.Event], Awaitable[None]] = _look,
    ) -> None:
        self._path = path
        self._start = start
        self._now = now
        self._look = look
        self._groups: dict[_Group, None] = {}
        self._waiting: list[SnapshotFeed] = []

    def __len__(self) -> int:
        return len(self._groups)

    def open(self, sink: ExportSink) -> SnapshotFeed:
        """Begins a snapshot, of now or of later; `sink.failed` may be called at once."""
        feed = SnapshotFeed(self, sink)
        if len(self._waiting) >= WAITING_MAX:
            sink.failed(TOO_MANY)
        else:
            self._waiting.append(feed)
            self._begin()
        return feed

    def leave(self, feed: SnapshotFeed) -> None:
        """Ends a feed; its export ends with its last feed."""
        group, feed.group = feed.group, None
        if group is None:
            if feed in self._waiting:
                self._waiting.remove(feed)
            return
        group.members.remove(feed)
        group.room.set()
        if not group.members and group.task is not None:
            group.task.cancel()

    def _begin(self) -> None:
        if not self._waiting or len(self._groups) >= EXPORTS_MAX:
            return
        members, self._waiting = self._waiting, []
        group = _Group(members)
        for member in members:
            member.group = group
        self._groups[group] = None
        group.task = asyncio.get_running_loop().create_task(self._run(group))
        # A task that is cancelled before its first step does not run its own `finally`.
        group.task.add_done_callback(lambda _: self._end(group))

    def _end(self, group: _Group) -> None:
        del self._groups[group]
        self._begin()

    async def _run(self, group: _Group) -> None:
        try:
            export = await self._start(self._path)
            try:
                await self._hand_on(group, export)
            finally:
                await export.close()
        except (TransferError, OSError) as error:
            for member in list(group.members):
                self._fail(member, str(error))

    def _fail(self, feed: SnapshotFeed, text: str) -> None:
        self.leave(feed)
        feed.sink.failed(text)

    async def _hand_on(self, group: _Group, export: Export) -> None:
        loop = asyncio.get_running_loop()
        pace = Pace(loop.time(), time.thread_time())
        while data := await export.read(BLOCK_BYTES):
            await self._all_ready(group)
            left = export.remaining_bytes
            for member in list(group.members):
                member.taken_bytes += len(data)
                member.unread_s = 0.0
                if not member.sink.block(data, max(0, left - DIGEST_BYTES), not left):
                    member.ready = False
            # Gives others a turn, even when the client reads fast.
            await asyncio.sleep(pace.pause_s(loop.time(), time.thread_time(), len(data)))
        for member in list(group.members):
            member.group = None
        group.members.clear()

    async def _all_ready(self, group: _Group) -> None:
        """Waits for those who have no room, within bounds."""
        while late := [member for member in group.members if not member.ready]:
            group.room.clear()
            before_s = self._now()
            await self._look(group.room)
            waited_s = self._now() - before_s
            others = len(late) < len(group.members) or bool(self._waiting)
            for member in late:
                if member.group is not group or member.ready:
                    continue  # it left, or has room, meanwhile
                if member.wait_s(waited_s, others):
                    self.leave(member)
                    member.sink.unread(NOT_READ)
