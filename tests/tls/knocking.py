"""Who knocks at a member's TLS port with what certificate, and how the member answers."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from keyraft.net import handshake_reason
from tests.support.ports import free_ports
from tests.support.server import Server

PATIENT_S: Final = 20.0
LET_IN: Final = "let in"
HUNG_UP: Final = "hung up"
_LINE: Final = '"rejected connection'


@dataclass
class Guarded(Server):
    """A member with TLS on one of its ports."""

    secure: Sequence[str] = ()
    """Its TLS flags."""
    peers: bool = False
    """They are of the peer port."""

    @property
    def port(self) -> int:
        """The port with TLS."""
        return self.peer_port if self.peers else self.client_port

    def arguments(self) -> list[str]:
        client = f"{'http' if self.peers else 'https'}://127.0.0.1:{self.client_port}"
        peer = f"{'https' if self.peers else 'http'}://127.0.0.1:{self.peer_port}"
        return [
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self.name}={peer}",
            *self.secure,
            *self.flags,
        ]

    def rejections(self) -> dict[str, dict[str, Any]]:
        """Lines about refused connections, by the visitor's address."""
        found = {}
        for line in self.log.splitlines():
            if _LINE in line and line.startswith("{"):
                fields = json.loads(line)
                found[fields["remote-addr"]] = fields
        return found


@dataclass
class Visit:
    """One knock: how it went for the visitor, and what the member's log says of it."""

    address: str
    answer: str
    line: dict[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """The reason in the member's log."""
        return str(self.line.get("error", ""))


@cache
def visitor(files: tuple[Path, Path] | None, version: str, suites: str = "") -> ssl.SSLContext:
    """A client that trusts everybody and shows these."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers((suites or "DEFAULT") + ":@SECLEVEL=0")
    if version:
        context.minimum_version = context.maximum_version = {
            "1.2": ssl.TLSVersion.TLSv1_2,
            "1.3": ssl.TLSVersion.TLSv1_3,
        }[version]
    if files is not None:
        context.load_cert_chain(*files)
    return context


def knock(port: int, context: ssl.SSLContext, path: str = "/version", source: str = "") -> Visit:
    """Shakes hands and asks for `path`."""
    origin = (source, 0) if source else None
    with socket.create_connection(("127.0.0.1", port), PATIENT_S, source_address=origin) as raw:
        address = "{}:{}".format(*raw.getsockname()[:2])
        received, sending = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = context.wrap_bio(received, sending, server_hostname="localhost")
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        try:
            _through(raw, received, sending, ours.do_handshake)
            ours.write(request.encode())
            answer = _through(raw, received, sending, lambda: ours.read(64))
        except OSError as error:
            reason = handshake_reason(error)
            return Visit(address, HUNG_UP if reason == "EOF" else reason)
    return Visit(address, LET_IN if answer.startswith(b"HTTP/1.1 200") else HUNG_UP)


def _through(
    raw: socket.socket, received: ssl.MemoryBIO, sending: ssl.MemoryBIO, step: Callable[[], Any]
) -> Any:
    """What the step gives, once the other end has sent what it needs. An alert is read although
    the other end does not take what was sent: it comes before the reset."""
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            if sending.pending:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    raw.sendall(sending.read())
            data = b""
            with contextlib.suppress(ConnectionResetError):
                data = raw.recv(1 << 16)
            if data:
                received.write(data)
            else:
                received.write_eof()


def add_lines(server: Guarded, visits: Sequence[Visit]) -> None:
    """Gives each refused visit its line; waits until they are written."""
    refused = [visit for visit in visits if visit.answer != LET_IN]
    until = time.monotonic() + PATIENT_S
    while True:
        lines = server.rejections()
        if all(visit.address in lines for visit in refused) or time.monotonic() > until:
            break
        time.sleep(0.02)
    for visit in visits:
        visit.line = lines.get(visit.address, {})


def guarded(command: Sequence[str], folder: Path, *flags: str, peers: bool = False) -> Guarded:
    """A member that is not yet started."""
    client, peer = free_ports(2)
    return Guarded(
        command, folder / "data", client_port=client, peer_port=peer, secure=flags, peers=peers
    )
