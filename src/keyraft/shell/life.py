"""One life of a member on an opened data directory: how it is built, begun and ended.

Life and simulator hand in their world. In what order a member ends is the same for both: a leader
hands over, the last write ends, the log is closed, the database commits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from keyraft.auth import TokenProvider
from keyraft.base.clock import Loop, Random, WallClock
from keyraft.base.errors import EtcdError
from keyraft.base.log import Logger
from keyraft.server import Member, MemberSettings, Network, Passwords
from keyraft.shell.bootstrap import Opened
from keyraft.shell.durable_log import DiskWorld, MemberLog
from keyraft.shell.fatal_stop import FatalStop

_M = TypeVar("_M", bound=Member)


@dataclass(frozen=True, slots=True)
class World:
    """What a member meets outside itself."""

    loop: Loop
    wall_clock: WallClock
    chance: Random
    logger: Logger
    disk: DiskWorld
    snap_path: str
    network: Network
    tokens: TokenProvider
    passwords: Passwords


class Life(Generic[_M]):
    """See the module. A fatal error ends a life at any point, by `FatalStop`; then only `close`."""

    def __init__(
        self,
        make: type[_M],
        settings: MemberSettings,
        world: World,
        opened: Opened,
        fatal: FatalStop,
        replace_database: Callable[[int], None],
    ) -> None:
        """`replace_database`: see `MemberLog`. Raises what `Member` raises for damaged data."""
        self._loop = world.loop
        self._opened = opened
        self.log = MemberLog(
            opened.wal, world.snap_path, world.disk, world.logger, fatal, replace_database
        )
        backend = opened.backend
        self.member = make(
            settings,
            world.loop,
            world.wall_clock,
            world.chance,
            world.logger,
            backend,
            self.log,
            world.network,
            world.tokens,
            world.passwords,
            opened.cluster,
            opened.boot,
            lambda: backend.overloaded,
        )
        fatal.member = self.member

    def begin(self) -> None:
        """The member talks to those it knows, and runs."""
        for other in self._opened.others:
            self.member.network.add_peer(other.id, other.peer_urls)
        self.member.start()

    def end(self, hang_up: Callable[[Callable[[], None]], None], done: Callable[[], None]) -> None:
        """Ends it in order: `hang_up(then)` sends the clients away when another leads.

        Each step is given the time of one request; what takes longer is left as it is. A member
        that was stopped meanwhile hears nothing more.
        """
        self._hand_over(lambda: hang_up(lambda: self._stop(done)))

    def _hand_over(self, done: Callable[[], None]) -> None:
        """A stopping leader transfers leadership to the voter that is connected for longest."""
        member = self.member
        target = member.leadership_transfer.best_transferee() if member.leadership.leading else 0
        if not target:
            done()
            return
        once = self._once(done)
        try:
            member.leadership_transfer.move(target, lambda _: once())
        except EtcdError:
            once()

    def _stop(self, done: Callable[[], None]) -> None:
        if self.member.stopped:
            done()
            return
        self.member.stop(self._once(done))

    def _once(self, done: Callable[[], None]) -> Callable[[], None]:
        """Has `done` called after its first call, or when the time of a request has passed.

        Never within it: that may be amid a turn of Raft, which still writes.
        """
        waiting = [done]

        def call() -> None:
            timer.cancel()
            if waiting:
                self._loop.call_soon(waiting.pop())

        timer = self._loop.call_later(self.member.settings.request_timeout_s, call)
        return call

    def close(self) -> None:
        """Closes log and database; what they were given is on the disk afterwards."""
        self.log.close()
        self._opened.backend.close()
