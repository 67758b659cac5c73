"""Members that make their own certificates, the original among ours."""

from __future__ import annotations

import ssl
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes.test_ports import get
from tests.support.ports import free_ports
from tests.support.server import ETCDCTL, ORACLE, OURS, Server, needs_oracle, serving

pytestmark = [pytest.mark.real, needs_oracle()]

ANYBODY = ("--insecure-transport=false", "--insecure-skip-tls-verify")


@dataclass
class AutoSecure(Server):
    """A member with `--auto-tls` and `--peer-auto-tls`."""

    cluster: str = ""
    metrics_port: int = 0

    def arguments(self) -> list[str]:
        client = f"https://127.0.0.1:{self.client_port}"
        peer = f"https://127.0.0.1:{self.peer_port}"
        return [
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={client},unixs://localhost:{self.client_port}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self.cluster}",
            f"--listen-metrics-urls=https://127.0.0.1:{self.metrics_port}",
            "--auto-tls",
            "--peer-auto-tls",
        ]


def ask(endpoint: str, *words: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [ETCDCTL, f"--endpoints={endpoint}", *ANYBODY, *words],
        env={"ETCDCTL_API": "3"},
        capture_output=True,
        check=False,
        timeout=60,
        cwd=folder,
    )


def test_members_with_certificates_of_their_own_are_a_cluster(tmp_path: Path) -> None:
    names = {"a": OURS, "b": OURS, "c": ORACLE}
    ports = free_ports(9)
    cluster = ",".join(f"{n}=https://127.0.0.1:{ports[3 + at]}" for at, n in enumerate(names))
    members = [
        AutoSecure(
            program,
            tmp_path / name,
            name,
            (),
            ports[at],
            ports[3 + at],
            cluster=cluster,
            metrics_port=ports[6 + at],
        )
        for at, (name, program) in enumerate(names.items())
    ]
    ours = members[0]
    with serving(*members):
        for number, member in enumerate(members):
            while (
                done := ask(member.endpoint, "put", f"k{number}", "v", folder=tmp_path)
            ).returncode != 0:
                # The members have not heard of each other's versions yet.
                assert b"etcdserver: not capable" in done.stderr, done.stderr
        for member in members:
            got = ask(member.endpoint, "get", "k", "--prefix", "--count-only", "-w=fields",
                      folder=tmp_path)  # fmt: skip
            assert b'"Count" : 3' in got.stdout, got

        for kind in ("client", "peer"):
            folders = [member.data_dir / "fixtures" / kind for member in members]
            for file in ("cert.pem", "key.pem"):
                modes = {stat.S_IMODE((folder / file).stat().st_mode) for folder in folders}
                assert modes == {0o600 if file == "key.pem" else 0o644}
            assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}

        # What a member made is good for who trusts it, on each of its ports.
        made = ours.data_dir / "fixtures" / "client" / "cert.pem"
        trusting = ssl.create_default_context(cafile=str(made))
        assert get(ours.metrics_port, "/health", trusting) == (
            200,
            b'{"health":"true","reason":""}',
        )
        status, text = get(ours.metrics_port, "/metrics", trusting)
        assert status == 200 and b"etcd_server_has_leader 1" in text
        assert get(ours.client_port, "/version", trusting)[0] == 200
        there = f"unixs://localhost:{ours.client_port}"
        # the socket lies in the folder where the member runs
        assert ask(there, "put", "k", "v", folder=ours.data_dir.parent).returncode == 0

        before = made.read_bytes()
        ours.stop()
        ours.start()
        assert made.read_bytes() == before
        assert get(ours.client_port, "/version", trusting)[0] == 200
