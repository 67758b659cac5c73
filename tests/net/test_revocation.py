"""Revoked certificates: who shows one is not let in, at the next connection."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from keyraft.net import ServerTLS
from keyraft.net.tls import CertificateRefusedError
from tests.net.certificates import Files, make_authority
from tests.net.test_tls_alerts import serving
from tests.net.test_tls_files import Lines, described, put

REVOKED = "transport: certificate serial {} revoked"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_authority(tmp_path)


def revoked(files: Files, *serials: int, pem: bool = False) -> bytes:
    """A list that the authority signs."""
    authority = x509.load_pem_x509_certificate(files.ca.read_bytes())
    key = serialization.load_pem_private_key(files.ca.with_suffix(".key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now)
        .next_update(now + datetime.timedelta(days=1))
    )
    for serial in serials:
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(one)
    form = serialization.Encoding.PEM if pem else serialization.Encoding.DER
    return builder.sign(key, hashes.SHA256()).public_bytes(form)


def serial_of(certificate: Path) -> int:
    return x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number


def hexadecimal(serial: int) -> str:
    text = f"{serial:x}"
    return text.rjust(len(text) + len(text) % 2, "0")


class Ends:
    """A server in memory, and a client that knocks with the certificate of its authority."""

    def __init__(self, files: Files, content: bytes | None) -> None:
        self.files = files
        self.path = files.ca.with_name("revoked.crl")
        if content is not None:
            self.path.write_bytes(content)
        self.lines = Lines()
        self.tls = ServerTLS(replace(described(files), crl_file=str(self.path)), self.lines)
        self.session: ssl.SSLSession | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_verify_locations(files.ca)
        self.context.load_cert_chain(files.client_cert, files.client_key)

    def knock(self) -> str:
        """A handshake and the look behind it: the refusal, or nothing."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        here = self.context.wrap_bio(
            to_client, to_server, server_hostname="localhost", session=self.session
        )
        there = self.tls.context().wrap_bio(to_server, to_client, server_side=True)
        done: set[ssl.SSLObject] = set()
        while len(done) < 2:
            for end in (here, there):
                try:
                    end.do_handshake()
                    done.add(end)
                except ssl.SSLWantReadError:
                    pass
        with pytest.raises(ssl.SSLWantReadError):
            here.read(1)  # takes the tickets
        self.session = here.session
        self.resumed = here.session_reused
        assert self.tls.verifies
        try:
            assert self.tls.verify(there, "127.0.0.1:1") is None
        except CertificateRefusedError as refused:
            return str(refused)
        return ""


@pytest.mark.parametrize("pem", [False, True])
def test_who_is_on_the_list_is_refused(files: Files, pem: bool) -> None:
    serial = serial_of(files.client_cert)
    ends = Ends(files, revoked(files, serial + 1, pem=pem))
    assert ends.tls.verifies
    assert ends.knock() == ""
    ends.path.write_bytes(revoked(files, 1, serial, pem=pem))
    assert ends.knock() == REVOKED.format(hexadecimal(serial))
    ends.path.write_bytes(revoked(files, pem=pem))
    assert ends.knock() == ""
    assert ends.lines.said == [("info", "reloaded certificate revocation list")] * 2


def test_a_session_does_not_outlive_its_certificate(files: Files) -> None:
    ends = Ends(files, revoked(files))
    assert ends.knock() == "" and not ends.resumed
    put(ends.path, files.ca.with_name("client.crt"))  # what is broken changes nothing
    put(ends.path, _written(files, revoked(files, serial_of(files.client_cert))))
    assert ends.knock().endswith("revoked")
    assert not ends.resumed


def _written(files: Files, content: bytes) -> Path:
    made = files.ca.with_name("made.crl")
    made.write_bytes(content)
    return made


def test_an_authority_on_the_list_takes_its_certificates_along(files: Files) -> None:
    """As in etcd the numbers of all certificates that were sent are looked for."""
    chain = files.client_cert.read_bytes() + files.ca.read_bytes()
    files.client_cert.write_bytes(chain)
    authority = serial_of(files.ca)
    ends = Ends(files, revoked(files, authority))
    assert ends.knock() == REVOKED.format(hexadecimal(authority))


def test_a_list_that_was_never_read_keeps_everybody_out(files: Files) -> None:
    ends = Ends(files, None)
    assert ends.knock() == f"open {ends.path}: no such file or directory"
    ends.path.write_bytes(b"nothing of the kind")
    assert ends.knock() == "x509: malformed crl"
    assert ends.knock() == "x509: malformed crl"
    assert [level for level, _ in ends.lines.said] == ["error", "error"]
    ends.path.write_bytes(revoked(files))
    assert ends.knock() == ""


def test_a_list_that_becomes_unreadable_stays_as_it_was(files: Files) -> None:
    whole = revoked(files, serial_of(files.client_cert))
    ends = Ends(files, whole)
    assert ends.knock().endswith("revoked")
    for broken in (whole[:-3], b""):
        ends.path.write_bytes(broken)
        assert ends.knock().endswith("revoked")
    ends.path.unlink()
    assert ends.knock().endswith("revoked")
    assert {message for _, message in ends.lines.said} == {
        "failed to read certificate revocation list; the former one stays"
    }


def test_a_long_list_is_asked_once_for_each_number(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = Ends(files, revoked(files, *range(1, 500)))
    assert ends.knock() == ""
    ask = ends.tls._revoked._list  # type: ignore[union-attr]
    asked: list[int] = []

    class Asked:
        def get_revoked_certificate_by_serial_number(self, serial: int) -> object:
            asked.append(serial)
            return ask.get_revoked_certificate_by_serial_number(serial)  # type: ignore[union-attr]

    monkeypatch.setattr(ends.tls._revoked, "_list", Asked())
    for _ in range(3):
        assert ends.knock() == ""
        assert ends.resumed  # and looked at all the same
    assert asked == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_port_closes_the_connection_before_it_says_anything(
    files: Files, version: ssl.TLSVersion
) -> None:
    path = files.ca.with_name("revoked.crl")
    serial = serial_of(files.client_cert)

    def heard(content: bytes) -> tuple[bytes, list[str]]:
        path.write_bytes(content)
        tls = ServerTLS(replace(described(files), crl_file=str(path)))
        found = serving(tls, _asking(files, version))
        assert isinstance(found[0], bytes)
        return found[0], found[1]

    answer, said = heard(revoked(files))
    assert answer.startswith(b"HTTP/1.1") and said == []
    answer, said = heard(revoked(files, serial))
    assert answer == b"" and said == [REVOKED.format(hexadecimal(serial))]


def _asking(files: Files, version: ssl.TLSVersion) -> Callable[[int], bytes]:
    """Sends a request at once behind its handshake, and reads until the end."""

    def work(port: int) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(files.ca)
        context.load_cert_chain(files.client_cert, files.client_key)
        context.maximum_version = version
        with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
            try:
                with context.wrap_socket(raw, server_hostname="localhost") as secure:
                    secure.sendall(b"BAD\r\n\r\n")
                    return secure.recv(100)
            except (ConnectionError, ssl.SSLError):
                return b""

    return work
