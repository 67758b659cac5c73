"""TLS and Unix sockets, with the library and with etcdctl."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyraft.client import TLS, Client, errors
from tests.net.certificates import Files, make_authority
from tests.support.connections import Connections
from tests.support.ports import free_ports
from tests.support.server import ETCDCTL, ORACLE, OURS, Server, environment, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]

Secured = tuple[Server, Files]


@pytest.fixture(params=["original", "ours"])
def secured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Secured]:
    """A member that wants to see certificates."""
    files = make_authority(tmp_path)
    client, peer = free_ports(2)
    server = Server(
        ORACLE if request.param == "original" else OURS,
        tmp_path / "data",
        client_port=client,
        peer_port=peer,
        flags=[
            f"--listen-client-urls=https://127.0.0.1:{client}",
            f"--advertise-client-urls=https://127.0.0.1:{client}",
            f"--cert-file={files.server_cert}",
            f"--key-file={files.server_key}",
            f"--trusted-ca-file={files.ca}",
            "--client-cert-auth",
        ],
    )
    server.start()
    yield server, files
    server.kill()


def test_certificates_are_shown_and_checked(secured: Secured) -> None:
    server, files = secured

    async def work() -> None:
        full = TLS(str(files.ca), str(files.client_cert), str(files.client_key))
        for endpoint in (server.endpoint, f"https://{server.endpoint}"):
            async with Client(endpoint, tls=full) as client, client.watch("k") as watch:
                await client.put("k", "v")
                assert (await anext(watch)).kv.value == b"v"
                status = await client.maintenance.status(f"https://{server.endpoint}")
                assert status.version
        blind = TLS("", str(files.client_cert), str(files.client_key), verify=False)
        async with Client(server.endpoint, tls=blind) as client:
            assert await client.value("k") == b"v"
        refused = {
            "no certificate of ours": TLS(str(files.ca)),
            "an authority that we do not know": TLS(
                "", str(files.client_cert), str(files.client_key)
            ),
            "another name": TLS(
                str(files.ca), str(files.client_cert), str(files.client_key), "other.example"
            ),
            "no TLS": None,
        }
        for reason, tls in refused.items():
            async with Client(server.endpoint, tls=tls, timeout_s=0.5) as client:
                with pytest.raises((errors.DeadlineError, errors.UnavailableError)):
                    await client.get("k")
                    pytest.fail(reason)

    asyncio.run(asyncio.wait_for(work(), 60))


def test_etcdctl_takes_certificates_as_the_original(secured: Secured) -> None:
    server, files = secured
    here = f"--endpoints=https://{server.endpoint}"
    flags = [f"--cacert={files.ca}", f"--cert={files.client_cert}", f"--key={files.client_key}"]
    tools = ([ETCDCTL], [sys.executable, "-m", "keyraft.cli.etcdctl"])
    lines = (
        [here, *flags, "put", "k", "v"],
        [here, *flags, "get", "k"],
        [here, *flags[1:], "--insecure-skip-tls-verify", "get", "k"],
        [here, flags[0], "--command-timeout=500ms", "--dial-timeout=200ms", "get", "k"],
        [here, flags[1], "get", "k"],
    )
    for words in lines:
        said = []
        for tool in tools:
            done = subprocess.run(
                [*tool, *words], capture_output=True, env=environment(), timeout=60, check=False
            )
            err = [row for row in done.stderr.splitlines() if not row.startswith(b"{")]
            said.append((done.returncode, done.stdout, err))
        assert said[0] == said[1], words


def test_a_certificate_names_a_user_who_needs_no_password(secured: Secured) -> None:
    server, files = secured

    async def work() -> None:
        full = TLS(str(files.ca), str(files.client_cert), str(files.client_key))  # CN root
        async with Client(server.endpoint, tls=full) as client:
            await client.auth.user_add("root", no_password=True)
            await client.auth.user_add("guest", "pw")
            await client.auth.role_add("root")
            await client.auth.user_grant_role("root", "root")
            await client.auth.enable()
            await client.put("k", "v")
            async with client.watch("k", start_revision=1) as watch:
                assert (await anext(watch)).kv.value == b"v"
            assert list((await client.auth.users()).users) == ["guest", "root"]
            async with Client(server.endpoint, tls=full, user="guest", password="pw") as guest:
                with pytest.raises(errors.PermissionDeniedError):
                    await guest.put("k", "w")  # a token comes before the certificate
            await client.auth.disable()
            await client.put("k", "x")

    asyncio.run(asyncio.wait_for(work(), 60))


def test_a_unix_socket_is_an_endpoint(tmp_path: Path) -> None:
    server = Server(ORACLE, tmp_path / "data").start()
    path = tmp_path / "etcd.sock"

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
        sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.client_port)
        await asyncio.gather(pump(reader, back), pump(there, writer))
        await asyncio.gather(back.wait_closed(), writer.wait_closed())

    connections = Connections(accept)

    async def work() -> None:
        listener = await asyncio.start_unix_server(connections, path)
        async with Client(f"unix://{path}") as client:
            await client.put("k", "v")
            assert await client.value("k") == b"v"
        listener.close()
        await connections.finish()

    try:
        asyncio.run(asyncio.wait_for(work(), 60))
    finally:
        server.kill()
