"""Certificates, keys, authorities and lists change under three members that serve: nobody notices."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyraft.client import TLS, Client
from keyraft.client.errors import EtcdError
from tests.support.ports import free_ports
from tests.support.server import OURS, Server
from tests.tls.issuing import Issued, Order, new_authority

pytestmark = pytest.mark.real

PATIENT_S = 60.0
LOST_LINK = ("lost TCP streaming connection", "became inactive", "failed to dial")
REFUSED = "rejected connection"
NEW_PAIR = "reloaded TLS certificate"
NEW_AUTHORITIES = "reloaded trusted CA file"
NEW_LIST = "reloaded certificate revocation list"


@dataclass
class Secure(Server):
    """A member with TLS on both ports; all its files are in its folder."""

    cluster: str = ""

    def arguments(self) -> list[str]:
        client = f"https://127.0.0.1:{self.client_port}"
        peer = f"https://127.0.0.1:{self.peer_port}"
        arguments = [
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self.cluster}",
        ]
        for prefix, crl in (("", "--client-crl-file"), ("peer-", "--peer-crl-file")):
            arguments += [
                f"--{prefix}cert-file={self.file('crt')}",
                f"--{prefix}key-file={self.file('key')}",
                f"--{prefix}trusted-ca-file={self.file('ca')}",
                f"--{prefix}client-cert-auth",
                f"{crl}={self.file('crl')}",
            ]
        return arguments

    def file(self, kind: str) -> Path:
        return self.data_dir.parent / f"{self.name}.{kind}"

    def replace(self, kind: str, content: bytes) -> None:
        """As operators do it: written beside, and moved over it."""
        beside = self.file(f"{kind}.new")
        beside.write_bytes(content)
        os.replace(beside, self.file(kind))

    def count(self, words: str) -> int:
        return sum(words in line for line in self.log.splitlines())


class Load:
    """To each member: a client that keeps its connection, and one that dials for each request."""

    def __init__(self, members: list[Secure], tls: TLS) -> None:
        self.members = members
        self.tls = tls
        """Of who dials now."""
        self.failures: list[str] = []
        self.puts = {member.name: 0 for member in members}
        self.dials = {member.name: 0 for member in members}
        self.stopped = False

    async def keep(self, member: Secure) -> None:
        async with Client(f"https://{member.endpoint}", tls=self.tls, timeout_s=PATIENT_S) as kept:
            while not self.stopped:
                await self._put(kept, member, self.puts, "kept")

    async def dial(self, member: Secure) -> None:
        while not self.stopped:
            made = Client(f"https://{member.endpoint}", tls=self.tls, timeout_s=PATIENT_S)
            async with made as fresh:
                await self._put(fresh, member, self.dials, "fresh")
            await asyncio.sleep(0.02)

    async def _put(self, client: Client, member: Secure, counts: dict[str, int], kind: str) -> None:
        try:
            await client.put(f"{kind}/{member.name}", str(counts[member.name] + 1))
            counts[member.name] += 1
        except (EtcdError, OSError, ssl.SSLError) as error:
            self.failures.append(f"{kind} {member.name}: {error}")
        await asyncio.sleep(0.01)

    async def until(self, what: str, true: Callable[[], bool]) -> None:
        """Waits, and for two more connections to each member."""
        async with asyncio.timeout(PATIENT_S):
            while not true():
                await asyncio.sleep(0.02)
            before = dict(self.dials)
            while not all(self.dials[name] >= count + 2 for name, count in before.items()):
                assert not self.failures, (what, self.failures)
                await asyncio.sleep(0.02)
        assert not self.failures, (what, self.failures)


@pytest.fixture
def members(tmp_path: Path) -> list[Secure]:
    ports = free_ports(6)
    names = ("a", "b", "c")
    cluster = ",".join(f"{n}=https://127.0.0.1:{p}" for n, p in zip(names, ports[3:], strict=True))
    return [
        Secure(OURS, tmp_path / f"{n}.etcd", n, (), ports[at], ports[3 + at], cluster=cluster)
        for at, n in enumerate(names)
    ]


def shown_by(client: Issued, folder: Path, name: str, *trusted: Issued) -> TLS:
    cert, key = client.write(folder, name)
    bundle = folder / f"{name}.bundle"
    bundle.write_bytes(b"".join(one.pem() for one in trusted))
    return TLS(str(bundle), str(cert), str(key))


def test_everything_is_exchanged_while_requests_run(members: list[Secure], tmp_path: Path) -> None:
    old, new = new_authority("old authority"), new_authority("new authority")
    former = {member.name: old.issue(Order((member.name,))) for member in members}
    for member in members:
        member.replace("ca", old.pem())
        member.replace("crt", former[member.name].pem())
        member.replace("key", former[member.name].key_pem())
        member.replace("crl", old.revoke(()))
    before = shown_by(old.issue(Order(("client",))), tmp_path, "before", old, new)
    after = shown_by(new.issue(Order(("client",))), tmp_path, "after", new)
    try:
        for member in members:
            member.spawn()
        for member in members:
            assert member.wait_ready(), member.log[-4000:]
        asyncio.run(_rotate(members, old, new, former, before, after))
    finally:
        for member in members:
            if member.process is not None and member.process.poll() is None:
                member.kill()


async def _rotate(
    members: list[Secure],
    old: Issued,
    new: Issued,
    former: dict[str, Issued],
    before: TLS,
    after: TLS,
) -> None:
    load = Load(members, before)
    seen: list[int] = []
    watcher = Client(f"https://{members[0].endpoint}", tls=before, timeout_s=PATIENT_S)

    async def watch() -> None:
        async with watcher.watch("kept/a") as events:
            watching.set()
            async for event in events:
                seen.append(int(event.kv.value))

    watching = asyncio.Event()
    tasks = [asyncio.create_task(watch())]
    await watching.wait()
    tasks += [asyncio.create_task(load.keep(member)) for member in members]
    tasks += [asyncio.create_task(load.dial(member)) for member in members]
    await load.until("the beginning", lambda: True)

    def told(words: str, times: int = 1) -> Callable[[], bool]:
        return lambda: all(member.count(words) >= times for member in members)

    for member in members:  # both authorities are trusted
        member.replace("ca", old.pem() + new.pem())
    await load.until("authorities", told(NEW_AUTHORITIES))
    for member in members:  # the key a while after its certificate
        fresh = new.issue(Order((member.name,)))
        member.replace("crt", fresh.pem())
        await load.until("half a pair", lambda: True)
        member.replace("key", fresh.key_pem())
    await load.until("pairs", told(NEW_PAIR))
    load.tls = after
    await load.until("clients", lambda: True)
    for member in members:  # nobody shows anything of the former authority any more
        member.replace("ca", new.pem())
    await load.until("one authority", told(NEW_AUTHORITIES, 2))
    assert not any(member.count(REFUSED) for member in members)
    assert not any(member.count(words) for member in members for words in LOST_LINK)
    former_client = Client(f"https://{members[0].endpoint}", tls=before, timeout_s=1.0)
    async with former_client:
        with pytest.raises(EtcdError):
            await former_client.put("former", "")
    assert members[0].count(REFUSED)

    # Peers that dial now: one member is away for a moment.
    stopped = members[1]
    load.stopped = True
    await asyncio.wait(tasks[1:])
    assert not load.failures
    stopped.stop()
    stopped.start()
    load.stopped = False
    tasks[1:] = [asyncio.create_task(load.keep(member)) for member in members]
    tasks += [asyncio.create_task(load.dial(member)) for member in members]
    await load.until("a restart", lambda: True)

    # A client and a member whose certificates are revoked.
    name, path = "victim", Path(after.ca_file).parent
    victim = new.issue(Order((name,)))
    shown = shown_by(victim, path, name, new)
    running = Client(f"https://{members[2].endpoint}", tls=shown, timeout_s=PATIENT_S)
    await running.put(name, "1")
    for member in members:
        member.replace("crl", new.revoke([victim.serial, former[member.name].serial]))
    await load.until("revocation", told(NEW_LIST))
    await running.put(name, "2")  # on the connection that it has
    for member in members:
        again = Client(f"https://{member.endpoint}", tls=shown, timeout_s=1.0)
        async with again:
            with pytest.raises(EtcdError):
                await again.put(name, "3")
        assert member.count(f"certificate serial {_hexadecimal(victim.serial)} revoked")
    assert (await running.get(name)).kvs[0].value == b"2"
    await running.close()

    load.stopped = True
    await asyncio.wait(tasks[1:])
    assert not load.failures
    async with asyncio.timeout(PATIENT_S):
        while not seen or seen[-1] < load.puts["a"]:
            await asyncio.sleep(0.02)
    assert seen == list(range(1, load.puts["a"] + 1))  # one connection saw it all
    tasks[0].cancel()
    await asyncio.wait(tasks)
    await watcher.close()


def _hexadecimal(serial: int) -> str:
    return serial.to_bytes((serial.bit_length() + 7) // 8, "big").hex()
