"""What the services ask for: small Protocols that a member, a proxy or another engine implements.

A service knows gRPC (the call, its credentials, the stream's back pressure), the shape of a request
and its refusals. What a request means, and when, is the engine's: `server.engine` carries them out
with Raft, `tests/service/other_engine.py` with dictionaries.

The rules of all verbs:
- Writes take a request's own bytes, which go on as they came; reads take the parsed message, since
  it was parsed to be checked. Whoever wants the answer is the waiter; a gRPC call is one as it is.
- The answer is a whole encoded response, its header included. A verb that returns `bytes | None`
  may return it at once; with None the waiter is answered later, once. A refusal is raised while
  the verb runs, else it is the waiter's.
- A verb that answers later sets the waiter's `on_cancel`, if it can stop, and may look at
  `cancelled`. Everything happens on the loop.
- `caller` is who asks, `who` finds out when it is called: a read is answered for its caller as the
  users are then. Services pass both on and never look into an identity. No `who`, or one that
  says None: nobody was named, or there are no users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from keyraft.auth import Identity
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.waiters import Waiter
from keyraft.grpc import CallContext, ServerStream, UnaryCall
from keyraft.mvcc import BulkSink, Sink
from keyraft.proto import rpc_pb2

Who = Callable[[], Identity | None]
"""Finds out who asks. Raises InvalidAuthTokenError, PostponedError."""

Renewed = Callable[[bytes | EtcdError | RawError], None]
"""Gets the encoded LeaseKeepAliveResponse, or the refusal that ends the stream."""


class LeadershipView(Protocol):
    """What must be known of the member with every call. Plain attributes."""

    @property
    def in_service(self) -> bool:
        """A call needs no closer look."""

    @property
    def leader(self) -> int:
        """Who leads; 0 while nobody does."""


class Standing(Protocol):
    """Whether clients are served at all; asked before everything else."""

    @property
    def leadership(self) -> LeadershipView:
        """How things are now."""

    @property
    def capable(self) -> bool:
        """The cluster's version is known."""

    @property
    def is_learner(self) -> bool:
        """This member has no vote, and serves next to nothing."""

    @property
    def election_s(self) -> float:
        """Between two looks for streams that have lost their leader."""


class QuotaView(Protocol):
    """Whether there is room for what a request would add."""

    @property
    def room(self) -> int:
        """Bytes that a put's encoded request may take without a closer look. A plain attribute."""

    def check(self, cost: int) -> None:
        """Raises NoSpaceError, and the alarm, where `cost` more bytes do not fit."""


class Rules(Protocol):
    """What must be known of the users with every call."""

    @property
    def enabled(self) -> bool:
        """Callers are asked who they are. A plain attribute."""


class Feed(Protocol):
    """Something large on its way to a stream that may be slow."""

    def resume(self) -> None:
        """The stream takes more again."""

    def close(self) -> None:
        """No more is wanted; harmless at the end."""


class Writes(Protocol):
    """What can be taken back before anything has come of it."""

    def withdraw(self, waiter: Waiter) -> bool:
        """Takes a write back: it will never be carried out, and its waiter hears no more. False
        when it may be, or was; then the waiter is answered as ever."""


class Keys(Writes, Protocol):
    """The keys and their history."""

    @property
    def space(self) -> QuotaView:
        """What puts and transactions are measured by."""

    @property
    def txn_ops_max(self) -> int:
        """Operations in one branch of a transaction."""

    def get(
        self, waiter: Waiter, key: bytes, serializable: bool, who: Who | None = None
    ) -> bytes | None:
        """`range` of one key at the present, with nothing else asked for: the fast path."""

    def range(
        self, waiter: Waiter, request: rpc_pb2.RangeRequest, who: Who | None = None
    ) -> bytes | None:
        """A RangeResponse."""

    def range_stream(
        self, sink: RangeSink, request: rpc_pb2.RangeRequest, who: Who | None = None
    ) -> Feed:
        """RangeStreamResponses to `sink`, as fast as it takes them."""

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
    """Where a RangeStream's chunks go."""

    @property
    def writable(self) -> int:
        """Bytes that may still be queued; at zero or less the feed waits for its `resume`."""

    def send(self, message: bytes) -> None:
        """One RangeStreamResponse."""

    def finish(self, code: int = 0, text: str = "") -> None:
        """That was all, or it was refused."""


class Watching(Protocol):
    """The changes of keys."""

    @property
    def notify_s(self) -> float:
        """Between two progress notifications of a watch that wants them."""

    def open(self, sink: Sink, bulk: BulkSink | None = None) -> Watches:
        """The watches of one stream; `bulk` is the same sink's ways for many messages."""

    def check(self, key: bytes, range_end: bytes, caller: Identity | None) -> None:
        """Raises what keeps a caller from watching a range, where that can be said at once."""


class Watches(Protocol):
    """The watches of one stream, by id; close them. Answers are WatchResponses to the sink."""

    def create(self, request: rpc_pb2.WatchCreateRequest, caller: Identity | None = None) -> None:
        """Starts one, or refuses it, and says so, at once or later."""

    def refuse(self, reason: str) -> None:
        """Answers a create request that makes no watch."""

    def cancel(self, watch_id: int) -> None:
        """Ends one and says so; an unknown id is not answered."""

    def progress(self) -> None:
        """Answers a progress request once all has been sent."""

    def tick(self) -> None:
        """`notify_s` are over: tells the progress of the watches that want it."""

    @property
    def notifying(self) -> bool:
        """Whether any watch wants progress notifications."""

    def on_writable(self) -> None:
        """The sink has room again."""

    def close(self) -> None:
        """Ends all; nothing is sent any more."""


class Leases(Writes, Protocol):
    """The leases."""

    @property
    def space(self) -> QuotaView:
        """What grants are measured by."""

    def grant(
        self, waiter: Waiter, request: rpc_pb2.LeaseGrantRequest, caller: Identity | None = None
    ) -> None:
        """A LeaseGrantResponse; an id of 0 leaves the choice to the engine."""

    def revoke(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        """LeaseRevokeRequest -> LeaseRevokeResponse."""

    def time_to_live(
        self, waiter: Waiter, request: rpc_pb2.LeaseTimeToLiveRequest, who: Who | None = None
    ) -> bytes | None:
        """A LeaseTimeToLiveResponse; TTL -1 for a lease that is not there."""

    def list(self, waiter: Waiter, who: Who | None = None) -> bytes | None:
        """A LeaseLeasesResponse."""

    def renew_at_once(
        self, stream: ServerStream, requests: Sequence[bytes], who: Who | None = None
    ) -> int:
        """Answers the first so many LeaseKeepAliveRequests as need not wait for anything, in one
        piece; how many. Never raises."""

    def renew(
        self, request: bytes, done: Renewed, who: Who | None = None
    ) -> Callable[[], None] | None:
        """Renews one; `done` is called at once or later, unless it was taken back with what is
        returned (None: there is nothing to take back)."""


class Users(Protocol):
    """The users, the roles, and who a caller is."""

    @property
    def rules(self) -> Rules:
        """Whether there is anything to ask."""

    def identify(self, call: CallContext) -> Identity | None:
        """Who calls; None while there are no users or the caller names none. Raises
        InvalidAuthTokenError; PostponedError when that is known only later."""

    def check_admin(self, caller: Identity | None) -> None:
        """The caller holds the root role. Raises UserEmptyError, PermissionDeniedError."""

    def ask(self, method: str, waiter: Waiter, request: bytes, who: Who | None = None) -> None:
        """One of etcd's Auth methods, by its name; the request is known to be of its type."""


class Members(Protocol):
    """Who belongs to the cluster. That the caller may ask for a change was checked before."""

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
    """What is asked of a member beside its keys. Who may ask was checked before."""

    def status(self, call: UnaryCall) -> bytes | None:
        """A StatusResponse."""

    def alarm(self, call: UnaryCall, request: bytes) -> None:
        """AlarmRequest -> AlarmResponse."""

    def defragment(self, call: UnaryCall) -> None:
        """A DefragmentResponse."""

    def hash(self, call: UnaryCall) -> None:
        """A HashResponse: all there is."""

    def hash_kv(self, call: UnaryCall, revision: int) -> None:
        """A HashKVResponse up to a revision; 0 is the present one."""

    def move_leader(self, call: UnaryCall, member_id: int) -> None:
        """A MoveLeaderResponse."""

    def downgrade(self, call: UnaryCall, request: rpc_pb2.DowngradeRequest) -> None:
        """A DowngradeResponse."""

    def snapshot(self, sink: SnapshotSink) -> Feed:
        """Everything, as a database file and its SHA-256, to `sink`."""


class SnapshotSink(Protocol):
    """Where a snapshot's blocks go."""

    def begin(self, version: bytes) -> None:
        """The blocks will follow; the version of what is in them."""

    def block(self, data: bytes, remaining_bytes: int, last: bool) -> bool:
        """Takes a block; whether more may come at once, else the feed waits for its `resume`."""

    def failed(self, text: str) -> None:
        """It came to nothing."""

    def unread(self, text: str) -> None:
        """The client has not read, and what waits for it is given up."""


class Engine(Protocol):
    """All of them together."""

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
