"""Which ports a member opens, what each of them speaks, and peers behind unix sockets."""

from __future__ import annotations

import http.client
import ssl
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.net.certificates import Files, make_authority
from tests.support.ports import free_ports
from tests.support.server import ETCDCTL, ORACLE, OURS, Server, etcdctl, needs_oracle, serving

pytestmark = [pytest.mark.real, needs_oracle()]

PATIENT_S = 20.0


@dataclass
class Listening(Server):
    """A member with listeners of its own; `{port}` is its client port."""

    client_urls: str = "http://127.0.0.1:{port}"
    peer_url: str = ""
    cluster: str = ""
    extra: list[str] = field(default_factory=list)

    def arguments(self) -> list[str]:
        client = self.client_urls.replace("{port}", str(self.client_port))
        peer = self.peer_url or f"http://127.0.0.1:{self.peer_port}"
        return [
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client.split(',')[0]}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self.cluster or f'{self.name}={peer}'}",
            *self.extra,
        ]


def get(port: int, path: str, tls: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENT_S)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENT_S, context=tls)
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def secure_flags(files: Files) -> list[str]:
    return [f"--cert-file={files.server_cert}", f"--key-file={files.server_key}"]


def put(endpoint: str, *flags: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [ETCDCTL, f"--endpoints={endpoint}", *flags, "put", "k", "v"],
        env={"ETCDCTL_API": "3"},
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("program", [ORACLE, OURS], ids=["original", "ours"])
def test_one_port_takes_connections_with_tls_and_without(
    tmp_path: Path, program: tuple[str, ...]
) -> None:
    files = make_authority(tmp_path)
    member = Listening(
        program,
        tmp_path / "data",
        client_urls="http://127.0.0.1:{port},https://127.0.0.1:{port}",
        extra=secure_flags(files),
    )
    with serving(member):
        port = member.client_port
        tls = ssl.create_default_context(cafile=str(files.ca))
        assert get(port, "/health")[0] == get(port, "/health", tls)[0] == 200
        for endpoint in (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}"):
            done = put(endpoint, f"--cacert={files.ca}")
            assert done.returncode == 0, done.stderr
        assert member.log.count("serving client traffic") == 2
    if program is OURS:
        assert "Traceback" not in member.log


def test_http_has_ports_of_its_own(tmp_path: Path) -> None:
    (apart,) = free_ports(1)
    member = Listening(
        OURS, tmp_path / "data", extra=[f"--listen-client-http-urls=http://127.0.0.1:{apart}"]
    )
    with serving(member):
        assert put(member.endpoint).returncode == 0
        assert get(apart, "/health") == (200, b'{"health":"true","reason":""}')
        with pytest.raises((http.client.HTTPException, OSError)):
            get(member.client_port, "/health")
        assert '"traffic":"grpc"' in member.log and '"traffic":"http"' in member.log


@pytest.mark.parametrize("kind", ["unix", "unixs"])
def test_members_find_each_other_behind_unix_sockets(tmp_path: Path, kind: str) -> None:
    files = make_authority(tmp_path)
    flags = []
    if kind == "unixs":
        flags = [
            f"--peer-cert-file={files.server_cert}",
            f"--peer-key-file={files.server_key}",
            f"--peer-trusted-ca-file={files.ca}",
        ]
    # etcd takes a host and a port for the socket's name, in the folder where the member runs
    urls = {name: f"{kind}://localhost:{number}" for number, name in enumerate("abc", 1)}
    cluster = ",".join(f"{name}={url}" for name, url in urls.items())
    members = [
        Listening(
            ORACLE if name == "c" else OURS,
            tmp_path / name,
            name,
            peer_url=url,
            cluster=cluster,
            extra=flags,
        )
        for name, url in urls.items()
    ]
    with serving(*members):
        for number, member in enumerate(members):
            while (done := etcdctl(member.endpoint, "put", f"k{number}", "v")).returncode != 0:
                # The members have not heard of each other's versions yet.
                assert b"etcdserver: not capable" in done.stderr, done.stderr
        for member in members:
            got = etcdctl(member.endpoint, "get", "k", "--prefix", "--count-only", "-w=fields")
            assert b'"Count" : 3' in got.stdout, got


def test_a_metrics_url_with_tls_needs_a_certificate(tmp_path: Path) -> None:
    member = Listening(OURS, tmp_path / "data", extra=["--listen-metrics-urls=https://[::1]:1"])
    member.spawn()
    assert not member.wait_ready()
    assert member.wait() == 1
    assert (
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
        in member.log
    )
