"""The TCP gateway: who is picked, what is forwarded, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from keyraft.base.log import NullLogger
from keyraft.cli.gateway import gateway, verb_first
from keyraft.net import SRVError, SRVRecord
from keyraft.proxy.discovered import discover_endpoints
from keyraft.proxy.tcp import GatewayEndpoint, Picker, TcpProxy
from tests.net.certificates import Files, make_authority
from tests.support.names import FixedNames, asked_here, srv_zone
from tests.support.ports import free_ports


def test_turns_priorities_and_weights() -> None:
    a, b, c = (GatewayEndpoint(name, 1) for name in "abc")
    picker = Picker([a, b, c], Random(1))
    assert {id(picker.pick()) for _ in range(3)} == {id(a), id(b), id(c)}
    b.active = False
    assert {id(picker.pick()) for _ in range(4)} == {id(a), id(c)}
    a.active = c.active = False
    assert picker.pick() is None

    best, worse = GatewayEndpoint("x", 1, priority=1), GatewayEndpoint("y", 1, priority=2)
    picker = Picker([worse, best], Random(1))
    assert picker.pick() is best
    best.active = False
    assert picker.pick() is worse

    heavy, light, none = (GatewayEndpoint("h", 1, weight=w) for w in (90, 10, 0))
    picker = Picker([heavy, light, none], Random(1))
    picked = [picker.pick() for _ in range(2000)]
    assert picked.count(heavy) > 6 * picked.count(light) > 0
    assert 0 < picked.count(none) < 60


def test_bytes_go_both_ways_and_a_dead_endpoint_is_passed_over() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.close()

    async def scenario() -> None:
        member = await asyncio.start_server(echo, "127.0.0.1", 0)
        gone = await asyncio.start_server(echo, "127.0.0.1", 0)
        ports = [each.sockets[0].getsockname()[1] for each in (member, gone)]
        gone.close()
        await gone.wait_closed()
        endpoints = [GatewayEndpoint("localhost.", port) for port in ports]
        proxy = TcpProxy(Picker(endpoints, Random(1)), 0, NullLogger())
        front = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        port = front.sockets[0].getsockname()[1]
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"HELLO"
            writer.close()
        assert [endpoint.active for endpoint in endpoints] == [True, False]
        front.close()
        member.close()
        await proxy.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--endpoints=x"], 'error parsing endpoint "x"'),
        (["--listen-addr=x"], "failed to validate listen address: x"),
        (
            ["--endpoints=127.0.0.1:23790"],
            "SRV or endpoint (127.0.0.1:23790->127.0.0.1:23790) should not resolve to the "
            "gateway listen addr (127.0.0.1:23790)",
        ),
        (["--endpoints=127.0.0.1:65536"], 'error parsing endpoint "127.0.0.1:65536"'),
        (["--endpoints="], "no endpoints found"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], message: str) -> None:
    result = CliRunner().invoke(gateway, ["start", *words])
    assert result.exit_code == 1
    assert message in result.output


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("start --endpoints=a:1", "start --endpoints=a:1"),
        ("--endpoints=a:1 start", "start --endpoints=a:1"),
        ("--endpoints a:1 start --retry-delay=1s", "start --endpoints a:1 --retry-delay=1s"),
        ("--help start", "start --help"),
        ("--endpoints=a:1", "--endpoints=a:1"),
        ("--endpoints start", "--endpoints start"),
        ("-- start", "-- start"),
        ("--insecure-discovery start", "start --insecure-discovery"),
        ("--insecure-discovery=true start", "start --insecure-discovery"),
        ("--insecure-discovery=false start", "start"),
        ("--insecure-discovery=x start", "start --insecure-discovery=x"),
    ],
)
def test_flags_may_stand_in_front_of_the_verb(typed: str, meant: str) -> None:
    assert verb_first(typed.split()) == meant.split()


# --- by SRV records -----------------------------------------------------------------------------


class Lines:
    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def info(self, message: str, **fields: object) -> None:
        self.said.append((message, fields))

    debug = warn = error = info


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> list[Files]:
    """Ours and a stranger's; their certificates are for "localhost"."""
    return [make_authority(tmp_path_factory.mktemp(name)) for name in ("ours", "others")]


@contextlib.contextmanager
def answering(files: Files | None) -> Iterator[int]:
    """The port of somebody who shakes hands as a server with a certificate, or does not."""
    ended = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if files is not None:
            context.load_cert_chain(files.server_cert, files.server_key)
        while True:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                if ended.is_set():
                    return
                if files is None:
                    connection.recv(65_536)
                else:
                    context.wrap_socket(connection, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        ended.set()
        socket.create_connection(listening.getsockname()).close()
        thread.join()
        listening.close()


def found_here(
    authorities: Sequence[Files], insecure: bool, ca_file: str = "", domain: str = "localhost"
) -> tuple[list[str], list[int], Lines]:
    """Of secure endpoints that are good, a stranger's, closed, without TLS, without an address; and
    a plain one."""
    with contextlib.ExitStack() as stack:
        good, strange, mute = (
            stack.enter_context(answering(files)) for files in (*authorities, None)
        )
        (closed,) = free_ports(1)
        ports = {"GOOD": good, "STRANGE": strange, "CLOSED": closed, "MUTE": mute}
        secure = [SRVRecord("m1.x.", port, 0, at) for at, port in enumerate(ports.values(), 1)]
        names = FixedNames(
            {
                f"_etcd-client-ssl-n._tcp.{domain}": [*secure, SRVRecord("lo]:st.x.", 1, 0, 5)],
                f"_etcd-client-n._tcp.{domain}": [SRVRecord("m1.x.", good, 1, 6)],
            },
            {"m1.x": "127.0.0.1"},
        )
        lines = Lines()
        ca = ca_file or str(authorities[0].ca)
        found = discover_endpoints(lines, domain, ca, insecure, "n", names)

    def shown(text: str) -> str:
        for word, port in ports.items():
            text = text.replace(str(port), word)
        return text

    for _, fields in lines.said:
        for key, value in fields.items():
            fields[key] = shown(value if isinstance(value, str) else " ".join(value))
    return [shown(url) for url in found.endpoints], [one.weight for one in found.records], lines


ALL = [
    "https://m1.x.:GOOD",
    "https://m1.x.:STRANGE",
    "https://m1.x.:CLOSED",
    "https://m1.x.:MUTE",
    "https://[lo]:st.x.]:1",
    "http://m1.x.:GOOD",
]


def test_of_what_dns_names_those_are_used_that_prove_it(authorities: list[Files]) -> None:
    """CVE-2020-15136 and the audit of 2020 (1): it was enough that something took a connection."""
    kept, weights, lines = found_here(authorities, insecure=False)
    assert (kept, weights) == (ALL[:1], [1])
    assert [message for message, _ in lines.said] == [
        "discovered cluster from SRV",
        "validating discovered SRV endpoints",
        "failed to validate discovered endpoints",
    ]
    assert lines.said[0][1] == {"srv_server": "localhost", "endpoints": " ".join(ALL)}
    assert lines.said[2][1] == {
        "srv_server": "localhost",
        "endpoints": ALL[0],
        "error": '"https://m1.x.:STRANGE" failed to dial (tls: failed to verify certificate: '
        "x509: certificate signed by unknown authority),"
        '"https://m1.x.:CLOSED" failed to dial '
        "(dial tcp 127.0.0.1:CLOSED: connect: connection refused),"
        '"https://m1.x.:MUTE" failed to dial (EOF),'
        '"https://[lo]:st.x.]:1" failed to dial '
        "(dial tcp: lookup lo]:st.x. on 127.0.0.1:53: no such host),"
        '"http://m1.x.:GOOD" is insecure',
    }
    assert not found_here(authorities, insecure=False, domain="example.com")[0]


def test_on_request_all_that_is_discovered_is_taken(authorities: list[Files]) -> None:
    found, weights, lines = found_here(authorities, insecure=True)
    assert (found, weights) == (ALL, [1, 2, 3, 4, 5, 6])
    assert len(lines.said) == 1


def test_without_the_authority_nothing_that_is_discovered_is_taken(
    authorities: list[Files], tmp_path: Path
) -> None:
    found, _, lines = found_here(authorities, insecure=False, ca_file="/nonexistent")
    assert not found
    assert lines.said[-1][1]["error"] == "open /nonexistent: no such file or directory"
    garbage = tmp_path / "ca"
    garbage.write_text("no certificate")
    assert not found_here(authorities, insecure=False, ca_file=str(garbage))[0]


def test_without_a_domain_nothing_is_asked_and_without_records_nothing_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # CVE-2020-15136: what --endpoints names is not looked at, whatever the authority is.
    assert discover_endpoints(Lines(), "", "/nonexistent", False, "").endpoints == ()
    with pytest.raises(SRVError, match="dns lookup errors: "):
        discover_endpoints(Lines(), "x", "", False, "", FixedNames({}))
    with asked_here(srv_zone({}), monkeypatch):
        result = CliRunner().invoke(gateway, ["start", "--discovery-srv=none.test"])
    assert result.exit_code == 1
    assert (
        "dns lookup errors: lookup _etcd-client-ssl._tcp.none.test on 127.0.0.1:" in result.output
    )
    assert "Error:" not in result.output


def test_when_nothing_secure_is_discovered_the_given_endpoints_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zone = srv_zone({"_etcd-client._tcp.x.test.": ["0 0 1 m1.x.test."]})
    with asked_here(zone, monkeypatch):
        result = CliRunner().invoke(
            gateway, ["start", "--discovery-srv=x.test", "--endpoints=127.0.0.1:23790"]
        )
    assert result.exit_code == 1 and "(127.0.0.1:23790->127.0.0.1:23790) should" in result.output
