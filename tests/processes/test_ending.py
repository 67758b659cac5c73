"""A member ends when it is told to, whatever its clients do: on every port, with and without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net.certificates import make_authority
from tests.support.ports import free_ports
from tests.support.server import ETCDCTL, OURS, Server, needs_oracle, serving

pytestmark = [pytest.mark.real, needs_oracle()]

GRACE_S = 1.0  # the member's own; the original takes 0.1 s
BUSY_S = 9.0  # what a machine with other work may add
HELLO = bytes.fromhex("1603010200010001fc0303")  # of a TLS handshake that goes no further
PATIENT_S = 20.0
ENVIRONMENT = {"ETCDCTL_API": "3"}


class Secured(Server):
    """A member with TLS on all its ports."""

    def arguments(self) -> list[str]:
        return [argument.replace("http://", "https://") for argument in super().arguments()]


def ask(connection: socket.socket, path: str) -> bytes:
    """One answer on a connection that is kept."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = connection.recv(65_536)
        assert piece, answer
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    return answer


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_member_ends_whatever_is_open(tmp_path: Path, secure: bool) -> None:
    (metrics,) = free_ports(1)
    flags = [f"--listen-metrics-urls=http{'s' if secure else ''}://127.0.0.1:{metrics}"]
    kind = Server
    client: list[str] = []
    context: ssl.SSLContext | None = None
    if secure:
        files = make_authority(tmp_path)
        kind = Secured
        for prefix in ("", "peer-"):
            flags += [f"--{prefix}cert-file={files.server_cert}"]
            flags += [f"--{prefix}key-file={files.server_key}"]
            flags += [f"--{prefix}trusted-ca-file={files.ca}"]
        client = [
            f"--cacert={files.ca}",
            f"--cert={files.client_cert}",
            f"--key={files.client_key}",
        ]
        context = ssl.create_default_context(cafile=str(files.ca))
        context.load_cert_chain(files.client_cert, files.client_key)
    server = kind(OURS, tmp_path / "data", flags=flags)
    with serving(server), contextlib.ExitStack() as stack:
        ports = {
            "/health": server.client_port,
            "/metrics": metrics,
            "/version": server.peer_port,
        }

        def dial(port: int, raw: bool = False) -> socket.socket:
            opened = socket.create_connection(("127.0.0.1", port), PATIENT_S)
            if context is not None and not raw:
                opened = context.wrap_socket(opened, server_hostname="localhost")
            return stack.enter_context(opened)

        kept = []
        for path, port in ports.items():
            kept.append(dial(port))
            ask(kept[-1], path)
            dial(port)  # says nothing
            dial(port).sendall(b"GET /health HTTP/1.1\r\nHost")
            dial(port).sendall(b"POST /raft HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
            dial(port, raw=True).sendall(HELLO)
        stack.enter_context(watching(server, client))
        began_s = time.monotonic()
        server.stop()
        took_s = time.monotonic() - began_s
        assert took_s < GRACE_S + BUSY_S
        for connection in kept:
            with contextlib.suppress(ConnectionResetError, ssl.SSLError):
                while connection.recv(65_536):
                    pass  # what was left of the answer
        assert "Traceback" not in server.log, server.log


@contextlib.contextmanager
def watching(server: Server, words: list[str]) -> Iterator[None]:
    """The original's `watch`, open and served."""
    scheme = "https" if isinstance(server, Secured) else "http"
    endpoint = f"--endpoints={scheme}://{server.endpoint}"
    put = subprocess.run(
        [ETCDCTL, endpoint, *words, "put", "k", "v"], env=ENVIRONMENT, check=False, timeout=60
    )
    assert put.returncode == 0
    process = subprocess.Popen(
        [ETCDCTL, endpoint, *words, "watch", "--rev=1", "k"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"PUT\n"
        yield
    finally:
        process.kill()
        process.communicate()
