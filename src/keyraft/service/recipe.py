"""Recipes: what takes a client several requests, carried out inside the member.

Lock and Election are etcd's client recipes run by the server. A recipe here is a generator that
yields one operation at a time (a request through the log, a linearizable range, the next events of
a watch) and is given its answer, or has its refusal thrown in. No task is involved: the driver
resumes it from the callbacks of the member.

A client that goes away has `Gone` thrown into its recipe at the next step, which may yet yield
operations to clean up; what it was about to propose is withdrawn if Raft has not had it. Every refusal reaches the client as Unknown with etcd's text, because the
original answers through a client of its own that strips the code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Final, TypeVar

from google.protobuf.message import Message

from keyraft.auth import NOBODY, Identity
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.waiters import DoneWaiter, Result
from keyraft.grpc import CallContext, status
from keyraft.mvcc import WatchStream, check_delete_range, check_range
from keyraft.mvcc.wire import field
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from keyraft.service.guard import Guard

SESSION_TTL_S: Final = 60  # of the lease that a session without one is given
QUEUED_RESPONSES_MAX: Final = 16  # that a local watch holds; the rest stays in the store
CREATE_ASCENDING: Final = (rpc_pb2.RangeRequest.ASCEND, rpc_pb2.RangeRequest.CREATE)
_LEASE_ID_MASK: Final = (1 << 63) - 1

M = TypeVar("M", bound=Message)
T = TypeVar("T")
Resume = Callable[[object], None]
"""Gives an operation's answer, or its refusal, back to the recipe. Called once."""

Operation = Callable[["Driver", Resume], None]
"""Something that a recipe yields; starts the work."""

Recipe = Generator[Operation, object, T]


class Gone(Exception):
    """The client no longer wants the outcome."""


class LocalWatch:
    """A watch inside the member: responses in a short queue, the next one to whoever asks."""

    def __init__(self, member: Member, key: bytes, range_end: bytes, start_revision: int) -> None:
        self._queue: deque[rpc_pb2.WatchResponse] = deque()
        self._resume: Resume | None = None
        self._full = False
        self._watches = WatchStream(member.watches, self)
        self._watches.create(key, range_end, start_revision)

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
    """Runs one recipe for one caller; `done` gets its value, or the refusal to tell."""

    def __init__(self, member: Member, guard: Guard, call: CallContext) -> None:
        """Raises what keeps the caller from asking at all."""
        self.member = member
        self._guard = guard
        self._call = call
        self.caller()
        self._recipe: Recipe[object] | None = None
        self._done: Callable[[object | RawError], None] | None = None
        self._gone = False
        self._gone_code = status.CANCELLED
        self._interruptible = False
        self.proposal: DoneWaiter | None = None  # what the recipe waits for, if it is one
        self._running = False
        self._step = 0  # answers to any other step come too late
        self._answer: list[object] = []  # one that came while the operation was being started

    def caller(self) -> Identity | None:
        """Who asks, as of now: users may change while a recipe waits.

        Like every other refusal here, that of a bad token has lost its code on the way.
        """
        try:
            return self._guard.identify(self._call)
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
        """The client has gone: `Gone` is thrown in now if the recipe waits for a watch or for a
        proposal that can be withdrawn, else at its next step, so that it has heard what became of
        this one."""
        self._gone_code = code
        if self._interruptible or (
            self.proposal is not None and self.member.withdraw(self.proposal)
        ):
            self._resume(self._step, Gone())
        else:
            self._gone = True

    def _resume(self, step: int, answer: object) -> None:
        """Gives an answer to the recipe and starts what it yields next, until something waits."""
        if step != self._step or self._recipe is None:
            return
        self.proposal = None
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
        """The recipe's next operation; None when it has come to an end."""
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


def propose(kind: int, request: Message, answer: type[Message]) -> Operation:
    """A request through the log, with the caller's permissions."""

    def start(driver: Driver, resume: Resume) -> None:
        def done(result: Result) -> None:
            resume(answer.FromString(result) if isinstance(result, bytes) else result)

        member, identity = driver.member, driver.caller()
        data = request.SerializeToString()
        name, revision = (b"", 0) if identity is None else (identity.username, identity.revision)
        driver.proposal = member.propose(kind, data, done, name, revision)

    return start


def txn(request: rpc_pb2.TxnRequest) -> Operation:
    """A transaction; answered by a TxnResponse."""
    return propose(internal_request.KIND_TXN, request, rpc_pb2.TxnResponse)


def delete(key: bytes) -> Operation:
    """Deletes one key; answered by a DeleteRangeResponse."""
    request = rpc_pb2.DeleteRangeRequest(key=key)

    def start(driver: Driver, resume: Resume) -> None:
        check_delete_range(request)
        propose(internal_request.KIND_DELETE_RANGE, request, rpc_pb2.DeleteRangeResponse)(
            driver, resume
        )

    return start


def range_(request: rpc_pb2.RangeRequest) -> Operation:
    """A linearizable range; answered by a RangeResponse."""

    def start(driver: Driver, resume: Resume) -> None:
        member = driver.member
        check_range(request)

        def ready(error: EtcdError | None) -> None:
            if error is not None:
                resume(error)
                return
            try:
                if member.auth.enabled:
                    identity = driver.caller() or NOBODY
                    member.auth.check_range(identity, request.key, request.range_end)
            except (EtcdError, RawError) as refusal:
                resume(refusal)
                return
            header = member.header(member.store.revision)
            work = member.store.range_steps(request)

            def step() -> bool:
                try:
                    next(work)
                except StopIteration as end:
                    resume(rpc_pb2.RangeResponse.FromString(header + end.value))
                except (EtcdError, RawError) as refusal:
                    resume(refusal)
                else:
                    return False
                return True

            if not step():
                member.slices.add(step)

        member.read_index(ready)

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
    """Deletes a key as it was created then, and no later one of its name; a TxnResponse."""
    request = rpc_pb2.TxnRequest()
    request.compare.add(target=rpc_pb2.Compare.CREATE, key=key, create_revision=create_revision)
    request.success.add(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))
    return txn(request)


# --- parts of recipes ----------------------------------------------------------------------------


def expect(answer: object, kind: type[M]) -> M:
    """An operation's answer, whose kind the operation decides."""
    assert isinstance(answer, kind), f"{type(answer)} instead of {kind}"
    return answer


def session(member: Member, lease_id: int) -> Recipe[int]:
    """The lease to use: the one named, or a new one of a minute."""
    if lease_id:
        return lease_id
    while not lease_id:
        lease_id = member.next_id() & _LEASE_ID_MASK
    request = rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=SESSION_TTL_S)
    answer = yield propose(internal_request.KIND_LEASE_GRANT, request, rpc_pb2.LeaseGrantResponse)
    return expect(answer, rpc_pb2.LeaseGrantResponse).ID


def next_response(watch: LocalWatch) -> Recipe[rpc_pb2.WatchResponse]:
    """The next events of a watch; CompactedError when they are gone."""
    response = expect((yield watch.next), rpc_pb2.WatchResponse)
    if response.canceled:
        raise errors.CompactedError if response.compact_revision else errors.WatchCanceledError
    return response


def may_watch(driver: Driver, key: bytes, range_end: bytes) -> None:
    """Raises what keeps the caller from watching."""
    auth = driver.member.auth
    if auth.enabled:
        auth.check_range(driver.caller() or NOBODY, key, range_end)


def wait_delete(driver: Driver, key: bytes, revision: int) -> Recipe[None]:
    """Waits until a key is deleted at or after a revision."""
    may_watch(driver, key, b"")
    watch = LocalWatch(driver.member, key, b"", revision)
    try:
        while True:
            response = yield from next_response(watch)
            if any(event.type for event in response.events):
                return
    finally:
        watch.close()


def wait_deletes(driver: Driver, prefix: bytes, max_create_revision: int) -> Recipe[None]:
    """Waits until no key with the prefix is left that was created up to a revision.

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
    """The header of a read that found the key as it was created then; None when it is gone.

    Who waits for others' keys hears nothing of the end of its own.
    """
    own = rpc_pb2.RangeRequest(key=key)
    found = expect((yield range_(own)), rpc_pb2.RangeResponse)
    there = found.kvs and found.kvs[0].create_revision == create_revision
    return found.header if there else None


def with_header(message: Message, header: rpc_pb2.ResponseHeader) -> bytes:
    """An answer with the header of the operation that decided it."""
    return field(b"\x0a", header.SerializeToString()) + message.SerializeToString()
