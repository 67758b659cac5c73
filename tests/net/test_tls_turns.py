"""New connections while the loop has other work in every turn: counted in turns, whatever they take."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time

import pytest

from keyraft.net import Terms
from keyraft.net.tls.workers import BEGUN_PER_TURN, Workers
from tests.net.certificates import Files, make_authority, serving_tls
from tests.net.test_tls_streams import LOOPS, Serving, echoing, run, trusting

CLIENTS = 24
TURNS_MAX = 10  # of one handshake: accept, two flights, a worker's report of each, the first words


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_authority(tmp_path_factory.mktemp("ca"))


class Newcomer:
    """A client that does what it can whenever it is asked."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self._shaking = True
        self.in_turn = 0  # when the server's first words came

    def go_on(self, turn: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._incoming.write(self.socket.recv(65_536))
        with contextlib.suppress(ssl.SSLWantReadError):
            if self._shaking:
                self._tls.do_handshake()
                self._shaking = False
            if self._tls.read(1):
                self.in_turn = self.in_turn or turn
        if self._outgoing.pending:
            self.socket.sendall(self._outgoing.read())


def _at_rest(workers: Workers) -> bool:
    return not workers._steps and len(workers._asleep) == workers.threads


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
def test_in_every_turn_of_a_busy_loop_some_newcomers_begin(
    files: Files, loop: str, version: str
) -> None:
    """A turn that is full of requests is long, so their number is what a newcomer's wait is made of:
    it does not grow with the requests, and with other newcomers by one turn for a few of them."""
    turn = 0

    async def body() -> None:
        running = asyncio.get_running_loop()
        over: asyncio.Future[None] = running.create_future()
        context = trusting(files)
        async with Serving(serving_tls(files, Terms(version, version)), echoing()) as serving_:
            handshakes = serving_.server._acceptors[0]._handshakes
            assert handshakes is not None
            workers = handshakes._shared.workers
            newcomers = [Newcomer(context, serving_.port) for _ in range(CLIENTS)]

            def full_turn() -> None:
                nonlocal turn
                turn += 1
                while not _at_rest(workers):
                    time.sleep(0.0002)  # a long turn: what threads do, they do meanwhile
                for one in newcomers:
                    one.go_on(turn)
                if all(one.in_turn for one in newcomers):
                    over.set_result(None)
                else:
                    running.call_soon(full_turn)

            running.call_soon(full_turn)
            await over
            for one in newcomers:
                one.socket.close()
            ends = sorted(one.in_turn for one in newcomers)
            assert ends[0] <= TURNS_MAX, ends
            assert ends[-1] <= TURNS_MAX + CLIENTS // BEGUN_PER_TURN, ends
            assert ends[-1] - ends[0] >= CLIENTS // BEGUN_PER_TURN - 2, (
                ends
            )  # and requests in between

    run(loop, body)
