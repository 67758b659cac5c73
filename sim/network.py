"""The network between simulated members: late, out of order, twice, never, and cut.

Every message is copied on its way, so nothing that can change is shared; every sixteenth is encoded
and decoded, as between real members (all of them would cost a quarter of the whole run's time).
Faults are per direction: `cut(a, b)` drops what `a` says to `b` and leaves the way back open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from keyraft.raft import codec
from keyraft.raft.types import Message, MessageType
from sim.loop import MemberLoop, SimLoop


@dataclass(slots=True)
class Weather:
    """How bad the network is just now; probabilities per message, times in seconds."""

    delay_min_s: float = 0.0005
    delay_max_s: float = 0.005
    drop: float = 0.0
    duplicate: float = 0.0
    straggle: float = 0.0  # probability of a delay of up to `straggle_max_s`
    straggle_max_s: float = 1.0
    astray: float = 0.0  # probability that another member gets it, too: addresses change hands


ENCODED_EVERY: Final = 16  # messages


class SimNetwork:
    """All members' network."""

    def __init__(self, loop: SimLoop, chance: Random) -> None:
        self._loop = loop
        self._chance = chance
        self.weather = Weather()
        self._receivers: dict[int, Callable[[list[Message]], None]] = {}
        self._cut: set[tuple[int, int]] = set()
        self.sent = 0
        self.delivered = 0
        self.fingerprint = 0  # of everything delivered so far, and when

    def join(self, member_id: int, receive: Callable[[list[Message]], None]) -> None:
        """A member (or its next life) listens under this id."""
        self._receivers[member_id] = receive

    def leave(self, member_id: int) -> None:
        """Nobody listens any more."""
        self._receivers.pop(member_id, None)

    def cut(self, sender: int, receiver: int) -> None:
        """Nothing that `sender` says reaches `receiver`."""
        self._cut.add((sender, receiver))

    def partition(self, groups: Sequence[Iterable[int]]) -> None:
        """Members of different groups do not hear each other."""
        sides = [frozenset(group) for group in groups]
        for one in sides:
            for other in sides:
                if one is not other:
                    self._cut.update((a, b) for a in one for b in other)

    def heal(self) -> None:
        """Everybody hears everybody."""
        self._cut.clear()

    def reachable(self, sender: int, receiver: int) -> bool:
        """Whether a message would have a way at all."""
        return (sender, receiver) not in self._cut and receiver in self._receivers

    def send(self, sender: int, message: Message, late_s: float = 0.0) -> bool:
        """Takes a message; False when the way is cut (as a broken connection would tell).

        `late_s`: it leaves in so long, because its sender is ahead of the world.
        """
        self.sent += 1
        if not self.reachable(sender, message.to):
            return False
        weather, chance = self.weather, self._chance
        if chance.random() < weather.drop:
            return True
        # A forwarded proposal that arrives twice is two proposals, and streams never repeat one.
        repeatable = message.type != MessageType.PROP
        copies = 2 if repeatable and chance.random() < weather.duplicate else 1
        for _ in range(copies):
            delay_s = (
                late_s
                + weather.delay_min_s
                + chance.random() * (weather.delay_max_s - weather.delay_min_s)
            )
            if chance.random() < weather.straggle:
                delay_s += chance.random() * weather.straggle_max_s
            if self.sent % ENCODED_EVERY:
                copy = _copied(message)
            else:
                copy = codec.decode_message(codec.encode_message(message))
            self._loop.call_later(delay_s, self._deliver, sender, copy, message.to)
            if chance.random() < weather.astray:
                other = chance.choice(list(self._receivers))
                if other != message.to:
                    self._loop.call_later(delay_s, self._deliver, sender, _copied(message), other)
        return True

    def _deliver(self, sender: int, message: Message, receiver: int) -> None:
        receive = self._receivers.get(receiver)
        if receive is not None and (sender, receiver) not in self._cut:
            self.delivered += 1
            self.fingerprint = hash(
                (
                    self.fingerprint,
                    self._loop.time(),
                    message.type,
                    sender,
                    message.to,
                    message.term,
                    message.index,
                    message.log_term,
                    message.commit,
                    message.reject,
                    len(message.entries),
                )
            )
            receive([message])


def _copied(message: Message) -> Message:
    """The same message; entries are never changed once made."""
    assert message.snapshot is None and not message.responses, "it has a way of its own"
    return Message(
        message.type,
        message.to,
        message.from_,
        message.term,
        message.log_term,
        message.index,
        list(message.entries),
        message.commit,
        None,
        message.reject,
        message.reject_hint,
        message.context,
        message.vote,
    )


class MemberNetwork:
    """One member's end; satisfies `keyraft.server.ports.Network`."""

    def __init__(
        self,
        network: SimNetwork,
        loop: MemberLoop,
        member_id: int,
        unreachable: Callable[[int], None],
        version: str,
    ) -> None:
        self._network = network
        self._loop = loop
        self._id = member_id
        self._unreachable = unreachable
        self._version = version
        self._peers: dict[int, float] = {}  # since when each can be reached, as far as we saw

    def send(self, messages: Sequence[Message]) -> None:
        """Sends each to its receiver."""
        for message in messages:
            if not self._network.send(self._id, message, self._loop.ahead_s):
                if message.to in self._peers:
                    self._peers[message.to] = self._loop.time()
                self._loop.call_soon(self._unreachable, message.to)

    def add_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """A member joined."""
        if member_id != self._id:
            self._peers.setdefault(member_id, self._loop.time())

    def remove_peer(self, member_id: int) -> None:
        """A member left."""
        self._peers.pop(member_id, None)

    @property
    def peers(self) -> list[int]:
        """Whom this member keeps connections to."""
        return list(self._peers)

    def update_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """Addresses mean nothing here."""

    def active_since(self, member_id: int) -> float | None:
        """Since when the peer can be reached."""
        if not self._network.reachable(self._id, member_id):
            return None
        return self._peers.get(member_id)

    def versions(self) -> Mapping[int, str | None]:
        """All members run the same version; those out of reach do not answer."""
        return {
            peer: self._version if self._network.reachable(self._id, peer) else None
            for peer in self._peers
        }

    def last_versions(self) -> Iterable[str]:
        """The same."""
        return [self._version] if self._peers else []
