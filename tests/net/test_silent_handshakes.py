"""Clients that connect to a port with TLS and never say hello (GHSA-6vch-q96h-7gc3)."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
import uvloop

from keyraft.grpc import Router
from keyraft.net import Places, serve
from keyraft.net.tls import serving

from .certificates import make_authority, serving_tls

CLIENTS = 20


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01"], ids=["nothing", "three bytes"])
def test_who_never_finishes_a_handshake_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr(serving, "HANDSHAKE_S_MAX", 0.3)
    made = make_authority(tmp_path)

    async def body() -> None:
        places = Places(2 * CLIENTS)
        server = await serve(
            ["https://127.0.0.1:0"], Router(), tls=serving_tls(made), places=places
        )
        host, port = server.addresses[0].split(":")
        clients = [await asyncio.open_connection(host, int(port)) for _ in range(CLIENTS)]
        for _, writer in clients:
            writer.write(first)
        async with asyncio.timeout(30):
            for reader, writer in clients:
                # Reset where it was written to after its end, or had sent what nobody read.
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            while places.taken:
                await asyncio.sleep(0)
        await server.stop()

    uvloop.run(body())
