"""Every kind of server certificate, shown to clients: the original's etcdctl and ours.

`recorded_servers.json` has what etcdctl 3.7.1 says of each, as `python -m tests.tls.test_servers
ETCDCTL` records it; with `KEYRAFT_ORACLE` naming a 3.7 it is compared with that live, else
with whether the etcdctl at hand accepts the server.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from keyraft.client import TLS
from tests.client.test_connection_causes import cause_of
from tests.support.server import ETCDCTL, environment, needs_oracle
from tests.tls.kinds import Papers
from tests.tls.test_matrix import steady

RECORDED: Final = Path(__file__).with_name("recorded_servers.json")
HOSTS: Final = ("localhost", "127.0.0.1")
ACCEPTED: Final = "accepted"
Said = dict[str, str]
"""Kind of certificate and host → what the client says."""

OTHER_WORDS: Final[Mapping[str, str]] = {
    "outside its authority's names": "the reason does not say which name it was",
}
"""Whom both refuse, ours with another reason."""


@contextmanager
def showing(papers: Papers) -> Iterator[dict[str, int]]:
    """Servers that show a certificate each and hang up; kind → port."""
    ports: dict[str, int] = {}
    begun, over = threading.Event(), threading.Event()

    async def serve() -> None:
        servers = []
        for kind, files in papers.files.items():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.load_cert_chain(*files)
            context.set_alpn_protocols(["h2"])
            server = await asyncio.start_server(_hang_up, "127.0.0.1", 0, ssl=context)
            ports[kind] = server.sockets[0].getsockname()[1]
            servers.append(server)
        begun.set()
        while not over.is_set():
            await asyncio.sleep(0.01)
        for server in servers:
            server.close()
            await server.wait_closed()

    def run() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)  # clients that refuse
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(20)
        yield ports
    finally:
        over.set()
        thread.join()


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.read(24)
    except OSError:
        pass
    writer.close()


def ask_etcdctl(
    command: str, papers: Papers, ports: Mapping[str, int], hosts: tuple[str, ...] = HOSTS
) -> Said:
    """What the original says to each, several at once: a refusal is repeated until the timeout."""

    def ask(who: tuple[str, str]) -> str:
        kind, host = who
        done = subprocess.run(
            [
                command,
                f"--endpoints=https://{host}:{ports[kind]}",
                f"--cacert={papers.ca}",
                "--command-timeout=2s",
                "--dial-timeout=2s",
                "get",
                "k",
            ],
            capture_output=True,
            env=environment() | {"ETCDCTL_API": "3"},
            check=False,
        )
        return reason_of(done.stderr.decode())

    asked = [(kind, host) for kind in ports for host in hosts]
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(map(" at ".join, asked), pool.map(ask, asked), strict=True))


def reason_of(text: str) -> str:
    """Of a failed handshake; else the server was accepted."""
    _, found, reason = text.replace('\\"', '"').partition("authentication handshake failed: ")
    if found:
        return steady(re.split(r'"[\n"}]', reason)[0]).removesuffix('"')
    return ACCEPTED if "error reading server preface" in text else f"neither: {text}"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


async def ask_ours(papers: Papers, ports: Mapping[str, int]) -> Said:
    said: Said = {}
    for kind, port in ports.items():
        for host in HOSTS:
            tls = TLS(ca_file=str(papers.ca))
            said[f"{kind} at {host}"] = reason_of(await cause_of(f"https://{host}:{port}", tls))
    return said


@pytest.mark.slow
def test_ours_says_what_the_original_says(papers: Papers) -> None:
    recorded: Said = json.loads(RECORDED.read_text())
    with showing(papers) as ports:
        ours = asyncio.run(ask_ours(papers, ports))
    assert ours.keys() == recorded.keys()
    for who, expected in recorded.items():
        kind = who.partition(" at ")[0]
        if kind in OTHER_WORDS and expected != ACCEPTED:
            assert ours[who] != ACCEPTED
        else:
            assert ours[who] == expected, who


@pytest.mark.real
@needs_oracle()
def test_the_original_decides_the_same(papers: Papers) -> None:
    recorded: Said = json.loads(RECORDED.read_text())
    with showing(papers) as ports:
        live = ask_etcdctl(ETCDCTL, papers, ports, HOSTS[1:])
    new = any(text.startswith("tls: failed to verify") for text in live.values())
    for who, found in live.items():
        if new:
            assert found == recorded[who], who
        else:  # 3.5.1 has no "failed to verify", and no constant word for servers that hang up
            assert ("x509: " in found) is (recorded[who] != ACCEPTED), (who, found)


if __name__ == "__main__":
    made = Papers(Path(tempfile.mkdtemp()))
    with showing(made) as numbers:
        record = ask_etcdctl(sys.argv[1], made, numbers)
    RECORDED.write_text(json.dumps(record, indent=1) + "\n")
