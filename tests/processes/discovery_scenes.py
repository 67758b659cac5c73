"""Scenes of members that find each other by DNS, inside a machine's namespaces of their own.

    unshare -rnm python -m tests.processes.discovery_scenes SCENE FOLDER

The scene has a loopback, a port 53 and an /etc/resolv.conf that nobody else sees, so members,
originals and tools look names up as they do anywhere. It ends with code 0 if all was as it should
be. `test_discovery.py` runs the scenes.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.names import NameServer, srv_zone
from tests.support.server import ORACLE, OURS, Server, environment

CTL = (sys.executable, "-m", "keyraft.cli.etcdctl")
AT_ONCE = ("--strict-reconfig-check=false",)  # members may be added though all have just started
PROGRAMS = {"m1": OURS, "m2": OURS, "m3": ORACLE if Path(ORACLE[0]).exists() else OURS}
PORTS = {"m1": 2379, "m2": 2479, "m3": 2579, "m4": 2679}


def enter(folder: Path) -> None:
    """Brings the loopback up and points the resolver at port 53 of it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = fcntl.ioctl(any_socket, 0x8913, struct.pack("16sh14x", b"lo", 0))  # SIOCGIFFLAGS
        up = struct.unpack("16sh", flags[:18])[1] | 1
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", up))  # SIOCSIFFLAGS
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf"], check=True)


def zone(domain: str, names: Sequence[str], secure: bool) -> str:
    kind = "-ssl" if secure else ""
    return srv_zone(
        {
            f"_etcd-server{kind}._tcp.{domain}.": [
                f"0 0 {PORTS[name] + 1} {name}.{domain}." for name in names
            ],
            f"_etcd-client{kind}._tcp.{domain}.": [
                f"0 0 {PORTS[name]} {name}.{domain}." for name in names
            ],
        }
    ) + "".join(f"{name}.{domain}. 60 IN A 127.0.0.1\n" for name in PORTS)


@dataclass
class Found(Server):
    """A member that finds the others by SRV records."""

    domain: str = ""
    scheme: str = "http"

    def arguments(self) -> list[str]:
        client, peer = (f"{self.name}.{self.domain}:{PORTS[self.name] + add}" for add in (0, 1))
        listen = [f"{self.scheme}://127.0.0.1:{PORTS[self.name] + add}" for add in (0, 1)]
        return [
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={listen[0]}",
            f"--advertise-client-urls={self.scheme}://{client}",
            f"--listen-peer-urls={listen[1]}",
            f"--initial-advertise-peer-urls={self.scheme}://{peer}",
            f"--discovery-srv={self.domain}",
            *self.flags,
        ]


def ctl(*words: str) -> str:
    done = subprocess.run(
        [*CTL, *words], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def begin(members: Sequence[Server]) -> None:
    for member in members:
        member.spawn()
    for member in members:
        assert member.wait_ready(), f"{member.name}:\n{member.log[-4000:]}"


def plain(folder: Path) -> None:
    """Three found a cluster, the original among them; a fourth joins; a stranger is refused."""
    server = NameServer(zone("plain.test", ("m1", "m2", "m3"), secure=False), 53)
    members: list[Server] = [
        Found(program, folder / name, name, AT_ONCE, domain="plain.test")
        for name, program in PROGRAMS.items()
    ]
    fourth = Found(OURS, folder / "m4", "m4", domain="plain.test")
    try:
        begin(members)
        here = ("--discovery-srv=plain.test",)
        ctl(*here, "put", "colour", "blue")
        listed = ctl(*here, "member", "list")
        assert all(f", {name}, http://{name}.plain.test:" in listed for name in ("m1", "m2", "m3"))

        fourth.spawn()
        assert fourth.wait() == 1
        assert (
            'error setting up initial cluster: cannot find local etcd member \\"m4\\" '
            "in SRV records" in fourth.log
        )
        server.close()
        server = NameServer(zone("plain.test", ("m1", "m2", "m3", "m4"), secure=False), 53)
        ctl(*here, "member", "add", "m4", "--peer-urls=http://m4.plain.test:2680")
        fourth.flags = ("--initial-cluster-state=existing",)
        fourth.lines.clear()
        begin([fourth])
        got = ctl("--endpoints=m4.plain.test:2679", "get", "--print-value-only", "colour")
        assert got == "blue\n"
        assert ctl(*here, "endpoint", "health").count("is healthy") == 4
        through_a_gateway("plain.test", "--insecure-discovery")

        # A member with a log asks nobody who the members are, only where they are.
        server.close()
        server = NameServer(zone("plain.test", (), secure=False), 53)
        members[0].stop()
        members[0].lines.clear()
        begin(members[:1])
        assert "SRV" not in members[0].log
    finally:
        for member in (*members, fourth):
            member.kill()
        server.close()


def through_a_gateway(domain: str, *flags: str, client: Sequence[str] = ()) -> None:
    gateway = subprocess.Popen(
        [*OURS, "gateway", "start", f"--discovery-srv={domain}", *flags],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    said = ""
    try:
        assert gateway.stderr is not None
        while "ready to proxy client requests" not in said:
            line = gateway.stderr.readline()
            assert line, said
            said += line
        words = ("--endpoints=127.0.0.1:23790", "get", "--print-value-only", "colour")
        assert ctl(*client, *words) == "blue\n"
    finally:
        gateway.terminate()
        gateway.wait(20)
        assert gateway.stderr is not None
        gateway.stderr.close()


def tls(folder: Path) -> None:
    """Secure records, certificates for the domain only, and no authority but the system's; the
    original among them. A fourth joins."""
    ca, cert, key = certificates(folder, "tls.test")
    os.environ["SSL_CERT_FILE"] = str(ca)
    server = NameServer(zone("tls.test", ("m1", "m2", "m3"), secure=True), 53)
    flags = [
        f"--cert-file={cert}",
        f"--key-file={key}",
        f"--peer-cert-file={cert}",
        f"--peer-key-file={key}",
    ]
    members: list[Server] = [
        Found(program, folder / name, name, [*flags, *AT_ONCE], domain="tls.test", scheme="https")
        for name, program in PROGRAMS.items()
    ]
    joining = [*flags, "--initial-cluster-state=existing"]
    fourth = Found(OURS, folder / "m4", "m4", joining, domain="tls.test", scheme="https")
    try:
        begin(members)
        here = ("--discovery-srv=tls.test", "--insecure-discovery=false", f"--cacert={ca}")
        ctl(*here, "put", "colour", "blue")
        listed = ctl(*here, "member", "list")
        assert all(f", {name}, https://{name}.tls.test:" in listed for name in ("m1", "m2", "m3"))
        through_a_gateway(
            "tls.test",
            f"--trusted-ca-file={ca}",
            client=("--discovery-srv=", f"--cacert={ca}", "--insecure-skip-tls-verify"),
        )
        # Names that DNS gives end with a dot, those in certificates do not.
        dotted = ("--endpoints=https://m4.tls.test.:2379", f"--cacert={ca}")
        assert ctl(*dotted, "get", "--print-value-only", "colour") == "blue\n"
        # The certificates are not the members' own: without the domain they are refused.
        done = subprocess.run(
            [
                *CTL,
                "--discovery-srv=tls.test",
                f"--cacert={ca}",
                "--command-timeout=1s",
                "get",
                "x",
            ],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        refusal = "x509: certificate is valid for tls.test, m4.tls.test, not m"
        assert done.returncode == 1 and refusal in done.stderr, done.stderr

        server.close()
        server = NameServer(zone("tls.test", ("m1", "m2", "m3", "m4"), secure=True), 53)
        ctl(*here, "member", "add", "m4", "--peer-urls=https://m4.tls.test:2680")
        begin([fourth])
        joined = ("--endpoints=https://m4.tls.test:2679", f"--cacert={ca}")
        assert ctl(*joined, "get", "--print-value-only", "colour") == "blue\n"
        assert ctl(*here, "endpoint", "health").count("is healthy") == 4
    finally:
        for member in (*members, fourth):
            member.kill()
        server.close()


def certificates(folder: Path, domain: str) -> tuple[Path, Path, Path]:
    """An authority, and a certificate with its key: for `domain`, and for a name of nobody's."""
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain)])

    def made(
        name: x509.Name, key: ec.EllipticCurvePrivateKey, *more: tuple[Any, bool]
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer, name, key.public_key(), x509.random_serial_number(), now - day, now + day
        )
        for extension, critical in more:
            builder = builder.add_extension(extension, critical)
        return builder.sign(keys[0], hashes.SHA256())

    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    authority = made(issuer, keys[0], (x509.BasicConstraints(True, None), True), (usage, True))
    own = made(
        subject,
        keys[1],
        (
            x509.SubjectAlternativeName([x509.DNSName(name) for name in (domain, f"m4.{domain}")]),
            False,
        ),
    )
    paths = folder / "ca.crt", folder / "own.crt", folder / "own.key"
    paths[0].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(own.public_bytes(serialization.Encoding.PEM))
    paths[2].write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


SCENES: dict[str, Callable[[Path], None]] = {"plain": plain, "tls": tls}

if __name__ == "__main__":
    enter(Path(sys.argv[2]))
    SCENES[sys.argv[1]](Path(sys.argv[2]))
