"""What a member is handed: its log on disk, its network, its users.

`app` hands in real ones, the simulator its own. Everything runs on the loop's thread; a callback
given to a port is called on the loop, either before the call returns or later, exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


class Identity:
    """Who asks, as a token says, and the revision of the users that this was read at."""

    __slots__ = ("revision", "username")

    def __init__(self, username: bytes, revision: int) -> None:
        self.username = username
        self.revision = revision


class Auth(Protocol):
    """Users and their permissions. While `enabled` is false nothing else is asked.

    The checks raise errors of `base.errors`; they run once before a read and again when a write is
    applied, so that a permission taken away between the two counts.
    """

    enabled: bool
    revision: int
    nobody: Identity
    """Who has no credentials, while users exist."""

    def identify(self, metadata: Mapping[bytes, bytes], common_name: str | None) -> Identity | None:
        """Who the caller is; None without credentials."""

    def check_admin(self, identity: Identity | None) -> None:
        """The caller holds the root role."""

    def check_range(self, identity: Identity, key: bytes, range_end: bytes) -> None:
        """READ on [key, range_end)."""

    def check_put(self, identity: Identity, request: rpc_pb2.PutRequest) -> None:
        """WRITE on the key and on what hangs on its lease, READ for prev_kv."""

    def check_delete(self, identity: Identity, request: rpc_pb2.DeleteRangeRequest) -> None:
        """WRITE on the range, READ for prev_kv."""

    def check_txn(self, identity: Identity, request: rpc_pb2.TxnRequest) -> None:
        """All of a transaction, both branches."""

    def check_lease_revoke(self, identity: Identity, lease_id: int) -> None:
        """WRITE on every key that hangs on the lease."""

    def apply(self, kind: int, request: bytes, identity: Identity | None) -> bytes:
        """Carries out a request about users or roles; answers the response without its header."""


class OpenDoor:
    """No users: everybody may do everything."""

    enabled = False
    revision = 1
    nobody = Identity(b"", 0)

    def identify(self, metadata: Mapping[bytes, bytes], common_name: str | None) -> Identity | None:
        """Nobody in particular."""
        return None

    def check_admin(self, identity: Identity | None) -> None:
        """Granted."""

    def check_range(self, identity: Identity, key: bytes, range_end: bytes) -> None:
        """Granted."""

    def check_put(self, identity: Identity, request: rpc_pb2.PutRequest) -> None:
        """Granted."""

    def check_delete(self, identity: Identity, request: rpc_pb2.DeleteRangeRequest) -> None:
        """Granted."""

    def check_txn(self, identity: Identity, request: rpc_pb2.TxnRequest) -> None:
        """Granted."""

    def check_lease_revoke(self, identity: Identity, lease_id: int) -> None:
        """Granted."""

    def apply(self, kind: int, request: bytes, identity: Identity | None) -> bytes:
        """There is no store of users to change."""
        raise UnknownRequestError(kind)


class UnknownRequestError(Exception):
    """The log holds a request that this member cannot carry out; going on would be divergence."""

    def __init__(self, kind: int) -> None:
        super().__init__(f"cannot apply a request of kind {kind}")
        self.kind = kind
