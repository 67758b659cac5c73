"""Lock: the mutex recipe. Whoever's key under `name/` is oldest holds the lock.

A waiter watches only the key created just before its own. Its key is attached to its lease, so the
lock of a dead client is released (etcd `client/v3/concurrency/mutex.go`, `api/v3lock/lock.go`).
"""

from __future__ import annotations

from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import Router, UnaryCall, status
from keyraft.proto import lock_pb2, rpc_pb2
from keyraft.service.recipe import (
    Driver,
    Gone,
    Means,
    Recipe,
    delete,
    delete_created,
    expect,
    first_created,
    session,
    still_there,
    txn,
    wait_deletes,
    with_header,
)

SESSION_EXPIRED = "mutex: session is expired"


class LockService:
    """Registered on a router."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._guard = means.guard

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.unary("/v3lockpb.Lock/Lock", self.lock)
        router.unary("/v3lockpb.Lock/Unlock", self.unlock)

    def lock(self, call: UnaryCall, request: bytes) -> bytes | None:
        """LockRequest -> LockResponse, once the lock is held."""
        message = parse(lock_pb2.LockRequest, request)
        self._guard.admit(call)
        driver = Driver(self._means, call)
        start(driver, lock(driver, message), call)
        return None

    def unlock(self, call: UnaryCall, request: bytes) -> bytes | None:
        """UnlockRequest -> UnlockResponse; also for a lock that nobody holds."""
        message = parse(lock_pb2.UnlockRequest, request)
        self._guard.admit(call)
        driver = Driver(self._means, call)
        start(driver, _unlock(message.key), call)
        return None


def start(driver: Driver, recipe: Recipe[bytes], call: UnaryCall) -> None:
    """Runs a recipe whose result is the answer to a call."""

    def done(value: bytes | RawError) -> None:
        call.on_cancel = None
        if isinstance(value, RawError):
            call.fail(value.code, value.text)
        else:
            call.respond(value)

    call.on_cancel = lambda _, code: driver.cancel(code)
    driver.run(recipe, done)


def lock(driver: Driver, request: lock_pb2.LockRequest) -> Recipe[bytes]:
    """The mutex; answers an encoded LockResponse."""
    lease_id = yield from session(request.lease)
    prefix = request.name + b"/"
    key = prefix + f"{lease_id:x}".encode()
    own = rpc_pb2.RangeRequest(key=key)
    acquire = rpc_pb2.TxnRequest()
    acquire.compare.add(target=rpc_pb2.Compare.CREATE, key=key, create_revision=0)
    acquire.success.add(request_put=rpc_pb2.PutRequest(key=key, lease=lease_id))
    acquire.success.add(request_range=first_created(prefix))
    acquire.failure.add(request_range=own)
    acquire.failure.add(request_range=first_created(prefix))
    taken = expect((yield txn(acquire)), rpc_pb2.TxnResponse)
    header = taken.header
    revision = header.revision
    if not taken.succeeded:
        revision = taken.responses[0].response_range.kvs[0].create_revision
    owner = taken.responses[1].response_range.kvs
    if owner and owner[0].create_revision != revision:
        try:
            yield from wait_deletes(driver, prefix, revision - 1)
            found = yield from still_there(key, revision)
        except (Gone, EtcdError, RawError):
            # DEVIATION: the original deletes by name, and so may delete a later key of the same
            # lease.
            yield delete_created(key, revision)
            raise
        if found is None:
            raise RawError(status.UNKNOWN, SESSION_EXPIRED)
        header = found
    return with_header(lock_pb2.LockResponse(key=key), header)


def _unlock(key: bytes) -> Recipe[bytes]:
    answer = expect((yield delete(key)), rpc_pb2.DeleteRangeResponse)
    return with_header(lock_pb2.UnlockResponse(), answer.header)
