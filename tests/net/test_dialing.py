"""How long a connection between members may take to come about."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from keyraft.net.http1.client import HANDSHAKE_S_MAX, dial
from keyraft.net.tls import ClientTLS, TLSFiles
from tests.net.certificates import Files, make_authority

DIAL_S = 2.0


class Later(asyncio.SelectorEventLoop):
    """A loop whose clock can be put on."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


async def dial_late(files: Files, late_s: float) -> None:
    """The server lets the handshake wait so long."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Later)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        tls = ClientTLS(TLSFiles(trusted_ca_file=str(files.ca)))
        url = f"https://127.0.0.1:{port}"
        dialing = loop.create_task(dial(url, asyncio.Protocol, tls, timeout_s=DIAL_S))
        accepted, _ = await loop.sock_accept(listener)
        greeted = loop.create_future()
        loop.add_reader(accepted, greeted.set_result, None)
        await greeted  # the client has connected, and begun its handshake
        loop.remove_reader(accepted)
        loop.ahead_s = late_s
        for _ in range(5):
            await asyncio.sleep(0)  # what is due by now
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.server_cert, files.server_key)
        serving = loop.create_task(
            loop.connect_accepted_socket(asyncio.Protocol, accepted, ssl=context)
        )
        try:
            made, _ = await dialing
            made.abort()
        finally:
            for transport, _ in [
                each
                for each in await asyncio.gather(serving, return_exceptions=True)
                if isinstance(each, tuple)
            ]:
                transport.abort()
            await asyncio.sleep(0)


def run(files: Files, late_s: float) -> None:
    with asyncio.Runner(loop_factory=Later) as runner:
        runner.run(dial_late(files, late_s))


def test_a_handshake_may_take_longer_than_the_connection(tmp_path: Path) -> None:
    run(make_authority(tmp_path), HANDSHAKE_S_MAX - 1)


def test_a_handshake_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="TLS handshake timeout"):
        run(make_authority(tmp_path), HANDSHAKE_S_MAX + 1)
