"""The client without coroutines, for scripts and threads.

    with Client("127.0.0.1:2379") as client:
        client.put("greeting", "hello")
        with client.watch("greeting") as watch:
            for event in watch: ...

An event loop in a thread of its own does the work. Calls wait for it, and any thread may call.
Arguments, answers and errors are those of `keyraft.client`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from keyraft.client import auth, client, cluster, kv, lease, maintenance, txn, watch
from keyraft.client.requests import Bytes
from keyraft.proto.lazy import mvcc_pb2, rpc_pb2

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

STOP_S: Final = 10.0  # how long closing waits for the loop's thread


class Portal:
    """The event loop in its thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """The result of `work`; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Ends the loop and its thread."""
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S)
        self._loop.close()


def discover(domain: str, name: str = "", *, insecure: bool = False) -> list[str]:
    """The endpoints that DNS names; see `keyraft.client.discover`."""
    from keyraft.client.discovery import discover_blocking  # few programs ask DNS

    return discover_blocking(domain, name, insecure=insecure)


class Face:
    """A blocking object in front of an asynchronous one."""

    def __init__(self, portal: Portal, target: Any) -> None:
        self._portal = portal
        self._target = target


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Any, P], R]:
    """The method of a `Face` that waits for `method` of its target."""

    def call(self: Face, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._portal.run(method(self._target, *args, **kwargs))

    call.__name__ = method.__name__
    call.__doc__ = method.__doc__
    return call


def _iterating(
    method: Callable[Concatenate[Any, P], AsyncIterator[T]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """The method of a `Face` that iterates over what `method` of its target gives."""

    def call(self: Face, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        source = method(self._target, *args, **kwargs)

        async def step() -> tuple[bool, T | None]:
            async for item in source:
                return True, item
            return False, None

        while True:
            more, item = self._portal.run(step())
            if not more:
                return
            yield item  # type: ignore[misc]  # there is one when there is more

    call.__name__ = method.__name__
    call.__doc__ = method.__doc__
    return call


class Watch(Face):
    """A watch to be used with `with` and `for`."""

    _target: watch.Watch

    responses = _iterating(watch.Watch.responses)
    request_progress = _blocking(watch.Watch.request_progress)

    def __iter__(self) -> Iterator[mvcc_pb2.Event]:
        for response in self.responses():
            yield from response.events

    def cancel(self) -> None:
        """Ends the watch; a `for` over it in another thread ends, too."""

        async def cancel() -> None:
            self._target.cancel()

        self._portal.run(cancel())

    def __enter__(self) -> Watch:
        self._portal.run(self._target.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()


class Lease(Face):
    """A lease that is kept alive until the end of `with`, which revokes it."""

    _target: lease.Lease

    revoke = _blocking(lease.Lease.revoke)
    wait_lost = _blocking(lease.Lease.wait_lost)

    @property
    def id(self) -> int:
        """The lease's id."""
        return self._target.id

    @property
    def lost(self) -> bool:
        """The lease expired or was revoked by somebody."""
        return self._target.lost

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.revoke()


class Leases(Face):
    """The lease calls."""

    _target: lease.Leases

    grant = _blocking(lease.Leases.grant)
    revoke = _blocking(lease.Leases.revoke)
    time_to_live = _blocking(lease.Leases.time_to_live)
    list = _blocking(lease.Leases.list)
    keep_alive_once = _blocking(lease.Leases.keep_alive_once)

    def open(self, ttl_s: int, lease_id: int = 0) -> Lease:
        """Makes a lease and keeps it alive until it is revoked or the client closes."""
        return Lease(self._portal, self._portal.run(self._target.open(ttl_s, lease_id)))


class Cluster(Face):
    """The cluster calls."""

    members = _blocking(cluster.Cluster.members)
    add = _blocking(cluster.Cluster.add)
    remove = _blocking(cluster.Cluster.remove)
    update = _blocking(cluster.Cluster.update)
    promote = _blocking(cluster.Cluster.promote)


class Maintenance(Face):
    """The maintenance calls."""

    status = _blocking(maintenance.Maintenance.status)
    alarms = _blocking(maintenance.Maintenance.alarms)
    disarm = _blocking(maintenance.Maintenance.disarm)
    defragment = _blocking(maintenance.Maintenance.defragment)
    hash = _blocking(maintenance.Maintenance.hash)
    hash_kv = _blocking(maintenance.Maintenance.hash_kv)
    move_leader = _blocking(maintenance.Maintenance.move_leader)
    downgrade = _blocking(maintenance.Maintenance.downgrade)
    snapshot = _iterating(maintenance.Maintenance.snapshot)


class Auth(Face):
    """The authentication calls."""

    authenticate = _blocking(auth.Auth.authenticate)
    enable = _blocking(auth.Auth.enable)
    disable = _blocking(auth.Auth.disable)
    status = _blocking(auth.Auth.status)
    user_add = _blocking(auth.Auth.user_add)
    user_delete = _blocking(auth.Auth.user_delete)
    user_change_password = _blocking(auth.Auth.user_change_password)
    user_get = _blocking(auth.Auth.user_get)
    users = _blocking(auth.Auth.users)
    user_grant_role = _blocking(auth.Auth.user_grant_role)
    user_revoke_role = _blocking(auth.Auth.user_revoke_role)
    role_add = _blocking(auth.Auth.role_add)
    role_delete = _blocking(auth.Auth.role_delete)
    role_get = _blocking(auth.Auth.role_get)
    roles = _blocking(auth.Auth.roles)
    role_grant = _blocking(auth.Auth.role_grant)
    role_revoke = _blocking(auth.Auth.role_revoke)


class Txn:
    """A transaction under construction (see `client.txn`)."""

    def __init__(self, portal: Portal, inner: txn.Txn) -> None:
        self._portal = portal
        self._inner = inner

    def when(self, *comparisons: txn.Comparison) -> Txn:
        """Adds comparisons, all of which must hold."""
        self._inner.when(*comparisons)
        return self

    def then(self, *operations: txn.Operation) -> Txn:
        """Adds what is done when they hold."""
        self._inner.then(*operations)
        return self

    def otherwise(self, *operations: txn.Operation) -> Txn:
        """Adds what is done when one does not."""
        self._inner.otherwise(*operations)
        return self

    def commit(self, timeout_s: float | None = None) -> rpc_pb2.TxnResponse:
        """Carries it out."""
        return self._portal.run(self._inner.commit(timeout_s))


class Space(Face):
    """Keys, watches and leases under one prefix."""

    _target: client.Space

    get = _blocking(kv.KV.get)
    range = _blocking(kv.KV.range)
    value = _blocking(kv.KV.value)
    scan = _iterating(kv.KV.scan)
    get_stream = _iterating(kv.KV.get_stream)
    put = _blocking(kv.KV.put)
    delete = _blocking(kv.KV.delete)
    commit = _blocking(kv.KV.commit)
    compact = _blocking(kv.KV.compact)

    @property
    def leases(self) -> Leases:
        """The lease calls."""
        return Leases(self._portal, self._target.leases)

    def txn(self) -> Txn:
        """Begins a transaction."""
        return Txn(self._portal, self._target.txn())

    def namespace(self, prefix: Bytes) -> Space:
        """The keys below `prefix`, seen without it."""
        return Space(self._portal, self._target.namespace(prefix))

    def watch(self, key: Bytes, range_end: Bytes | None = None, **options: Any) -> Watch:
        """A watch; the options are those of the asynchronous client's."""
        return Watch(self._portal, self._target.watch(key, range_end, **options))

    def run(self, work: Callable[[client.Space], Coroutine[Any, Any, R]]) -> R:
        """Runs a coroutine function with the asynchronous client, for recipes."""
        return self._portal.run(work(self._target))


class Client(Space):
    """A client of one cluster; the arguments are those of `keyraft.client.Client`."""

    _target: client.Client

    def __init__(self, *endpoint: str, **options: Any) -> None:
        portal = Portal()
        try:
            made = client.Client(*endpoint, **options)
        except BaseException:
            portal.close()
            raise
        super().__init__(portal, made)
        self.cluster = Cluster(portal, made.cluster)
        self.maintenance = Maintenance(portal, made.maintenance)
        self.auth = Auth(portal, made.auth)

    connect = _blocking(client.Client.connect)
    sync_endpoints = _blocking(client.Client.sync_endpoints)

    def close(self) -> None:
        """Closes the client and ends its thread."""
        self._portal.run(self._target.close())
        self._portal.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
