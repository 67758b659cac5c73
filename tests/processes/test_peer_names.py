"""Members with TLS between them, the original among ours, and members whose name is not allowed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_ports
from tests.support.server import ORACLE, OURS, Server, etcdctl, needs_oracle, serving
from tests.tls.issuing import Issued, Order, new_authority

pytestmark = [pytest.mark.real, needs_oracle()]

PATIENT_S = 30.0
NOT_ALLOWED = "client certificate authentication failed"
BAD = "remote error: tls: bad certificate"


@dataclass
class Secure(Server):
    """A member whose peer port has TLS."""

    cluster: str = ""

    def arguments(self) -> list[str]:
        client = f"http://127.0.0.1:{self.client_port}"
        peer = f"https://127.0.0.1:{self.peer_port}"
        return [
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self.cluster}",
            *self.flags,
        ]

    def fields(self, *words: str) -> list[dict[str, Any]]:
        """The lines of its log that have all of these words."""
        lines = self.log.splitlines()
        return [json.loads(line) for line in lines if all(word in line for word in words)]

    def told(self, *words: str) -> dict[str, Any]:
        """The first such line, once it is there."""
        until = time.monotonic() + PATIENT_S
        while not (found := self.fields(*words)):
            assert time.monotonic() < until, (words, self.log[-4000:])
            time.sleep(0.05)
        return found[0]


def cluster(
    folder: Path, members: dict[str, tuple[tuple[str, ...], Order]], *flags: str
) -> dict[str, Secure]:
    """Members by their names, each with a certificate of its own by one authority."""
    authority = new_authority()
    (folder / "ca.crt").write_bytes(authority.pem())
    ports = dict(zip(members, free_ports(len(members)), strict=True))
    initial = ",".join(f"{name}=https://127.0.0.1:{port}" for name, port in ports.items())
    made = {}
    for name, (program, order) in members.items():
        issued: Issued = authority.issue(order)
        cert, key = issued.write(folder, name)
        (client,) = free_ports(1)
        made[name] = Secure(
            program,
            folder / f"{name}.etcd",
            name,
            (
                f"--peer-cert-file={cert}",
                f"--peer-key-file={key}",
                f"--peer-trusted-ca-file={folder / 'ca.crt'}",
                "--peer-client-cert-auth",
                *flags,
            ),
            client,
            ports[name],
            cluster=initial,
        )
    return made


def put_and_get(members: list[Secure]) -> None:
    """Each takes a put, and has the others'."""
    for member in members:
        until = time.monotonic() + PATIENT_S
        while (done := etcdctl(member.endpoint, "put", member.name, "v")).returncode != 0:
            # Members have not heard of each other's versions yet.
            assert b"not capable" in done.stderr or b"no leader" in done.stderr, done.stderr
            assert time.monotonic() < until, done.stderr
    for member in members:
        got = etcdctl(member.endpoint, "get", "", "--prefix", "--count-only", "-w=fields")
        assert b'"Count" : %d' % len(members) in got.stdout, got


MEMBER = Order(("member",), ("127.0.0.1",))
STRANGER = Order(("stranger",), ("127.0.0.1",))


def test_members_of_another_name_are_kept_out_by_both(tmp_path: Path) -> None:
    made = cluster(
        tmp_path,
        {
            "a": (OURS, MEMBER),
            "b": (OURS, MEMBER),
            "c": (ORACLE, MEMBER),
            "d": (OURS, STRANGER),
            "e": (ORACLE, STRANGER),
        },
        "--peer-cert-allowed-cn=member",
    )
    members = [made[name] for name in "abc"]
    strangers = [made[name] for name in "de"]
    for stranger in strangers:
        stranger.spawn()
    try:
        with serving(*members):
            put_and_get(members)
            for member in members:
                line = member.told("rejected connection", NOT_ALLOWED)
                assert line["ip-addresses"] == ["127.0.0.1"] and line["dns-names"] == []
                assert line["remote-addr"].startswith("127.0.0.1:")
            for stranger in strangers:
                for member in members:
                    stranger.told(BAD, _id_of(member))
                assert "ready to serve client requests" not in stranger.log
    finally:
        for stranger in strangers:
            stranger.kill()


def _id_of(member: Secure) -> str:
    return str(member.told('"local-member-id":"')["local-member-id"])
