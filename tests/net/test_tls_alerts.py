"""A server whose TLS handshake fails says why, as the original does, before it hangs up."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from keyraft.grpc import Limits, Router
from keyraft.net import Server, ServerTLS, Terms, handshake_reason
from tests.net.certificates import Files, make_authority, serving_tls

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_authority(tmp_path_factory.mktemp("strangers"))


def serving(
    context: ServerTLS,
    work: Callable[[int], Any],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
    told: bool = True,
) -> tuple[Any, list[str]]:
    """What `work` gives, in a thread of its own beside a server, and why that refused."""
    reasons: list[str] = []

    async def beside() -> Any:
        loop = asyncio.get_running_loop()
        failed = (lambda client, name, why, shown: reasons.append(why)) if told else None
        server = Server(loop, Router(), Limits(), lambda request: None, failed=failed)
        await server.listen("https://127.0.0.1:0", context)
        try:
            return await asyncio.to_thread(work, int(server.addresses[0].rpartition(":")[2]))
        finally:
            await server.stop()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(beside()), reasons


def guarded(files: Files, version: str) -> ServerTLS:
    """A server that wants a certificate of its authority."""
    return serving_tls(files, Terms(version, version), guarded=True)


def visitor(files: Files, *shown: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.ca)
    if shown:
        context.load_cert_chain(*shown)
    return context


def reason(context: ssl.SSLContext) -> Callable[[int], str]:
    """Shakes hands and reads; how it ends, in Go's words."""

    def work(port: int) -> str:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.settimeout(30.0)
            try:
                with context.wrap_socket(raw, server_hostname="localhost") as wrapped:
                    return repr(wrapped.recv(1))
            except OSError as error:
                return handshake_reason(error)

    return work


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("version", "nothing"),
    [("TLS1.2", "handshake failure"), ("TLS1.3", "certificate required")],
)
def test_a_client_hears_why_its_certificate_will_not_do(
    files: Files, strangers: Files, version: str, nothing: str, loop: str, told: bool
) -> None:
    def heard(*shown: Path) -> tuple[str, list[str]]:
        client = reason(visitor(files, *shown))
        return serving(guarded(files, version), client, LOOPS[loop], told)

    why, said = heard(strangers.client_cert, strangers.client_key)
    assert why == "remote error: tls: unknown certificate authority"
    assert [line.partition(": ")[0] for line in said] == (["tls"] if told else [])
    assert heard()[0] == f"remote error: tls: {nothing}"


def test_a_client_hears_that_there_is_no_version_for_both(files: Files) -> None:
    old = visitor(files)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    newest = serving_tls(files, Terms("TLS1.3", "TLS1.3"))
    why, said = serving(newest, reason(old))
    assert why == "remote error: tls: protocol version not supported"
    assert said == ["tls: client offered only unsupported versions"]


def test_who_has_gone_is_told_nothing(files: Files) -> None:
    def work(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")  # a hello that is none
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset

    for _ in range(5):
        _, said = serving(guarded(files, "TLS1.3"), work)
        assert len(said) <= 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_prints_the_alert(files: Files, strangers: Files) -> None:
    command = ["openssl", "s_client", "-ign_eof", "-tls1_3", "-CAfile", str(files.ca)]
    command += ["-cert", str(strangers.client_cert), "-key", str(strangers.client_key)]

    def work(port: int) -> str:
        done = subprocess.run(
            [*command, "-connect", f"127.0.0.1:{port}"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        return done.stderr.decode()

    text, _ = serving(guarded(files, "TLS1.3"), work)
    assert "alert unknown ca" in text and "SSL alert number 48" in text
