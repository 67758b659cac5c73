"""A client of a server that does what no server should: what breaks is told, nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from keyraft.client import Client, errors
from keyraft.client.dial import Dialer
from keyraft.client.endpoint import Endpoint
from keyraft.client.transport import CallFailed, EndpointConnection, Headers
from keyraft.grpc import ClientConnection
from keyraft.grpc.http2 import frames
from keyraft.proto import rpc_pb2


class ScriptedStream:
    """A stream whose answers come from a script."""

    def __init__(self, answers: list[bytes | CallFailed]) -> None:
        self._answers = answers
        self.sent: list[bytes] = []

    async def send(self, message: bytes) -> None:
        self.sent.append(message)

    async def receive(self) -> bytes | None:
        if not self._answers:
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if isinstance(answer, CallFailed):
            raise answer
        return answer

    def half_close(self) -> None:
        pass

    def cancel(self) -> None:
        pass


class Scripted:
    """A connection that answers from scripts and remembers what was asked."""

    def __init__(
        self,
        unary: Callable[[bytes], bytes | CallFailed] | None = None,
        streams: list[list[bytes | CallFailed]] | None = None,
    ) -> None:
        self._unary = unary
        self._streams = streams or []
        self.opened: list[ScriptedStream] = []
        self.asked: list[bytes] = []
        self._closed = asyncio.Event()

    alive = True
    gone = False
    reason = ""

    async def unary(
        self, method: bytes, request: bytes, headers: Headers, timeout_s: float | None
    ) -> bytes:
        assert self._unary is not None
        self.asked.append(method)
        answer = self._unary(method)
        if isinstance(answer, CallFailed):
            raise answer
        return answer

    def stream(self, method: bytes, headers: Headers) -> ScriptedStream:
        made = ScriptedStream(self._streams.pop(0) if self._streams else [])
        self.opened.append(made)
        return made

    async def wait_closed(self) -> None:
        await self._closed.wait()

    async def close(self) -> None:
        self._closed.set()


def client_of(made: Scripted) -> Client:
    async def dial(endpoint: Endpoint) -> EndpointConnection:
        return made

    return Client("scripted:1", dial=dial, timeout_s=5)


def answer(**fields: object) -> bytes:
    return rpc_pb2.WatchResponse(**fields).SerializeToString()  # type: ignore[arg-type]


def test_an_answer_that_is_no_message_ends_the_watch() -> None:
    async def work() -> None:
        made = Scripted(streams=[[answer(created=True), b"\xff\xff"]])
        async with client_of(made) as client, client.watch("k") as watch:
            with pytest.raises(Exception, match="parsing"):
                await anext(watch)

    asyncio.run(asyncio.wait_for(work(), 10))


def test_a_lease_whose_renewal_is_no_message_counts_as_lost() -> None:
    async def work() -> None:
        made = Scripted(streams=[[b"\xff\xff"]])
        async with client_of(made) as client:
            await client.leases.keep_alive(7).wait_lost()

    asyncio.run(asyncio.wait_for(work(), 10))


def test_fragments_are_put_together_and_old_events_dropped() -> None:
    def event(revision: int) -> dict[str, object]:
        return {"kv": {"key": b"k", "mod_revision": revision}}

    async def work() -> None:
        script: list[bytes | CallFailed] = [
            answer(created=True, header={"revision": 4}),
            answer(events=[event(5)], fragment=True),
            answer(events=[event(5)]),
            answer(events=[event(5), event(6)]),
            answer(watch_id=99, events=[event(7)]),
            answer(events=[event(7)], fragment=True),
            CallFailed(14, "cut"),
        ]
        again: list[bytes | CallFailed] = [
            answer(created=True, watch_id=3),
            answer(watch_id=3, events=[event(7), event(7)]),
        ]
        made = Scripted(streams=[script, again])
        async with client_of(made) as client, client.watch("k") as watch:
            sizes: list[int] = []
            while sum(sizes) < 5:
                response = await watch.next_response()
                assert response is not None
                sizes.append(len(response.events))
            assert sizes == [2, 1, 2]
            assert watch.next_revision == 8
        created = rpc_pb2.WatchRequest.FromString(made.opened[1].sent[0]).create_request
        assert created.start_revision == 7, "a change of which a part had come is told whole"

    asyncio.run(asyncio.wait_for(work(), 10))


def test_reads_are_repeated_and_writes_are_not() -> None:
    async def work() -> None:
        failures = [CallFailed(14, "cut"), CallFailed(14, "etcdserver: leader changed")]

        def unary(method: bytes) -> bytes | CallFailed:
            return failures.pop() if failures else b""

        made = Scripted(unary)
        async with client_of(made) as client:
            await client.get("k")
            assert len(made.asked) == 3
            failures.append(CallFailed(14, "cut"))
            with pytest.raises(errors.UnavailableError):
                await client.put("k", "v")
            failures.append(CallFailed(14, "refused", sent=False))
            await client.put("k", "v")
            assert len(made.asked) == 6
            failures.append(CallFailed(8, "etcdserver: mvcc: database space exceeded"))
            with pytest.raises(errors.NoSpaceError):
                await client.get("k")

    asyncio.run(asyncio.wait_for(work(), 10))


def test_a_learner_among_the_endpoints_is_passed_over() -> None:
    """Reads and writes alike; alone, its refusal is told (etcd `client/v3/retry_interceptor.go`)."""

    async def work() -> None:
        refusal = CallFailed(9, "etcdserver: rpc not supported for learner")
        put = rpc_pb2.PutResponse().SerializeToString()
        learner, voter = Scripted(lambda method: refusal), Scripted(lambda method: put)

        async def dial(endpoint: Endpoint) -> EndpointConnection:
            return learner if endpoint.text == "learner:1" else voter

        async with Client("learner:1", "voter:1", dial=dial) as client:
            for _ in range(6):
                await client.put("a", "b")
            assert len(learner.asked) >= 3 and len(voter.asked) == 6
        async with client_of(Scripted(lambda method: refusal)) as client:
            with pytest.raises(errors.LearnerNotSupportedError):
                await client.put("a", "b")

    asyncio.run(asyncio.wait_for(work(), 10))


def test_whoever_has_no_token_tries_again_when_the_users_have_changed() -> None:
    """A certificate names the user: there is nothing to renew (etcd, `refreshToken`)."""

    async def work() -> None:
        answers = [CallFailed(3, "etcdserver: revision of auth store is old") for _ in range(5)]
        made = Scripted(
            lambda method: answers.pop() if answers else rpc_pb2.PutResponse().SerializeToString()
        )
        async with client_of(made) as client:
            await client.put("a", "b")
        assert made.asked == [b"/etcdserverpb.KV/Put"] * 6
        made = Scripted(lambda method: CallFailed(16, "etcdserver: invalid auth token"))
        async with client_of(made) as client:
            with pytest.raises(errors.InvalidAuthTokenError):
                await client.put("a", "b")

    asyncio.run(asyncio.wait_for(work(), 10))


def test_a_token_is_fetched_again_when_it_has_run_out() -> None:
    async def work() -> None:
        known = ["old"]

        def unary(method: bytes) -> bytes | CallFailed:
            if known[-1] == "old":
                return CallFailed(16, "etcdserver: invalid auth token")
            return b""

        tokens = iter(["old", "new"])

        async def fetch() -> str:
            known.append(next(tokens))
            return known[-1]

        made = Scripted(unary)

        async def dial(endpoint: Endpoint) -> EndpointConnection:
            return made

        async with Client("scripted:1", dial=dial, token=fetch, timeout_s=5) as client:
            await client.put("k", "v")
        assert known == ["old", "old", "new"]

    asyncio.run(asyncio.wait_for(work(), 10))


def test_a_server_may_measure_the_path_with_thousands_of_pings() -> None:
    """gRPC-Go pings for every turn of answers, as fast as a client can ask."""
    limits = Dialer().limits
    connection = ClientConnection(limits, 0.0, authority="a")
    connection.receive(frames.settings([]), 0.0)
    for number in range(20_000):
        connection.receive(frames.ping(number.to_bytes(8, "big")), number / 20_000)
        connection.take_output()
    assert not connection.closed
