"""What a member is handed: its log on disk, its network, what hashes passwords.

`app` hands in real ones, the simulator its own. Everything runs on the loop's thread; a callback
given to a port is called on the loop, either before the call returns or later, exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from keyraft.base.errors import EtcdError, RawError
from keyraft.mvcc import KVHash
from keyraft.proto import rpc_pb2
from keyraft.raft import Entry, HardState, Message, Snapshot, SnapshotMeta


class DurableLog(Protocol):
    """The write-ahead log and the snapshots that shorten it."""

    def append(
        self,
        entries: Sequence[Entry],
        hard_state: HardState | None,
        must_sync: bool,
        done: Callable[[], None],
        alone: bool = False,
    ) -> None:
        """Writes, syncs if `must_sync`, then calls `done`. One append is under way at a time.

        `alone`: nothing but this write is waited for, so the loop may be held for a fast disk.

        A disk that fails never calls `done`: the implementation stops the member, because a log
        whose last write is in doubt must not be written behind it.
        """

    def save_snapshot(self, meta: SnapshotMeta, data: bytes, done: Callable[[], None]) -> None:
        """Makes a snapshot of our own durable and lets the log before it go."""

    def install(
        self, snapshot: Snapshot, hard_state: HardState | None, done: Callable[[], None]
    ) -> None:
        """Makes a snapshot received from the leader durable, database included.

        The hard state, whose commit makes the snapshot count at the next start, is on the disk
        before the database takes its place.
        """


class Network(Protocol):
    """The way to the other members. Never blocks, never raises; what cannot go is dropped."""

    def send(self, messages: Sequence[Message]) -> None:
        """Sends each to its `to`."""

    def add_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """A member has joined, or is known from the start."""

    def remove_peer(self, member_id: int) -> None:
        """A member has left for good."""

    def update_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """A member has moved."""

    def active_since(self, member_id: int) -> float | None:
        """Monotonic seconds since when a peer answers; None while it does not."""

    def versions(self) -> Mapping[int, str | None]:
        """What each peer says its version is; None for those that do not answer."""

    def last_versions(self) -> Iterable[str]:
        """What version each peer last said that it is, as far as it ever did."""


class LeaderCalls(Protocol):
    """The way to ask the leader what only it can answer; each call can be taken back.

    `done` is called on the loop, once, unless the call was taken back.
    """

    def renew(
        self, lease_id: int, done: Callable[[int | EtcdError | RawError], None]
    ) -> Callable[[], None]:
        """Renews a lease: its TTL in seconds, or LeaseNotFoundError."""

    def time_to_live(
        self,
        lease_id: int,
        keys: bool,
        done: Callable[[rpc_pb2.LeaseTimeToLiveResponse | EtcdError | RawError], None],
    ) -> Callable[[], None]:
        """Asks about a lease; LeaseNotFoundError when there is none."""

    def promote(
        self,
        member_id: int,
        token: str | None,
        done: Callable[[EtcdError | RawError | None], None],
    ) -> Callable[[], None]:
        """Makes a learner a voter."""


@dataclass(frozen=True, slots=True)
class PeerHash:
    """What a peer says of its keys up to a revision; `found` is None when it says nothing.

    `revision` is the one that the peer itself stands at.
    """

    member_id: int
    endpoints: tuple[str, ...]
    revision: int = 0
    found: KVHash | None = None
    error: EtcdError | None = None


class PeerHashes(Protocol):
    """The way to ask every other member for its hash."""

    def ask(self, revision: int, done: Callable[[Sequence[PeerHash]], None]) -> None:
        """Asks all of them; `done` is called once, on the loop, unless the member stops."""


class NoNetwork:
    """The network of a cluster of one: nobody is there."""

    def send(self, messages: Sequence[Message]) -> None:
        """Drops them."""

    def add_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """Nobody to meet."""

    def remove_peer(self, member_id: int) -> None:
        """Nobody to leave."""

    def update_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """Nobody has moved."""

    def active_since(self, member_id: int) -> float | None:
        """Nobody answers."""
        return None

    def versions(self) -> Mapping[int, str | None]:
        """Nobody to ask."""
        return {}

    def last_versions(self) -> Iterable[str]:
        """Nobody to say."""
        return ()


class Passwords(Protocol):
    """Where passwords are hashed and compared: slowly on purpose, and so not on the loop."""

    def hash(self, password: bytes, done: Callable[[bytes | EtcdError | RawError], None]) -> None:
        """The bcrypt text of a password, or why it has none."""

    def verify(
        self, password: bytes, hashed: bytes, done: Callable[[bool | EtcdError], None]
    ) -> None:
        """Whether a password is the one that was hashed."""

    def hash_now(self, password: bytes) -> bytes:
        """The same at once: only for entries of etcd 3.4, which come with the password itself."""


class UnknownRequestError(Exception):
    """The log holds a request that this member cannot carry out; going on would be divergence."""

    def __init__(self, kind: int) -> None:
        super().__init__(f"cannot apply a request of kind {kind}")
        self.kind = kind
