"""Three members behind locks on every port, while users begin, keys of tokens are exchanged and a
member dies: what the clients see is linearizable throughout."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from keyraft.client import TLS, Client, errors
from keyraft.client.sync import Client as SyncClient
from keyraft.client.sync import Portal
from tests.net.certificates import make_authority
from tests.support.history import WAIT_S, Load
from tests.support.ports import free_ports
from tests.support.server import OURS, Server, serving

pytestmark = pytest.mark.real

LOADER = "loader"  # the user of the load, also named in its certificate
PROGRESS = 5  # acknowledged writes that show that a member goes on
ASK_AGAIN_S = 0.05


class TokenKeys:
    """The files of the keys that sign tokens, exchanged by renames."""

    def __init__(self, folder: Path) -> None:
        self._public, self._private = folder / "tokens.pub", folder / "tokens.pem"
        self.exchange(ec.generate_private_key(ec.SECP256R1()))
        self.flag = (
            f"--auth-token=jwt,sign-method=ES256,pub-key={self._public},"
            f"priv-key={self._private},ttl=2s"
        )

    def exchange(self, key: ec.EllipticCurvePrivateKey) -> None:
        self.key = key
        self.sign_with(key)
        self.accept(key)

    def sign_with(self, key: ec.EllipticCurvePrivateKey) -> None:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _replace(self._private, pem)

    def accept(self, *keys: ec.EllipticCurvePrivateKey) -> None:
        form = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        _replace(self._public, b"".join(key.public_key().public_bytes(*form) for key in keys))


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.rename(path)


class LockedCluster:
    """m1 to m3 with TLS and certificates on both ports, and signed tokens."""

    def __init__(self, folder: Path) -> None:
        files = make_authority(folder, LOADER)
        self.keys = TokenKeys(folder)
        self.tls = TLS(str(files.ca), str(files.client_cert), str(files.client_key))
        ports = free_ports(6)
        initial = ",".join(f"m{n + 1}=https://127.0.0.1:{ports[3 + n]}" for n in range(3))
        self.servers = {
            f"m{n + 1}": Server(
                OURS,
                folder / f"m{n + 1}",
                f"m{n + 1}",
                (
                    f"--listen-client-urls=https://127.0.0.1:{ports[n]}",
                    f"--advertise-client-urls=https://127.0.0.1:{ports[n]}",
                    f"--listen-peer-urls=https://127.0.0.1:{ports[3 + n]}",
                    f"--initial-advertise-peer-urls=https://127.0.0.1:{ports[3 + n]}",
                    f"--initial-cluster={initial}",
                    *(
                        f"--{peer}{flag}"
                        for peer in ("", "peer-")
                        for flag in (
                            f"cert-file={files.server_cert}",
                            f"key-file={files.server_key}",
                            f"trusted-ca-file={files.ca}",
                            "client-cert-auth",
                        )
                    ),
                    "--bcrypt-cost=4",
                    self.keys.flag,
                ),
                ports[n],
                ports[3 + n],
            )
            for n in range(3)
        }
        self.endpoints = {name: f"https://{s.endpoint}" for name, s in self.servers.items()}

    def client(self, user: str = "root", *names: str) -> SyncClient:
        """A client of some members, or of all, with a password."""
        endpoints = [self.endpoints[name] for name in names or self.servers]
        return SyncClient(*endpoints, tls=self.tls, user=user, password="pw", timeout_s=WAIT_S)

    def have_said(self, text: str, times: int) -> None:
        """Waits until every member's log has a line so often."""
        until(text, lambda: all(s.log.count(text) >= times for s in self.servers.values()))


def until(what: str, true: Callable[[], bool]) -> None:
    given_up_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < given_up_s, f"not within {WAIT_S} s: {what}"
        threading.Event().wait(ASK_AGAIN_S)


def found_users(client: SyncClient) -> None:
    """root, the load's user who may do everything with keys, and alice who reads w/."""
    for name in ("root", LOADER, "alice"):
        client.auth.user_add(name, "pw")
    client.auth.role_add("all")
    client.auth.role_grant("all", "readwrite", b"\0", from_key=True)
    client.auth.role_add("w")
    client.auth.role_grant("w", "read", "w/", prefix=True)
    for name, role in (("root", "root"), (LOADER, "all"), ("alice", "w")):
        client.auth.user_grant_role(name, role)


def is_refused(client: SyncClient) -> bool:
    try:
        client.get("w/")
    except errors.InvalidAuthTokenError:
        return True
    return False


def test_behind_locks_everything_that_changes_changes_under_load(tmp_path: Path) -> None:
    cluster = LockedCluster(tmp_path)
    portal = Portal()
    with serving(*cluster.servers.values()):
        connect = partial(Client, tls=cluster.tls, user=LOADER, password="pw")
        load = Load(portal, cluster.endpoints, 1, connect, range(3)).start()
        try:
            load.wait_acknowledged(PROGRESS, *cluster.servers)
            with cluster.client() as before:
                found_users(before)
                before.auth.enable()
            # From now on the clients of this load, which began without users, are whom their
            # certificate names; so is their watch, which goes on. Those of the other have tokens.
            others = Load(portal, cluster.endpoints, 2, connect, range(3, 6)).start()
            try:
                scenes(cluster, load, others)
            finally:
                others.abandon()
        finally:
            load.abandon()
            portal.close()


def scenes(cluster: LockedCluster, *loads: Load) -> None:
    names = list(cluster.servers)

    def all_go_on(*some: str) -> None:
        """Both loads; some members, of each of which it matters, or anybody."""
        for load in loads:
            load.wait_acknowledged(PROGRESS, *names)
        for name in some:
            loads[-1].wait_acknowledged(1, name)

    all_go_on()
    with cluster.client() as root:
        token = root.auth.authenticate("alice", "pw").token
        with (
            SyncClient(cluster.endpoints["m1"], tls=cluster.tls, token=token) as alice,
            alice.watch("w/", prefix=True) as watch,
        ):
            until("alice's token has run out", lambda: is_refused(alice))
            root.put("w/1", "behind the token")
            assert next(iter(watch)).kv.value == b"behind the token"
            cluster.servers["m3"].kill()
            all_go_on("m1", "m2")
            cluster.servers["m3"].start()
            all_go_on("m3")
            root.auth.user_revoke_role("alice", "w")
            root.put("w/2", "behind the right")
            with pytest.raises(errors.PermissionDeniedError):
                next(iter(watch))
        old, new = cluster.keys.key, ec.generate_private_key(ec.SECP256R1())
        for step, done in enumerate(
            (
                lambda: cluster.keys.accept(old, new),
                lambda: cluster.keys.sign_with(new),
                lambda: cluster.keys.accept(new),
            ),
            1,
        ):
            done()
            cluster.have_said("using other JWT keys", step if step < 3 else 3)
            all_go_on(*names)
        for load in loads:
            load.stop()
        hashes: set[int] = set()

        def same() -> bool:
            hashes.clear()
            for name in names:
                with cluster.client("root", name) as client:
                    hashes.add(client.maintenance.hash_kv().hash)
            return len(hashes) == 1

        until("equal hashes", same)
    first, *others = loads
    first.check(*others)
    print(f"{first}: linearizable", flush=True)
