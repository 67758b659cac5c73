"""Holds back a leader's empty appends that only carry a commit index, until entries carry it.

When an entry is committed Raft tells every follower at once with an empty append, and every
follower answers. With one client, or a few that wait for each other, that doubles the messages of
each write and delays the next one at both ends. So an empty append waits for at most HOLD_S. Mostly
the next append to the same follower comes first; it carries a commit index at least as high, and
replaces the empty one. For Raft this is like a lost message (Raft thesis §3.5: appends may be lost,
and are idempotent).

No answer to a client waits for a held message. A follower's linearizable reads get the commit index
with the heartbeat that confirms them, and the commit of a follower's own proposals is sent at once.

DEVIATION: etcd sends it at once. A follower's serializable reads and watches are later by up to
HOLD_S.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from keyraft.base.clock import Loop
from keyraft.raft import Message, MessageType
from keyraft.server.ports import Network

HOLD_S: Final = 0.002
_APP: Final = MessageType.APP.value


class CommitNotices:
    """Between a leader's Raft and its network. Owned by the Raft loop."""

    __slots__ = (
        "_awaited_first",
        "_awaited_last",
        "_held",
        "_held_s",
        "_loop",
        "_network",
        "_scheduled",
    )

    def __init__(self, loop: Loop, network: Network) -> None:
        self._loop = loop
        self._network = network
        self._held: dict[int, Message] = {}  # by receiver
        self._held_s = 0.0  # since when the oldest of them waits
        self._scheduled = False
        # The first and the last entry whose commit followers wait for; 0: none.
        self._awaited_first = 0
        self._awaited_last = 0

    def awaited(self, index: int) -> None:
        """A follower has proposed entries up to `index`: their commit is sent at once."""
        self._awaited_last = index
        if not self._awaited_first:
            self._awaited_first = index

    def send(self, messages: Sequence[Message]) -> None:
        """Sends the messages of a leader's Ready, except for those that may wait."""
        held = self._held
        first = self._awaited_first
        out: list[Message] = []
        told = 0
        for message in messages:
            if message.type == _APP:
                commit = message.commit
                if message.entries or 0 < first <= commit:
                    if held:
                        held.pop(message.to, None)
                    told = max(told, commit)
                else:
                    if not held:
                        self._held_s = self._loop.time()
                    held[message.to] = message
                    continue
            out.append(message)
        if first and told >= first:
            self._awaited_first = told + 1 if self._awaited_last > told else 0
        if held and not self._scheduled:
            self._scheduled = True
            self._loop.call_later(HOLD_S, self._release)
        if out:
            self._network.send(out)

    def stop(self) -> None:
        """Nothing is sent any more."""
        self._held.clear()

    def _release(self) -> None:
        self._scheduled = False
        if not self._held:
            return
        # Only one timer runs, so it may have been set for a message that was replaced meanwhile.
        left_s = self._held_s + HOLD_S - self._loop.time()
        if left_s > HOLD_S / 8:
            self._scheduled = True
            self._loop.call_later(left_s, self._release)
            return
        held, self._held = self._held, {}
        self._network.send(list(held.values()))
