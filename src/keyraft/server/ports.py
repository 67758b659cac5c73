"""What is handed to a member: its log on disk, its network, its password hashing.

`app` hands in real ones, the simulator its own. Everything runs on the loop's thread; a callback
given to a port is called on the loop, either before the call returns or later, exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from keyraft.base.errors import EtcdError, RawError
from keyraft.base.waiters import Waiter
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

        `alone`: nothing else waits, so the loop itself may do the write on a fast disk.

        Where there is no room it waits for room. When the disk fails `done` is never called. The
        implementation stops the member, because nothing may be written behind a write whose result
        is unknown.
        """

    def save_snapshot(
        self,
        meta: SnapshotMeta,
        data: bytes,
        done: Callable[[], None],
        no_room: Callable[[], None] | None = None,
    ) -> None:
        """Makes a snapshot of this member durable and releases the log before it.

        `no_room` is called instead of `done` where the disk has no room for it.
        """

    @property
    def room_bytes(self) -> int:
        """How much can be appended for sure, whatever else fills the disk; about."""

    def short_of_room(self) -> str:
        """Why no more should be taken from clients; "" while there is room. To be asked every tick:
        then room is reserved ahead."""

    def install(
        self, snapshot: Snapshot, hard_state: HardState | None, done: Callable[[], None]
    ) -> None:
        """Makes a snapshot received from the leader durable, database included.

        The hard state, whose commit makes the snapshot valid at the next start, is on the disk
        before the database is replaced.
        """


class RoomGate(Protocol):
    """What Raft may still be given while the disk is full."""

    def takes(self, message: Message) -> bool:
        """Whether a message of a peer; one that is not taken counts as lost."""

    def takes_entries(self, entries: Collection[bytes]) -> bool:
        """Whether these of this member's proposals."""

    def appended(self) -> None:
        """What was given has gone to the log."""


class Network(Protocol):
    """Sends to the other members. Never blocks, never raises; drops what cannot be sent."""

    def send(self, messages: Sequence[Message]) -> None:
        """Sends each to its `to`."""

    def add_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """Adds a member that has joined, or is known from the start."""

    def remove_peer(self, member_id: int) -> None:
        """Removes a member."""

    def update_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """Changes a member's URLs."""

    def active_since(self, member_id: int) -> float | None:
        """Monotonic seconds since when a peer answers; None while it does not."""

    def versions(self) -> Mapping[int, str | None]:
        """The version that each peer gives; None for those that do not answer."""

    def last_versions(self) -> Iterable[str]:
        """The version that each peer last gave, if it ever did."""


class LeaderCalls(Protocol):
    """Calls to the leader for what only it can answer; each can be cancelled.

    `done` is called on the loop, once, unless the call was cancelled.
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
    """A peer's hash of its keys up to a revision; `found` is None if it gave none.

    `revision` is the peer's own present revision.
    """

    member_id: int
    endpoints: tuple[str, ...]
    revision: int = 0
    found: KVHash | None = None
    error: EtcdError | None = None


class PeerHashes(Protocol):
    """Asks every other member for its hash."""

    def ask(self, revision: int, done: Callable[[Sequence[PeerHash]], None]) -> None:
        """Asks all of them; `done` is called once, on the loop, unless the member stops."""

    def ask_database(self, member_id: int, done: Callable[[str], None]) -> None:
        """Has another member send its database, with a message of `rebuild.CONTEXT`. `done` gets why
        it does not, or ""."""


class NoNetwork:
    """The network of a cluster of one."""

    def send(self, messages: Sequence[Message]) -> None:
        """Drops the messages."""

    def add_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """Does nothing."""

    def remove_peer(self, member_id: int) -> None:
        """Has no effect."""

    def update_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """Changes nothing."""

    def active_since(self, member_id: int) -> float | None:
        """Never connected."""
        return None

    def versions(self) -> Mapping[int, str | None]:
        """No versions."""
        return {}

    def last_versions(self) -> Iterable[str]:
        """None at all."""
        return ()


@dataclass(frozen=True, slots=True)
class Asker:
    """Who wants a password looked at: so that those who ask too much keep nobody else waiting."""

    waiter: Waiter
    """Once it is cancelled, nobody needs the answer."""

    peer: str
    """The client's address with its port; "" if unknown."""

    user: str = ""
    """The name that the password is shown for."""


class Passwords(Protocol):
    """Hashes and compares passwords; slow on purpose, so not on the loop."""

    nobody: bytes
    """A hash that is of no password, and as slow to compare as others."""

    def hash(
        self,
        password: bytes,
        done: Callable[[bytes | EtcdError | RawError], None],
        asker: Asker,
    ) -> None:
        """Hashes a password; `done` gets the bcrypt text or the error."""

    def verify(
        self,
        password: bytes,
        hashed: bytes,
        done: Callable[[bool | EtcdError], None],
        asker: Asker,
    ) -> None:
        """Whether a password is the one that was hashed."""

    def hash_now(self, password: bytes) -> bytes:
        """The same, blocking: only for entries of etcd 3.4, which contain the password itself."""


class UnknownRequestError(Exception):
    """The log holds a request that this member cannot carry out; going on would make it diverge."""

    def __init__(self, kind: int) -> None:
        super().__init__(f"cannot apply a request of kind {kind}")
        self.kind = kind
