"""Snapshots of many clients: how many exports there are, who shares one, and who is let go.

Time passes only where the test lets it: while a feed looks at those who have no room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from keyraft.storage.transfer import SnapshotFeed, SnapshotFeeds, TransferError
from keyraft.storage.transfer.feed import (
    BLOCK_BYTES,
    EXPORTS_MAX,
    GRACE_S,
    NOT_READ,
    TOO_MANY,
    UNREAD_S,
    WAITING_MAX,
)
from keyraft.storage.transfer.layout import DIGEST_BYTES

BLOCKS = 40


class FakeExport:
    """A database of BLOCKS blocks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.left = BLOCKS * BLOCK_BYTES + DIGEST_BYTES
        world.exports += 1
        world.most = max(world.most, world.exports)

    @property
    def remaining_bytes(self) -> int:
        return self.left

    async def read(self, size: int) -> bytes:
        size = min(size, self.left if self.left <= DIGEST_BYTES else self.left - DIGEST_BYTES)
        self.left -= size
        return bytes(size)

    async def close(self) -> None:
        self.world.exports -= 1


class World:
    """Feeds over fake exports and a clock that moves while somebody is waited for."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.exports = self.most = self.started = 0
        self.fails = False
        self.on_look: Callable[[], None] = lambda: None
        self.feeds = SnapshotFeeds("", self._start, lambda: self.now_s, self._look)

    async def _start(self, path: str) -> FakeExport:
        self.started += 1
        await asyncio.sleep(0)
        if self.fails:
            raise TransferError("the disk is gone")
        return FakeExport(self)

    async def _look(self, room: asyncio.Event) -> None:
        self.now_s += 0.5
        self.on_look()
        await asyncio.sleep(0)


class Reader:
    """A client that takes so many blocks and then no more."""

    def __init__(self, world: World, most: int = 1 << 30) -> None:
        self.blocks = 0
        self.most = most
        self.ended = ""
        self.feed: SnapshotFeed = world.feeds.open(self)

    def block(self, data: bytes, remaining_bytes: int, last: bool) -> bool:
        assert not self.ended
        self.blocks += 1
        if last:
            self.ended = "whole"
        return self.blocks < self.most

    def failed(self, text: str) -> None:
        self.ended = text

    unread = failed


async def until(condition: Callable[[], bool], turns: int = 100_000) -> None:
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come")


def run(body: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        await body(world)
        await until(lambda: not len(world.feeds))
        assert world.exports == 0 and world.most <= EXPORTS_MAX

    asyncio.run(main())


def test_one_reader_has_an_export_of_its_own() -> None:
    async def body(world: World) -> None:
        reader = Reader(world)
        await until(lambda: bool(reader.ended))
        assert (reader.ended, reader.blocks) == ("whole", BLOCKS + 1)

    run(body)


def test_sixty_readers_need_no_more_than_so_many_exports() -> None:
    async def body(world: World) -> None:
        readers = [Reader(world) for _ in range(60)]
        await until(lambda: all(reader.ended for reader in readers))
        assert all((r.ended, r.blocks) == ("whole", BLOCKS + 1) for r in readers)
        assert world.started == EXPORTS_MAX + 1  # the last one for all who waited

    run(body)


def test_sixty_who_do_not_read_delay_one_who_does_only_so_long() -> None:
    async def body(world: World) -> None:
        idle = [Reader(world, most=1) for _ in range(60)]
        await until(lambda: world.now_s > 1)
        reader = Reader(world)
        await until(lambda: bool(reader.ended))
        assert reader.ended == "whole"
        assert world.now_s < 2 * EXPORTS_MAX * (GRACE_S + 2)  # each export's looks move the clock
        for one in idle:
            one.feed.close()

    run(body)


def test_one_who_reads_slowly_may_go_on_while_nobody_waits() -> None:
    async def body(world: World) -> None:
        reader = Reader(world, most=0)
        looks = 0

        def look() -> None:
            nonlocal looks
            looks += 1
            if looks % 100 == 0:
                reader.feed.resume()

        world.on_look = look
        await until(lambda: bool(reader.ended))
        assert reader.ended == "whole" and world.now_s > GRACE_S * BLOCKS

    run(body)


def test_one_who_never_reads_ends_after_a_while_with_nobody_waiting() -> None:
    async def body(world: World) -> None:
        reader = Reader(world, most=1)
        await until(lambda: bool(reader.ended))
        assert reader.ended == NOT_READ and UNREAD_S <= world.now_s < UNREAD_S + 2

    run(body)


def test_a_steady_reader_is_not_let_go_for_those_who_wait() -> None:
    """A block a look is twice what is asked of it."""

    async def body(world: World) -> None:
        steady = [Reader(world, most=0) for _ in range(EXPORTS_MAX)]

        def resume_all() -> None:
            for one in steady:
                one.feed.resume()

        world.on_look = resume_all
        waiting = Reader(world)
        await until(lambda: bool(waiting.ended))
        assert {one.ended for one in [*steady, waiting]} == {"whole"}

    run(body)


def test_an_export_ends_with_its_last_reader() -> None:
    async def body(world: World) -> None:
        readers = [Reader(world, most=1) for _ in range(EXPORTS_MAX + 2)]
        await until(lambda: world.exports == EXPORTS_MAX)
        for reader in readers[:EXPORTS_MAX]:
            reader.feed.close()
        await until(lambda: world.started == EXPORTS_MAX + 1)
        shared = readers[EXPORTS_MAX:]
        await until(lambda: all(reader.blocks for reader in shared))
        for reader in shared:
            reader.feed.close()
            reader.feed.close()  # twice does no harm

    run(body)


def test_a_failed_export_fails_all_who_share_it_and_the_next_is_tried() -> None:
    async def body(world: World) -> None:
        world.fails = True
        readers = [Reader(world) for _ in range(EXPORTS_MAX + 5)]
        await until(lambda: all(reader.ended for reader in readers))
        assert {reader.ended for reader in readers} == {"the disk is gone"}
        assert world.started == EXPORTS_MAX + 1

    run(body)


def test_those_who_wait_are_counted() -> None:
    async def body(world: World) -> None:
        readers = [Reader(world, most=1) for _ in range(EXPORTS_MAX + WAITING_MAX)]
        assert not any(reader.ended for reader in readers)
        assert Reader(world).ended == TOO_MANY
        for reader in readers:
            reader.feed.close()

    run(body)
