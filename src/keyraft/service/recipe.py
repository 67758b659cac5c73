"""Recipes: operations that need several requests, carried out inside the member.

Lock and Election are etcd's client recipes run by the server. A recipe here is a generator that
yields one operation at a time (a write, a linearizable range, the next events of a watch). It is
sent the answer, or the refusal is thrown into it. No task is involved: the driver resumes it from
the callbacks of the engine.

A client that goes away has `Gone` thrown into its recipe at the next step, which may yet yield
operations to clean up; a write is withdrawn if it can be. Every refusal reaches the client as
Unknown with etcd's text, because the original answers through a client of its own that strips the
code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.message import Message

from keyraft.auth import Identity
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.waiters import DoneWaiter, Result
from keyraft.grpc import CallContext, status
from keyraft.mvcc import check_delete_range, check_range
from keyraft.mvcc.wire import field
from keyraft.proto import rpc_pb2
from keyraft.service.guard import Guard
from keyraft.service.ports import Keys, Leases, Watching, Writes

SESSION_TTL_S: Final = 60  # of the lease that a session without one is given
QUEUED_RESPONSES_MAX: Final = 16  # held by a local watch; later ones stay in the store
CREATE_ASCENDING: Final = (rpc_pb2.RangeRequest.ASCEND, rpc_pb2.RangeRequest.CREATE)

M = TypeVar("M", bound=Message)
T = TypeVar("T")
Resume = Callable[[object], None]
"""Gives an operation's answer, or its refusal, back to the recipe. Called once."""

Operation = Callable[["Driver", Resume], None]
"""An operation that a recipe yields; the call starts it."""

Recipe = Generator[Operation, object, T]


@dataclass(frozen=True, slots=True)
class Means:
    """The ports that recipes use."""

    keys: Keys
    watching: Watching
    leases: Leases
    guard: Guard


class Gone(Exception):
    """The client has left."""


class LocalWatch:
    """A watch for a recipe: a short queue of responses."""

    def __init__(self, driver: Driver, key: bytes, range_end: bytes, start_revision: int) -> None:
        """Raises if the caller may not watch."""
        watching, caller = driver.means.watching, driver.caller()
        watching.check(key, range_end, caller)
        self._queue: deque[rpc_pb2.WatchResponse] = deque()
        self._resume: Resume | None = None
        self._full = False
        self._watches = watching.open(self, who=driver.caller)
        self._watches.create(
            rpc_pb2.WatchCreateRequest(key=key, range_end=range_end, start_revision=start_revision),
            caller,
        )

    @property
    def writable(self) -> int:
        """Part of `mvcc.Sink`."""
        room = QUEUED_RESPONSES_MAX - len(self._queue)
        self._full = self._full or room <= 0
        return room

    def send(self, message: bytes) -> None:
        """Part of `mvcc.Sink`."""
        response = rpc_pb2.WatchResponse.FromString(message)
        if response.created:
            return
        if self._resume is None:
            self._queue.append(response)
        else:
            resume, self._resume = self._resume, None
            resume(response)

    def next(self, driver: Driver, resume: Resume) -> None:
        """The operation: the next response."""
        if not self._queue:
            self._resume = resume
            return
        response = self._queue.popleft()
        if self._full:
            self._full = False
            self._watches.on_writable()
        resume(response)

    def close(self) -> None:
        """Ends the watch."""
        self._resume = None
        self._watches.close()


class Driver:
    """Runs one recipe for one caller; `done` gets its result, or the refusal."""

    def __init__(self, means: Means, call: CallContext) -> None:
        """Raises if the caller cannot be identified."""
        self.means = means
        self._call = call
        self.caller()
        self._recipe: Recipe[object] | None = None
        self._done: Callable[[object | RawError], None] | None = None
        self._gone = False
        self._gone_code = status.CANCELLED
        self._interruptible = False
        self._write: tuple[Writes, DoneWaiter] | None = None  # the write that the recipe waits for
        self._running = False
        self._step = 0  # answers to earlier steps are ignored
        self._answer: list[object] = []  # an answer that came while the operation was being started

    def caller(self) -> Identity | None:
        """Identifies the caller anew: users may change while a recipe waits.

        Like every other refusal here, that of a bad token has no code.
        """
        try:
            return self.means.guard.identify(self._call)
        except errors.PostponedError:
            raise
        except EtcdError as refusal:
            raise RawError(status.UNKNOWN, refusal.text) from None

    def run(self, recipe: Recipe[T], done: Callable[[T | RawError], None]) -> None:
        """Starts the recipe."""
        self._recipe = recipe
        self._done = done  # type: ignore[assignment]  # the recipe's value is what it takes
        self._resume(self._step, None)

    def cancel(self, code: int) -> None:
        """The client has left.

        `Gone` is thrown in now if the recipe waits for a watch or for a write that can be
        withdrawn, else at its next step, so that it knows the result of this one.
        """
        self._gone_code = code
        if self._interruptible or (
            self._write is not None and self._write[0].withdraw(self._write[1])
        ):
            self._resume(self._step, Gone())
        else:
            self._gone = True

    def waiter(self, done: Callable[[Result], None]) -> DoneWaiter:
        """The waiter of the present step."""
        return DoneWaiter(done, self.means.guard.loop.time())

    def writes(self, to: Writes, answer: type[Message], resume: Resume) -> DoneWaiter:
        """The waiter of a write, which a caller that goes away may withdraw."""

        def done(result: Result) -> None:
            resume(answer.FromString(result) if isinstance(result, bytes) else result)

        waiter = self.waiter(done)
        self._write = (to, waiter)
        return waiter

    def _resume(self, step: int, answer: object) -> None:
        """Sends an answer to the recipe and starts its next operations, until one must wait."""
        if step != self._step or self._recipe is None:
            return
        self._write = None
        if self._running:
            self._answer.append(answer)
            return
        self._running = True
        while self._recipe is not None:
            self._interruptible = False
            operation = self._advance(self._recipe, answer)
            if operation is None:
                break
            self._step = step = step + 1
            self._start(operation, step)
            if not self._answer:
                self._interruptible = getattr(operation, "__func__", None) is LocalWatch.next
                break
            answer = self._answer.pop()
        self._running = False

    def _start(self, operation: Operation, step: int) -> None:
        try:
            operation(self, lambda answer: self._resume(step, answer))
        except (EtcdError, RawError) as refusal:
            self._answer.append(refusal)

    def _advance(self, recipe: Recipe[object], answer: object) -> Operation | None:
        """The recipe's next operation; None when the recipe has ended."""
        try:
            gone, self._gone = self._gone, False
            if isinstance(answer, Exception):
                return recipe.throw(Gone() if gone else answer)
            operation = recipe.send(answer)
            return recipe.throw(Gone()) if gone else operation
        except StopIteration as finished:
            self._finish(finished.value)
        except Gone:
            late = self._gone_code == status.DEADLINE_EXCEEDED
            text = "context deadline exceeded" if late else "context canceled"
            self._finish(RawError(self._gone_code, text))
        except (EtcdError, RawError) as refusal:
            self._finish(RawError(status.UNKNOWN, refusal.text))
        return None

    def _finish(self, value: object | RawError) -> None:
        done, self._done, self._recipe = self._done, None, None
        if done is not None:
            done(value)


# --- operations ---------------------------------------------------------------------------------


def txn(request: rpc_pb2.TxnRequest) -> Operation:
    """A transaction with the caller's permissions; answered by a TxnResponse."""

    def start(driver: Driver, resume: Resume) -> None:
        keys, caller = driver.means.keys, driver.caller()
        waiter = driver.writes(keys, rpc_pb2.TxnResponse, resume)
        keys.txn(waiter, request.SerializeToString(), caller)

    return start


def delete(key: bytes) -> Operation:
    """Deletes one key; answered by a DeleteRangeResponse."""
    request = rpc_pb2.DeleteRangeRequest(key=key)

    def start(driver: Driver, resume: Resume) -> None:
        check_delete_range(request)
        keys, caller = driver.means.keys, driver.caller()
        waiter = driver.writes(keys, rpc_pb2.DeleteRangeResponse, resume)
        keys.delete_range(waiter, request.SerializeToString(), caller)

    return start


def grant(ttl_s: int) -> Operation:
    """A new lease; answered by a LeaseGrantResponse."""

    def start(driver: Driver, resume: Resume) -> None:
        leases, caller = driver.means.leases, driver.caller()
        waiter = driver.writes(leases, rpc_pb2.LeaseGrantResponse, resume)
        leases.grant(waiter, rpc_pb2.LeaseGrantRequest(TTL=ttl_s), caller)

    return start


def range_(request: rpc_pb2.RangeRequest) -> Operation:
    """A linearizable range; answered by a RangeResponse."""

    def start(driver: Driver, resume: Resume) -> None:
        def done(result: Result) -> None:
            resume(
                rpc_pb2.RangeResponse.FromString(result) if isinstance(result, bytes) else result
            )

        check_range(request)
        answer = driver.means.keys.range(driver.waiter(done), request, driver.caller)
        if answer is not None:
            done(answer)

    return start


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind all that begin with `prefix`, which does not end in 0xff."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def first_created(prefix: bytes) -> rpc_pb2.RangeRequest:
    """The oldest key with a prefix."""
    order, target = CREATE_ASCENDING
    return rpc_pb2.RangeRequest(
        key=prefix, range_end=prefix_end(prefix), limit=1, sort_order=order, sort_target=target
    )


def delete_created(key: bytes, create_revision: int) -> Operation:
    """Deletes a key only if it has that create revision; a TxnResponse."""
    request = rpc_pb2.TxnRequest()
    request.compare.add(target=rpc_pb2.Compare.CREATE, key=key, create_revision=create_revision)
    request.success.add(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))
    return txn(request)


# --- parts of recipes ----------------------------------------------------------------------------


def expect(answer: object, kind: type[M]) -> M:
    """Yields an operation and returns its answer; the operation decides the type."""
    assert isinstance(answer, kind), f"{type(answer)} instead of {kind}"
    return answer


def session(lease_id: int) -> Recipe[int]:
    """The lease to use: the one named, or a new one of a minute."""
    if lease_id:
        return lease_id
    answer = yield grant(SESSION_TTL_S)
    return expect(answer, rpc_pb2.LeaseGrantResponse).ID


def next_response(watch: LocalWatch) -> Recipe[rpc_pb2.WatchResponse]:
    """The next events of a watch; CompactedError when they are compacted."""
    response = expect((yield watch.next), rpc_pb2.WatchResponse)
    if response.canceled:
        if response.cancel_reason:
            raise errors.PermissionDeniedError
        raise errors.CompactedError if response.compact_revision else errors.WatchCanceledError
    return response


def wait_delete(driver: Driver, key: bytes, revision: int) -> Recipe[None]:
    """Waits until a key is deleted at or after a revision."""
    watch = LocalWatch(driver, key, b"", revision)
    try:
        while True:
            response = yield from next_response(watch)
            if any(event.type for event in response.events):
                return
    finally:
        watch.close()


def wait_deletes(driver: Driver, prefix: bytes, max_create_revision: int) -> Recipe[None]:
    """Waits until all keys with the prefix that were created up to a revision are deleted.

    Only the youngest of them is watched, so that one deletion wakes one waiter.
    """
    request = rpc_pb2.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=rpc_pb2.RangeRequest.DESCEND,
        sort_target=rpc_pb2.RangeRequest.CREATE,
        max_create_revision=max_create_revision,
    )
    while True:
        answer = expect((yield range_(request)), rpc_pb2.RangeResponse)
        if not answer.kvs:
            return
        yield from wait_delete(driver, answer.kvs[0].key, answer.header.revision)


def still_there(key: bytes, create_revision: int) -> Recipe[rpc_pb2.ResponseHeader | None]:
    """The header of a read that found the key with that create revision; None if it is gone.

    A waiter for other keys is not told when its own key is deleted.
    """
    own = rpc_pb2.RangeRequest(key=key)
    found = expect((yield range_(own)), rpc_pb2.RangeResponse)
    there = found.kvs and found.kvs[0].create_revision == create_revision
    return found.header if there else None


def with_header(message: Message, header: rpc_pb2.ResponseHeader) -> bytes:
    """An answer with the header of the operation that decided it."""
    return field(b"\x0a", header.SerializeToString()) + message.SerializeToString()
