"""The ports of the services: small Protocols that a member, a proxy or another engine implements.

A service knows gRPC (the call, its credentials, the stream's back pressure), the form of a request
and how it is refused. An engine carries requests out: `server.engine` with Raft,
`tests/service/other_engine.py` with dictionaries.

The rules of all verbs:
- Writes take a request's bytes unchanged; reads take the parsed message, which was parsed to check
  it. The waiter gets the answer; a gRPC call is itself a waiter.
- The answer is a whole encoded response with its header. A verb that returns `bytes | None` may
  return it at once; after None the waiter is answered later, once. A refusal during the verb is
  raised; a later one goes to the waiter.
- A verb that answers later sets the waiter's `on_cancel`, if it can stop, and may read `cancelled`.
  Everything happens on the loop.
- `caller` is the identified caller. `who` identifies the caller when it is called: a read is
  answered with the permissions at that moment. Services pass both on and never look into an
  identity. Without `who`, or if it returns None, the call has no credentials or there are no users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from keyraft.auth import Identity
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.waiters import Waiter
from keyraft.grpc import CallContext, ServerStream, UnaryCall
from keyraft.mvcc import BulkSink, Sink
from keyraft.proto import rpc_pb2

if TYPE_CHECKING:
    from keyraft.proto import operations_pb2

Who = Callable[[], Identity | None]
"""Identifies the caller. Raises InvalidAuthTokenError, PostponedError."""

CheckRead = Callable[[CallContext, bytes], None]
"""`Users.check_read`."""

Renewed = Callable[[bytes | EtcdError | RawError], None]
"""Gets the encoded LeaseKeepAliveResponse, or the refusal that ends the stream."""


class LeadershipView(Protocol):
    """The member's state that every call reads. Plain attributes."""

    @property
    def in_service(self) -> bool:
        """Calls need no further checks of the member's state."""

    @property
    def leader(self) -> int:
        """The leader's id; 0 without one."""

    @property
    def fenced(self) -> bool:
        """The member's keys are wrong: nobody is served."""


class Standing(Protocol):
    """Whether clients are served at all; checked first."""

    @property
    def leadership(self) -> LeadershipView:
        """The present state."""

    @property
    def capable(self) -> bool:
        """The cluster's version is known."""

    @property
    def is_learner(self) -> bool:
        """This member has no vote, and serves few methods."""

    @property
    def election_s(self) -> float:
        """Seconds between two checks for streams that have lost their leader."""


class QuotaView(Protocol):
    """Whether there is room for what a request would add."""

    @property
    def room(self) -> int:
        """A put's encoded request up to so many bytes needs no further check. A plain attribute."""

    def check(self, cost: int) -> None:
        """Raises NoSpaceError, and raises the alarm, if `cost` more bytes do not fit."""


class Rules(Protocol):
    """The state of authentication that every call reads."""

    @property
    def enabled(self) -> bool:
        """Authentication is on. A plain attribute."""


class Feed(Protocol):
    """A large answer that is being sent to a stream, which may be slow."""

    def resume(self) -> None:
        """The stream has room again."""

    def close(self) -> None:
        """Ends the feed; harmless when it has ended."""


class Writes(Protocol):
    """Writes that can be withdrawn before they have an effect."""

    def withdraw(self, waiter: Waiter) -> bool:
        """Withdraws a write: it is never carried out, and its waiter is not called.

        False if it may be or was carried out; then the waiter is answered as usual.
        """


class Keys(Writes, Protocol):
    """The keys and their history."""

    @property
    def space(self) -> QuotaView:
        """The quota for puts and transactions."""

    @property
    def txn_ops_max(self) -> int:
        """Operations in one branch of a transaction."""

    def get(
        self, call: UnaryCall, key: bytes, serializable: bool, check: CheckRead | None = None
    ) -> bytes | None:
        """`range` of one key at the present revision without options: the fast path.

        `check` is given the call and the key when the answer is made, and raises a refusal.
        """

    def range(
        self, waiter: Waiter, request: rpc_pb2.RangeRequest, who: Who | None = None
    ) -> bytes | None:
        """A RangeResponse."""

    def range_stream(
        self, sink: RangeSink, request: rpc_pb2.RangeRequest, who: Who | None = None
    ) -> Feed:
        """Sends RangeStreamResponses to `sink`, as fast as it takes them."""

    def read_txn(
        self, waiter: Waiter, request: rpc_pb2.TxnRequest, who: Who | None = None
    ) -> bytes | None:
        """A TxnResponse to a transaction that only reads."""

    def put(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        """PutRequest -> PutResponse."""

    def delete_range(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        """DeleteRangeRequest -> DeleteRangeResponse."""

    def txn(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        """TxnRequest -> TxnResponse."""

    def compact(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        """CompactionRequest -> CompactionResponse, a physical one once the rows are gone."""


class RangeSink(Protocol):
    """Receives the chunks of a RangeStream."""

    @property
    def writable(self) -> int:
        """Bytes that may still be queued; at zero or less the feed waits for its `resume`."""

    def send(self, message: bytes) -> None:
        """One RangeStreamResponse."""

    def finish(self, code: int = 0, text: str = "") -> None:
        """Ends the stream, with or without an error."""


class Watching(Protocol):
    """Watching changes of keys."""

    @property
    def notify_s(self) -> float:
        """Between two progress notifications of a watch that wants them."""

    def open(self, sink: Sink, bulk: BulkSink | None = None, who: Who | None = None) -> Watches:
        """Opens the watches of one stream.

        `bulk` is the same sink's interface for many messages. `who` finds out who watches, should
        there be users when there were none before. A watch ends when its user loses the right to
        it: the sink is told by a response that is canceled, with a reason.
        """

    def check(self, key: bytes, range_end: bytes, caller: Identity | None) -> None:
        """Raises the error if it is known at once that the caller may not watch a range."""


class Watches(Protocol):
    """The watches of one stream, by id; must be closed. Answers are WatchResponses to the sink."""

    def create(self, request: rpc_pb2.WatchCreateRequest, caller: Identity | None = None) -> None:
        """Creates a watch or refuses it, and answers, at once or later."""

    def refuse(self, reason: str) -> None:
        """Answers a create request that makes no watch."""

    def cancel(self, watch_id: int) -> None:
        """Cancels a watch and answers; an unknown id is not answered."""

    def progress(self) -> None:
        """Answers a progress request once all has been sent."""

    def tick(self) -> None:
        """Call after `notify_s`: sends the progress of the watches that want it."""

    @property
    def notifying(self) -> bool:
        """Whether any watch wants progress notifications."""

    def on_writable(self) -> None:
        """The sink has room again."""

    def close(self) -> None:
        """Ends all watches; nothing is sent any more."""


class Leases(Writes, Protocol):
    """The leases."""

    @property
    def space(self) -> QuotaView:
        """The quota for grants."""

    def grant(
        self, waiter: Waiter, request: rpc_pb2.LeaseGrantRequest, caller: Identity | None = None
    ) -> None:
        """A LeaseGrantResponse; an id of 0 leaves the choice to the engine."""

    def revoke(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        """LeaseRevokeRequest -> LeaseRevokeResponse."""

    def time_to_live(
        self, waiter: Waiter, request: rpc_pb2.LeaseTimeToLiveRequest, who: Who | None = None
    ) -> bytes | None:
        """A LeaseTimeToLiveResponse; TTL -1 for an unknown lease."""

    def list(self, waiter: Waiter, who: Who | None = None) -> bytes | None:
        """A LeaseLeasesResponse."""

    def renew_at_once(
        self, stream: ServerStream, requests: Sequence[bytes], who: Who | None = None
    ) -> int:
        """Answers, in one piece, the first LeaseKeepAliveRequests as far as none must wait.

        Returns how many. Never raises.
        """

    def renew(
        self, request: bytes, done: Renewed, who: Who | None = None
    ) -> Callable[[], None] | None:
        """Renews one.

        `done` is called at once or later, unless it is cancelled by calling the returned function
        (None if there is nothing to cancel).
        """


class Users(Protocol):
    """Users and roles, and identifying callers."""

    @property
    def rules(self) -> Rules:
        """The state of authentication."""

    def identify(self, call: CallContext) -> Identity | None:
        """Identifies the caller; None without users or credentials.

        Raises InvalidAuthTokenError; PostponedError if that is known only later.
        """

    def check_read(self, call: CallContext, key: bytes) -> None:
        """The caller may read one key, as users are now, or there are none: `identify` too.

        Raises what `identify` raises, UserEmptyError, PermissionDeniedError.
        """

    def check_admin(self, caller: Identity | None) -> None:
        """The caller holds the root role. Raises UserEmptyError, PermissionDeniedError."""

    def ask(
        self, method: str, waiter: Waiter, request: bytes, who: Who | None = None, peer: str = ""
    ) -> None:
        """Carries out one of etcd's Auth methods, by name, for a client at an address.

        The request must have the method's type.
        """


class Members(Protocol):
    """The members of the cluster. The caller's permission was checked before."""

    def list(self, call: UnaryCall, linearizable: bool, who: Who | None = None) -> bytes | None:
        """A MemberListResponse, for any user."""

    def add(self, call: UnaryCall, peer_urls: Sequence[str], is_learner: bool) -> None:
        """A MemberAddResponse."""

    def remove(self, call: UnaryCall, member_id: int) -> None:
        """A MemberRemoveResponse."""

    def update(self, call: UnaryCall, member_id: int, peer_urls: Sequence[str]) -> None:
        """A MemberUpdateResponse."""

    def promote(self, call: UnaryCall, member_id: int) -> None:
        """A MemberPromoteResponse."""


class Upkeep(Protocol):
    """Maintenance of a member. The caller's permission was checked before."""

    def status(self, call: UnaryCall) -> bytes | None:
        """A StatusResponse."""

    def alarm(self, call: UnaryCall, request: bytes) -> None:
        """AlarmRequest -> AlarmResponse."""

    def defragment(self, call: UnaryCall) -> None:
        """A DefragmentResponse."""

    def hash(self, call: UnaryCall) -> None:
        """A HashResponse over all buckets."""

    def hash_kv(self, call: UnaryCall, revision: int) -> None:
        """A HashKVResponse up to a revision; 0 is the present one."""

    def usage(self, call: UnaryCall, request: operations_pb2.UsageRequest) -> None:
        """A UsageResponse."""

    def move_leader(self, call: UnaryCall, member_id: int) -> None:
        """A MoveLeaderResponse."""

    def downgrade(self, call: UnaryCall, request: rpc_pb2.DowngradeRequest) -> None:
        """A DowngradeResponse."""

    def snapshot(self, sink: SnapshotSink) -> Feed:
        """Sends the database as a file, then its SHA-256, to `sink`."""


class SnapshotSink(Protocol):
    """Receives the blocks of a snapshot."""

    def begin(self, version: bytes) -> None:
        """Called before the blocks, with the storage version of the database."""

    def block(self, data: bytes, remaining_bytes: int, last: bool) -> bool:
        """Takes a block; False: the feed waits for `resume` before the next."""

    def failed(self, text: str) -> None:
        """The snapshot failed."""

    def unread(self, text: str) -> None:
        """The snapshot ends because the client did not read for too long."""


class Engine(Protocol):
    """All ports of one engine."""

    @property
    def standing(self) -> Standing: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def watching(self) -> Watching: ...

    @property
    def leases(self) -> Leases: ...

    @property
    def users(self) -> Users: ...

    @property
    def members(self) -> Members: ...

    @property
    def upkeep(self) -> Upkeep: ...
