"""The threads that shake hands, and the name that a failed handshake is logged with."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time

import pytest

from keyraft.net.tls.hello import asked_name
from keyraft.net.tls.resumption import check_resumed
from keyraft.net.tls.workers import BEGUN_PER_TURN, Workers
from tests.net.test_tls_streams import LOOPS, run


class Counted:
    """A step that says how it went."""

    def __init__(self, begins: bool, told: list[int], turn: list[int]) -> None:
        self.begins = begins
        self.told = told
        self.turn = turn
        self.thread = 0

    def work(self) -> None:
        self.thread = threading.get_ident()

    def worked(self) -> bool:
        self.told.append(self.turn[0])
        return self.begins


@pytest.mark.parametrize("loop", LOOPS)
def test_few_connections_begin_in_one_turn(loop: str) -> None:
    """So that others' requests are answered in between, however many hands are shaken."""
    told: list[int] = []
    turn = [0]

    async def body() -> None:
        running = asyncio.get_running_loop()

        def count() -> None:
            turn[0] += 1
            if len(told) < len(steps):  # a loop that never rests leaves threads without a turn
                running.call_soon(count)

        workers = Workers(running, most=2, idle_s=0.01)
        steps = [Counted(number % 2 == 0, told, turn) for number in range(60)]
        for step in steps:
            workers.submit(step)
            assert workers.threads <= 2
        while any(not step.thread for step in steps):
            time.sleep(0.001)  # the loop hears of all of them at once
        count()
        while len(told) < len(steps):
            await asyncio.sleep(0)
        each = [told.count(one) for one in set(told)]
        assert max(each) <= 2 * BEGUN_PER_TURN and len(each) >= 30 // BEGUN_PER_TURN
        assert all(step.thread != threading.get_ident() for step in steps)
        while workers.threads:  # they end when there is nothing to do
            await asyncio.sleep(0.001)
        workers.submit(late := Counted(True, told, turn))
        while len(told) <= len(steps):
            await asyncio.sleep(0.001)
        assert late.thread

    run(loop, body)


def test_the_name_in_a_hello_is_read_and_nothing_else_is_believed() -> None:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="etcd.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    assert asked_name(hello) == "etcd.example"
    for end in range(len(hello)):
        assert asked_name(hello[:end]) in ("", "etcd.example")
    for at in range(len(hello)):
        asked_name(hello[:at] + b"\xff" + hello[at + 1 :])
    check_resumed(tls)  # one that is not resumed has been verified
