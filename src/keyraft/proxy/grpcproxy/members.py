"""The proxies as members: each registers itself under a prefix, and the member list names them.

A proxy's key is PREFIX/ADDRESS, held by a lease that the proxy keeps alive; its value is JSON, as
etcd's own naming library writes it:

    {"Op":0,"Addr":"127.0.0.1:23790","Metadata":"{\\"name\\":\\"host\\"}"}

MemberList answers: with an advertised address and a prefix, the proxies that are registered; with an
address only (or nobody registered yet), this proxy; without an address, the cluster's members.

Source: etcd `server/proxy/grpcproxy/{register,cluster}.go`, `client/v3/naming/endpoints`.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Final

from keyraft.base.log import Logger
from keyraft.client import PUT, Event, Lease, Space, errors
from keyraft.grpc import Router, UnaryCall
from keyraft.proto import rpc_pb2
from keyraft.proxy.grpcproxy.upstream import Upstream

RETRY_S: Final = 1.0
PROXIES_MAX: Final = 10_000  # that are remembered
_ADD: Final = 0


def registration(address: str, name: str) -> bytes:
    """The value of a proxy's key."""
    metadata = json.dumps({"name": name}, separators=(",", ":"))
    value = {"Op": _ADD, "Addr": address, "Metadata": metadata}
    return json.dumps(value, separators=(",", ":")).encode()


def parse_registration(value: bytes) -> tuple[str, str] | None:
    """(address, name) of a registered proxy; None if that is no registration."""
    try:
        found = json.loads(value)
        name = json.loads(found["Metadata"])["name"]
        address = found["Addr"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(address, str) or not isinstance(name, str):
        return None
    return address, name


class ProxyMembers:
    """Registered on a router. Owns its tasks."""

    def __init__(
        self, upstream: Upstream, space: Space, address: str, prefix: str, ttl_s: int, log: Logger
    ) -> None:
        self._upstream = upstream
        self._space = space
        self._address = address
        self._prefix = prefix
        self._ttl_s = ttl_s
        self._log = log
        self._name = socket.gethostname()
        self._proxies: dict[bytes, tuple[str, str]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def register(self, router: Router) -> None:
        """Makes the member list callable."""
        router.unary("/etcdserverpb.Cluster/MemberList", self.list)

    def list(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberListRequest -> MemberListResponse.

        DEVIATION: that of proxies has an empty header, where the original's has none: etcdctl
        crashes on it in two of its forms.
        """
        if not self._address:
            self._upstream.ask(call, b"/etcdserverpb.Cluster/MemberList", request, safe=True)
            return None
        answer = rpc_pb2.MemberListResponse(header={})
        found = [self._proxies[key] for key in sorted(self._proxies)]
        for address, name in found or [(self._address, self._name)]:
            answer.members.add(name=name, clientURLs=[address])
        return answer.SerializeToString()

    def start(self) -> None:
        """Registers, and watches who else is registered."""
        if self._prefix:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._keep_registered())]
            if self._address:
                self._tasks.append(loop.create_task(self._follow()))

    async def stop(self) -> None:
        """Ends both; the registration is taken back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_registered(self) -> None:
        while True:
            try:
                async with await self._space.leases.open(self._ttl_s) as lease:
                    await self._put(lease)
                    await lease.wait_lost()
                self._log.warn("session expired; possible network partition or server restart")
                self._log.warn("creating a new session to rejoin")
            except errors.EtcdError as error:
                self._log.warn("failed to create a session", error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _put(self, lease: Lease) -> None:
        key = f"{self._prefix}/{self._address}"
        await self._space.put(key, registration(self._address, self._name), lease=lease.id)
        self._log.info("registered session with lease", addr=self._address, lease_ttl=self._ttl_s)

    async def _follow(self) -> None:
        # Only what is below PREFIX/: another prefix may begin with the same letters.
        prefix = f"{self._prefix}/"
        while True:
            try:
                answer = await self._space.get(prefix, prefix=True)
                self._proxies.clear()
                for kv in answer.kvs:
                    self._take(kv.key, kv.value)
                async with self._space.watch(
                    prefix, prefix=True, start_revision=answer.header.revision + 1
                ) as watch:
                    async for event in watch:
                        self._hear(event)
            except errors.EtcdError as error:
                self._log.warn(
                    "failed to establish endpoint watch", prefix=self._prefix, error=str(error)
                )
            await asyncio.sleep(RETRY_S)

    def _hear(self, event: Event) -> None:
        if event.type == PUT:
            self._take(event.kv.key, event.kv.value)
        else:
            self._proxies.pop(event.kv.key, None)

    def _take(self, key: bytes, value: bytes) -> None:
        found = parse_registration(value)
        if found is not None and len(self._proxies) < PROXIES_MAX:
            self._proxies[key] = found
