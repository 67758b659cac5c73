"""The TCP gateway: who is picked, what is forwarded, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from keyraft.base.log import NullLogger
from keyraft.cli.gateway import gateway, secure_ones, verb_first
from keyraft.proxy.tcp import GatewayEndpoint, Picker, TcpProxy
from tests.net.certificates import Files, make_authority


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
        endpoints = [GatewayEndpoint("127.0.0.1", port) for port in ports]
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
        (["--trusted-ca-file=/nonexistent"], "open /nonexistent: no such file or directory"),
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
    ],
)
def test_flags_may_stand_in_front_of_the_verb(typed: str, meant: str) -> None:
    assert verb_first(typed.split()) == meant.split()


class Warnings(NullLogger):
    """Keeps what the last one said."""

    fields: dict[str, object]

    def warn(self, message: str, **fields: object) -> None:
        self.fields = fields


def server_context(files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server_cert, files.server_key)
    return context


def test_of_the_members_that_dns_names_those_are_used_that_prove_it(tmp_path: Path) -> None:
    """CVE-2020-15136 and the audit of 2020 (1): it was enough that something took a connection."""
    for name in ("ours", "others"):
        (tmp_path / name).mkdir()
    ours, others = make_authority(tmp_path / "ours"), make_authority(tmp_path / "others")

    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # who was not convinced hangs up
            await reader.read(1)
        writer.close()

    async def scenario() -> None:
        servers = [
            await asyncio.start_server(nobody, "127.0.0.1", 0, ssl=server_context(ours)),
            await asyncio.start_server(nobody, "127.0.0.1", 0, ssl=server_context(others)),
            await asyncio.start_server(nobody, "127.0.0.1", 0),
        ]
        ports = [each.sockets[0].getsockname()[1] for each in servers]
        members = [GatewayEndpoint("127.0.0.1", port) for port in ports]
        log = Warnings()
        kept = await secure_ones(members, "localhost", str(ours.ca), log)
        assert kept == members[:1]
        assert str(log.fields["error"]).count("failed to dial") == 2
        assert await secure_ones(members[:1], "example.com", str(ours.ca), log) == []
        for server in servers:
            server.close()

    asyncio.run(scenario())
