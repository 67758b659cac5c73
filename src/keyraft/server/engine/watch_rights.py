"""Watches end with the right to read what they watch.

A watch is asked for its rights when it is made, and again whenever a change of users may have taken
some away: a deleted user, a role revoked or deleted, a permission revoked or narrowed,
authentication switched on, a database received from the leader. What may no longer be read is
cancelled with the words in which a new watch would be refused. While nobody loses anything, and
while authentication is off, nothing is done here.

A watch belongs to a user, not to a token: one whose token runs out goes on, and so does one whose
user has a new password. A stream that was opened before there were users is asked who it is when
there are some.

No event of a revision behind the change reaches a watch that has lost: if there are more watches
than one step can look at, the hub delivers nothing until all have been looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Final, Protocol

from keyraft.auth import AuthStore, Identity
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.invariants import hold
from keyraft.grpc import status
from keyraft.mvcc import Watcher, WatchHub
from keyraft.server.slices import Slices

LOOKED_MAX: Final = 500  # watches, or streams without watches, in one step: about a millisecond
REASON: Final = status.described(
    errors.PermissionDeniedError.code, errors.PermissionDeniedError.text
)


class UsersWatches(Protocol):
    """The watches of one stream."""

    user: bytes | None
    """Whose they are; None when there were no users as they were made."""

    who: Callable[[], Identity | None] | None
    watchers: dict[int, Watcher]

    def cancel(self, watch_id: int, reason: str = "") -> None:
        """Cancels one of them and says why."""


class WatchRights:
    """The streams of one member, and the search for those that have lost."""

    def __init__(self, auth: AuthStore, hub: WatchHub, slices: Slices) -> None:
        self._auth = auth
        self._hub = hub
        self._slices = slices
        self.streams: dict[UsersWatches, None] = {}
        self._lost: deque[bytes | None] = deque()
        self._looking = False
        auth.listen(self._less)

    def _less(self, username: str | None) -> None:
        """A user may do less than before; None: anybody."""
        if not self.streams or None in self._lost:
            return
        if username is None:
            self._lost.clear()
        self._lost.append(None if username is None else username.encode())
        if self._looking:
            return
        work = self._work()
        if next(work, True):
            return
        self._looking = True
        self._hub.hold()

        def step() -> bool:
            if not next(work, True):
                return False
            self._looking = False
            self._hub.release()
            return True

        self._slices.add(step)

    def _work(self) -> Generator[bool, None, None]:
        """Yields False between two steps."""
        left = LOOKED_MAX
        while self._lost:
            user = self._lost.popleft()
            for stream in list(self.streams):
                left -= 1
                mine = user is None or stream.user == user
                for watch_id, watcher in list(stream.watchers.items()) if mine else ():
                    left -= 1
                    if left <= 0:
                        left = LOOKED_MAX
                        yield False
                    # Others have had their turn: the watch may be gone by now.
                    if stream.watchers.get(watch_id) is watcher and not self._may(stream, watcher):
                        stream.cancel(watch_id, REASON)
                if left <= 0:
                    left = LOOKED_MAX
                    yield False

    def _may(self, stream: UsersWatches, watcher: Watcher) -> bool:
        if not self._auth.enabled:
            return True
        if stream.user is None:
            stream.user = _user_of(stream)
        end = watcher.end
        range_end = b"" if end is None else end or b"\0"
        return stream.user is not None and self._auth.may_read(
            stream.user, watcher.start, range_end
        )

    def check(self) -> None:
        """Between two changes nobody watches what it may not read; raises InvariantError."""
        hold(self._looking or not self._lost, "losses are looked for at once")
        if self._auth.enabled and not self._looking:
            for stream in self.streams:
                for watch_id, watcher in stream.watchers.items():
                    hold(self._may(stream, watcher), "who watches may read", watch_id)


def _user_of(stream: UsersWatches) -> bytes | None:
    """Who a stream is, by the token or the certificate that it came with."""
    try:
        identity = stream.who() if stream.who is not None else None
    except (EtcdError, RawError):
        return None
    return None if identity is None else identity.username
