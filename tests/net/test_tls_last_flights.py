"""The end of a handshake at the server: who computes it, and with what it goes out."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import threading
import time

import pytest

from keyraft.net import Terms
from tests.net.certificates import Files, make_authority, serving_tls
from tests.net.test_tls_streams import LIMIT_S, LOOPS, Serving, echoing, run, trusting

pytestmark = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_authority(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize("guarded", [False, True])
def test_the_end_of_a_resumed_handshake_of_tls_1_2_is_the_loops_business(
    files: Files, loop: str, guarded: bool
) -> None:
    here: list[bool] = []

    class Told(ssl.SSLObject):
        def do_handshake(self) -> None:
            here.append(threading.current_thread() is threading.main_thread())
            super().do_handshake()

    async def body() -> None:
        tls = serving_tls(files, Terms("TLS1.2", "TLS1.2"), guarded=guarded)
        context = trusting(files, files.client_cert, files.client_key)
        tls.context().sslobject_class = Told
        session: ssl.SSLSession | None = None
        async with Serving(tls, echoing()) as serving_:
            for resumed in (False, True):
                here.clear()
                session, reused, _ = await asyncio.to_thread(knock, context, serving_.port, session)
                assert reused == resumed
                assert here == ([False, True] if resumed else [False, False])

    run(loop, body)


def knock(
    context: ssl.SSLContext, port: int, session: ssl.SSLSession | None
) -> tuple[ssl.SSLSession | None, bool, int]:
    """One connection of a client that blocks: its session, whether it was resumed, and how many
    records of the server came until the first byte of HTTP/2."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost", session=session)
    reads = 0
    with socket.create_connection(("127.0.0.1", port)) as connected:
        connected.settimeout(LIMIT_S)
        shaking = True
        while True:
            try:
                if shaking:
                    tls.do_handshake()
                    shaking = False
                    reads = 0
                assert tls.read(1)
                return tls.session, bool(tls.session_reused), reads
            except ssl.SSLWantReadError:
                if outgoing.pending:
                    connected.sendall(outgoing.read())
                incoming.write(connected.recv(65_536))
                reads += 1


def test_the_end_of_a_handshake_goes_out_with_the_servers_first_words(
    files: Files, loop: str
) -> None:
    """A ticket by itself would be a packet, and a turn of the client's, more."""

    async def body() -> None:
        tls = serving_tls(files, Terms("TLS1.3", "TLS1.3"))
        async with Serving(tls, echoing()) as serving_:
            context = trusting(files)
            session, _, reads = await asyncio.to_thread(knock, context, serving_.port, None)
            assert session is not None and session.has_ticket and reads == 1
            _, reused, reads = await asyncio.to_thread(knock, context, serving_.port, session)
            assert reused and reads == 1
            silent = trusting(files)  # HTTP/1.1: its client speaks first
            silent.set_alpn_protocols(["http/1.1"])
            with socket.create_connection(("127.0.0.1", serving_.port)) as plain:
                plain.settimeout(LIMIT_S)

                def ticket() -> bool:
                    with silent.wrap_socket(plain, server_hostname="localhost") as end:
                        end.setblocking(False)
                        began_s = time.monotonic()
                        while time.monotonic() < began_s + LIMIT_S:
                            with contextlib.suppress(ssl.SSLWantReadError):
                                end.read(1)
                            if end.session is not None and end.session.has_ticket:
                                return True
                            select.select([end], [], [], 0.01)
                        return False

                assert await asyncio.to_thread(ticket)

    run(loop, body)
