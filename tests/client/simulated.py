"""A member in virtual time behind the client's connection interface: every call is a moment.

A `Hook` sees each call before the member does and after it has answered, and may do to the member
what others do meanwhile: revoke a lease, lose an answer, let somebody else go first.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from keyraft.client import Client, errors, prefix_end
from keyraft.client.endpoint import Endpoint
from keyraft.client.transport import CallFailed, EndpointConnection, Headers
from keyraft.grpc import Router, StreamHandler
from keyraft.proto import mvcc_pb2, rpc_pb2
from keyraft.server import RaftEngine
from keyraft.server.apply import internal_request
from keyraft.service import guard_of, register
from tests.server.harness import OneMember
from tests.service.calls import FakeCall, ask

Hook = Callable[[str, bytes], Awaitable[None]]
"""Called with the method's name and its request; may raise CallFailed in the member's place."""

STEP_S = 0.05  # of virtual time, in which one call is answered
STEPS_MAX = 200


async def nothing(method: str, request: bytes) -> None:
    """No hook."""


class SimulatedStream:
    """The client's end of a stream, and the transport of the member's."""

    cancelled = False
    deadline_s: float | None = None
    peer = "127.0.0.1:1"
    common_name: str | None = None
    writable = 1 << 20

    def __init__(self, server: SimulatedServer) -> None:
        self.metadata: dict[bytes, bytes] = {}
        self.on_cancel = None
        self.handler: StreamHandler | None = None
        self._server = server
        self._inbox: asyncio.Queue[bytes | CallFailed | None] = asyncio.Queue()
        self._holding = False
        self.held: list[bytes] = []  # sent by the member, and not yet here

    # the client's side

    async def send(self, message: bytes) -> None:
        assert self.handler is not None
        self.handler.on_message(message)
        self._server.step()

    async def receive(self) -> bytes | None:
        answer = await self._inbox.get()
        if isinstance(answer, CallFailed):
            raise answer
        return answer

    def half_close(self) -> None:
        pass

    def cancel(self) -> None:
        if self.handler is not None:
            handler, self.handler = self.handler, None
            handler.on_cancel(1)

    def hold(self) -> None:
        """What the member sends stays on the way."""
        self._holding = True

    def flow(self) -> None:
        """What was held arrives."""
        self._holding = False
        held, self.held = self.held, []
        for message in held:
            self.write(message)

    # the member's side

    def write(self, message: bytes) -> None:
        if self._holding:
            self.held.append(message)
        else:
            self._inbox.put_nowait(message)

    def send_framed(self, framed: bytes, count: int) -> None:
        while framed:
            stop = 5 + int.from_bytes(framed[1:5], "big")
            self.write(framed[5:stop])
            framed = framed[stop:]

    def send_shared(self, head: bytes, pieces: list[bytes]) -> None:
        self.write(head + b"".join(pieces))

    def finish(self, code: int = 0, text: str = "") -> None:
        self._inbox.put_nowait(CallFailed(code, text) if code else None)

    def drop(self, code: int, text: str) -> None:
        self.finish(code, text)

    def abort(self, code: int, text: str) -> None:
        self.finish(code, text)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Sink:
    """A stream as the member sees it: its `send` is the other direction's."""

    def __init__(self, stream: SimulatedStream) -> None:
        self._stream = stream

    def send(self, message: bytes) -> None:
        self._stream.write(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class SimulatedServer:
    """One member with the services that recipes need."""

    def __init__(self) -> None:
        self.one = OneMember()
        self.one.run(2.0)
        member, self.router = self.one.member, Router()
        engine = RaftEngine(member)
        register(self.router, engine, guard_of(engine, member.loop), random.Random(1))

    def step(self) -> None:
        """Lets virtual time pass, enough for what was asked."""
        self.one.run(STEP_S)

    def revoke(self, lease_id: int) -> None:
        """An operator ends a lease."""
        request = rpc_pb2.LeaseRevokeRequest(ID=lease_id)
        self.one.propose(internal_request.KIND_LEASE_REVOKE, request.SerializeToString())
        self.step()

    def delete(self, key: bytes) -> None:
        """Somebody deletes a key."""
        request = rpc_pb2.DeleteRangeRequest(key=key)
        self.one.propose(internal_request.KIND_DELETE_RANGE, request.SerializeToString())
        self.step()

    def begin(self, method: str, request: bytes) -> FakeCall:
        """A call as it comes to the member, with its answer when there is one at once."""
        route = self.router.find(method.encode())
        assert route is not None and route.handle is not None, method
        return ask(route.handle, request)

    def keys(self, prefix: bytes) -> list[mvcc_pb2.KeyValue]:
        """The pairs with a prefix, the oldest first."""
        request = rpc_pb2.RangeRequest(key=prefix, range_end=prefix_end(prefix))
        answer = self.one.member.store.range(request.SerializeToString())
        found = rpc_pb2.RangeResponse.FromString(answer)
        return sorted(found.kvs, key=lambda kv: kv.create_revision)


class SimulatedConnection:
    """A client's connection to the member (transport.Connection), with a hook at each side."""

    alive = True
    gone = False
    reason = ""

    def __init__(self, server: SimulatedServer) -> None:
        self.server = server
        self.before: Hook = nothing
        self.after: Hook = nothing
        self.streams: list[SimulatedStream] = []
        self._closed = asyncio.Event()

    def client(self, **options: Any) -> Client:
        """A client that has this connection and no other."""

        async def dial(endpoint: Endpoint) -> EndpointConnection:
            return self

        return Client("simulated:1", dial=dial, **options)

    async def unary(
        self, method: bytes, request: bytes, headers: Headers, timeout_s: float | None
    ) -> bytes:
        name = method.decode()
        await self.before(name, request)
        call = self.server.begin(name, request)
        for _ in range(STEPS_MAX):
            if call.answer is not None:
                break
            self.server.step()
            await asyncio.sleep(0)
        await self.after(name, request)
        if isinstance(call.answer, bytes):
            return call.answer
        code, text = call.answer or (errors.DEADLINE_EXCEEDED, "context deadline exceeded")
        raise CallFailed(code, text)

    def stream(self, method: bytes, headers: Headers) -> SimulatedStream:
        route = self.server.router.find(method)
        assert route is not None and route.open is not None, method
        made = SimulatedStream(self.server)
        made.handler = route.open(Sink(made))
        self.streams.append(made)
        return made

    async def wait_closed(self) -> None:
        await self._closed.wait()

    async def close(self) -> None:
        self._closed.set()
