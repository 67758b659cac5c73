"""What two ends of TLS may agree on: versions, suites, and who must show a certificate."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from keyraft.net import ServerTLS, Terms, TLSFiles, client_context, unknown_suite
from keyraft.net.tls.terms import ANY_TERMS

AES128 = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
AES256 = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate that signs itself for localhost, and its key."""
    folder: Path = tmp_path_factory.mktemp("tls")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(folder / "cert"), str(folder / "key")


def agreed(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str, str]:
    """Version and suite after a handshake in memory; raises ssl.SSLError of either end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    there = server.wrap_bio(to_server, to_client, server_side=True)
    done = {"here": False, "there": False}
    while not all(done.values()):
        for name, end in (("here", here), ("there", there)):
            try:
                end.do_handshake()
                done[name] = True
            except ssl.SSLWantReadError:
                pass
    try:  # with TLS 1.3 the client learns what the server thinks of it when it reads
        here.read(1)
    except ssl.SSLWantReadError:
        pass
    suite = here.cipher()
    assert suite is not None
    return str(here.version()), suite[0]


def ends(
    pair: tuple[str, str], terms: Terms, theirs: Terms = ANY_TERMS, trusted_ca_file: str = ""
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    cert, key = pair
    return (
        ServerTLS(
            TLSFiles(cert_file=cert, key_file=key, trusted_ca_file=trusted_ca_file, terms=terms)
        ).context(),
        client_context(trusted_ca_file=cert, terms=theirs),
    )


def test_versions_are_bounded_on_both_sides(pair: tuple[str, str]) -> None:
    assert agreed(*ends(pair, Terms()))[0] == "TLSv1.3"
    assert agreed(*ends(pair, Terms(max_version="TLS1.2")))[0] == "TLSv1.2"
    with pytest.raises(ssl.SSLError):
        agreed(*ends(pair, Terms(min_version="TLS1.3"), Terms(max_version="TLS1.2")))


def test_only_the_suites_that_are_named_are_agreed_on(pair: tuple[str, str]) -> None:
    only = Terms(max_version="TLS1.2", suites=(AES128,))
    assert agreed(*ends(pair, only))[1] == "ECDHE-RSA-AES128-GCM-SHA256"
    with pytest.raises(ssl.SSLError):
        agreed(*ends(pair, only, Terms(suites=(AES256,), max_version="TLS1.2")))


def test_suites_of_1_3_alone_leave_nothing_for_1_2(pair: tuple[str, str]) -> None:
    only = Terms(suites=("TLS_AES_128_GCM_SHA256",))
    assert agreed(*ends(pair, only))[0] == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        agreed(*ends(pair, only, Terms(max_version="TLS1.2")))


def test_names_of_suites_are_known() -> None:
    assert unknown_suite((AES128, "TLS_AES_256_GCM_SHA384")) is None
    assert unknown_suite((AES128, "TLS_X")) == "TLS_X"


def test_an_authority_alone_demands_a_certificate(pair: tuple[str, str]) -> None:
    cert, key = pair
    server, client = ends(pair, Terms(), trusted_ca_file=cert)
    with pytest.raises(ssl.SSLError):
        agreed(server, client)
    client.load_cert_chain(cert, key)
    assert agreed(server, client)[0] == "TLSv1.3"


def test_without_names_the_suites_are_those_of_go() -> None:
    """The original's answers to 139 suites of OpenSSL, with keys of both kinds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ANY_TERMS.set_on(context)
    old = {suite["name"] for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"}
    assert old == {
        f"ECDHE-{signature}-{rest}"
        for signature in ("ECDSA", "RSA")
        for rest in (
            "AES128-GCM-SHA256",
            "AES256-GCM-SHA384",
            "CHACHA20-POLY1305",
            "AES128-SHA",
            "AES256-SHA",
        )
    }
