"""Who is accepted, who is refused, and that neither ends or starves anything."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from keyraft.grpc import Router, RpcError, status
from keyraft.net import Acceptor, Channel, Places, serve
from keyraft.net.accepting import ACCEPTS_PER_TURN

from .certificates import make_authority, serving_tls


def echoing() -> Router:
    router = Router()
    router.unary("/t.T/Echo", lambda call, request: request)
    return router


def run(body: Callable[[], Awaitable[None]], loop: str) -> None:
    async def main() -> None:
        await asyncio.wait_for(body(), 20)

    if loop == "uvloop":
        uvloop.run(main())
    else:
        asyncio.run(main())


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_connection_too_many_is_closed_and_its_place_is_given_back(loop: str) -> None:
    said: list[str] = []

    async def body() -> None:
        places = Places(2, said.append)
        server = await serve(["http://127.0.0.1:0"], echoing(), places=places)
        channels = [Channel(f"http://{server.addresses[0]}") for _ in range(5)]
        for channel in channels[:2]:
            assert await channel.unary(b"/t.T/Echo", b"x") == b"x"
        for channel in channels[2:4]:
            with pytest.raises(RpcError) as caught:
                await channel.unary(b"/t.T/Echo", b"x")
            assert caught.value.code == status.UNAVAILABLE
        assert (places.taken, places.refused) == (2, 2)
        assert said == ["2 connections are open"]  # once, however many
        assert await channels[0].unary(b"/t.T/Echo", b"x") == b"x"
        await channels[0].close()
        while places.taken == 2:
            await asyncio.sleep(0)
        assert await channels[4].unary(b"/t.T/Echo", b"x") == b"x"
        await server.stop()
        for channel in channels:
            await channel.close()
        while places.taken:
            await asyncio.sleep(0)

    run(body, loop)


def test_a_connection_that_never_speaks_tls_holds_its_place_only_while_it_is_open(
    tmp_path: Path,
) -> None:
    made = make_authority(tmp_path)

    async def body() -> None:
        places = Places(1)
        server = await serve(
            ["https://127.0.0.1:0"],
            echoing(),
            tls=serving_tls(made),
            places=places,
        )
        host, port = server.addresses[0].split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        while not places.taken:
            await asyncio.sleep(0)
        reader, second = await asyncio.open_connection(host, int(port))
        assert await reader.read() == b""  # counted from the accept on, not from the handshake
        writer.close()
        second.close()
        while places.taken:
            await asyncio.sleep(0)
        await server.stop()

    run(body, "uvloop")


class FakeListening:
    """A listening socket whose `_accept` does what the test says."""

    family, type = socket.AF_INET, socket.SOCK_STREAM

    def __init__(self, outcomes: list[OSError]) -> None:
        self.outcomes = outcomes
        self.accepts = 0

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def fileno(self) -> int:
        return 7

    def _accept(self) -> tuple[int, Any]:
        self.accepts += 1
        if not self.outcomes:
            raise BlockingIOError
        raise self.outcomes.pop(0)

    def close(self) -> None:
        self.outcomes.clear()


class FakeLoop:
    """Remembers readers and timers."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.timers: list[Callable[[], None]] = []

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.timers.append(callback)
        return asyncio.TimerHandle(0.0, callback, (), self)  # type: ignore[arg-type]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers.clear()

    def get_debug(self) -> bool:
        return False


def acceptor(outcomes: list[OSError], said: list[str]) -> tuple[Acceptor, FakeListening, FakeLoop]:
    listening, loop = FakeListening(outcomes), FakeLoop()
    made = Acceptor(
        loop,  # type: ignore[arg-type]
        listening,  # type: ignore[arg-type]
        asyncio.Protocol,
        None,
        Places(1),
        said.append,
    )
    made.start()
    return made, listening, loop


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_a_descriptor_left_accepting_rests_and_says_so_once(code: int) -> None:
    said: list[str] = []
    made, listening, loop = acceptor([OSError(code, ""), OSError(code, "")], said)
    loop.readers[7]()
    assert listening.accepts == 1 and not loop.readers  # the loop is not woken again and again
    loop.timers.pop()()
    loop.readers[7]()
    assert len(said) == 1 and not loop.readers
    loop.timers.pop()()
    loop.readers[7]()
    assert loop.readers and not loop.timers
    made.close()
    assert not loop.readers


def test_a_client_gone_before_it_was_accepted_costs_one_try() -> None:
    said: list[str] = []
    _, listening, loop = acceptor([OSError(errno.ECONNABORTED, "")] * 3, said)
    loop.readers[7]()
    assert listening.accepts == 4 and loop.readers and not said


def test_one_listener_takes_no_more_than_its_share_of_a_turn() -> None:
    _, listening, loop = acceptor([OSError(errno.ECONNABORTED, "")] * 1000, [])
    loop.readers[7]()
    assert listening.accepts == ACCEPTS_PER_TURN


def test_a_rest_ends_with_the_listener() -> None:
    made, _, loop = acceptor([OSError(errno.EMFILE, "")], [])
    loop.readers[7]()
    made.close()
    assert not loop.timers and not loop.readers
    made.start()
    assert not loop.readers


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_server_that_ends_while_connections_come_in_does_end(loop: str) -> None:
    """One that is broken off between its transport's beginning and its task's end is forgotten."""

    async def body() -> None:
        for turns in range(12):
            server = await serve(["http://127.0.0.1:0"], echoing())
            host, port = server.addresses[0].rsplit(":", 1)
            clients = [socket.create_connection((host, int(port))) for _ in range(8)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.wait_for(server.stop(), 10)
            for client in clients:
                client.close()

    run(body, loop)
