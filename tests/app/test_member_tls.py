"""What a configuration about TLS is refused for, what is logged, and the certificates it makes."""

from __future__ import annotations

import contextlib
import datetime
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyraft.app.member_tls import check_suites, client_tls, peer_tls
from keyraft.app.start_checks import StartError
from keyraft.config.arguments import load
from keyraft.config.config import Config
from keyraft.logs.zap import ZapLogger
from tests.net.certificates import Files, make_authority
from tests.net.test_tls_files import Lines

SECURE = ("--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://127.0.0.1:1")
PLAIN = ("--listen-client-urls=http://127.0.0.1:1", "--advertise-client-urls=http://127.0.0.1:1")
PEERS = "--listen-peer-urls=https://127.0.0.1:2"
BOTH = "KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"
MISMATCH = "tls: private key does not match public key"
NOT_THERE = "open /nope: no such file or directory"
HTTP2 = (
    "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher (need "
    "at least one of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or "
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)"
)
AUTO = "automatically generate certificates"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("pki")
    (folder / "junk").write_bytes(b"hello\n")
    return make_authority(folder)


def configured(lines: Lines, *flags: str) -> Config:
    quiet = ZapLogger(())
    return load([*flags, "--log-outputs=/dev/null"], {}, quiet)._replace(log=lines)


def filled(text: str, files: Files) -> str:
    return text.format(
        cert=files.server_cert,
        key=files.server_key,
        other=files.client_key,
        mine=files.client_cert,
        ca=files.ca,
        junk=files.ca.with_name("junk"),
    )


@pytest.mark.parametrize(
    ("cert", "key", "more", "reason"),
    [
        ("{cert}", "", "", "KeyFile and CertFile must both be present[key: , cert: {cert}]"),
        ("", "{key}", "", "KeyFile and CertFile must both be present[key: {key}, cert: ]"),
        ("/nope", "{key}", "", NOT_THERE),
        ("{cert}", "/nope", "", NOT_THERE),
        ("{cert}", "{other}", "", MISMATCH),
        ("{junk}", "{key}", "", "tls: failed to find any PEM data in certificate input"),
        ("{cert}", "{junk}", "", "tls: failed to find any PEM data in key input"),
        (
            "{key}",
            "{cert}",
            "",
            "tls: failed to find certificate PEM data in certificate input, but did find a "
            "private key; PEM inputs may have been switched",
        ),
        (
            "{cert}",
            "{cert}",
            "",
            "tls: found a certificate rather than a key in the PEM for the private key",
        ),
        ("{cert}", "{key}", "--{peer}trusted-ca-file=/nope", NOT_THERE),
        ("{cert}", "{key}", "--{peer}trusted-ca-file={junk}", "{junk}: no certificate in it"),
        (
            "{cert}",
            "{key}",
            "--{peer}client-cert-file={mine}",
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , "
            "cert: {mine}]",
        ),
        (
            "{cert}",
            "{key}",
            "--{peer}client-cert-file={mine} --{peer}client-key-file={key}",
            MISMATCH,
        ),
    ],
)
@pytest.mark.parametrize("peer", ["", "peer-"])
def test_files_that_do_not_fit_are_told_in_gos_words(
    files: Files, peer: str, cert: str, key: str, more: str, reason: str
) -> None:
    lines = Lines()
    flags = [f"--{peer}cert-file={cert}", f"--{peer}key-file={key}"]
    flags += more.replace("{peer}", peer).split()
    config = configured(lines, *SECURE, PEERS, *(filled(flag, files) for flag in flags))
    with pytest.raises(StartError) as refused:
        (peer_tls if peer else client_tls)(config)
    assert str(refused.value) == filled(reason, files)
    if peer:
        assert refused.value.title == "discovery failed"
        assert lines.said[-1] == ("error", "creating peer listener failed")
    else:
        assert refused.value.title == "listener failed"
        assert lines.said[-1] == ("error", "setting up serving from embedded etcd failed.")


def test_suites_have_gos_names_and_http2_needs_one(files: Files) -> None:
    lines = Lines()
    with pytest.raises(StartError, match='unexpected TLS cipher suite "TLS_X"'):
        check_suites(configured(lines, *PLAIN, "--cipher-suites=TLS_X"))
    pair = (f"--cert-file={files.server_cert}", f"--key-file={files.server_key}")
    for suites in (
        "TLS_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    ):
        config = configured(lines, *SECURE, *pair, f"--cipher-suites={suites}")
        check_suites(config)
        with pytest.raises(StartError) as refused:
            client_tls(config)
        assert (str(refused.value), refused.value.title) == (HTTP2, "listener failed")
    rc4 = configured(lines, *SECURE, *pair, "--cipher-suites=TLS_RSA_WITH_RC4_128_SHA")
    del lines.said[:]
    check_suites(rc4)
    assert lines.said == [("warn", "cipher suites are not available")]
    with pytest.raises(StartError, match="is missing an HTTP/2-required"):
        client_tls(rc4)
    named = "--cipher-suites=TLS_RSA_WITH_RC4_128_SHA,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    assert client_tls(configured(lines, *SECURE, *pair, named)) is not None


def test_what_is_given_is_logged_as_etcd_does(files: Files) -> None:
    said: list[dict[str, Any]] = []

    class Fields(Lines):
        def info(self, message: str, **fields: object) -> None:
            said.append({"message": message, **fields})

    client_tls(
        configured(
            Fields(),
            *SECURE,
            f"--cert-file={files.server_cert}",
            f"--key-file={files.server_key}",
            f"--trusted-ca-file={files.ca}",
            "--client-cert-auth",
            "--client-crl-file=/crl",
        )
    )
    assert said == [
        {
            "message": "starting with client TLS",
            "tls_info": f"cert = {files.server_cert}, key = {files.server_key}, client-cert=, "
            f"client-key=, trusted-ca = {files.ca}, client-cert-auth = true, crl-file = /crl",
            "cipher_suites": [],
        }
    ]


def test_a_pair_that_no_port_needs_is_not_read() -> None:
    assert client_tls(configured(Lines(), *PLAIN, "--cert-file=/nope")) is None


def test_a_member_makes_its_own_certificate_once(tmp_path: Path) -> None:
    lines = Lines()
    config = configured(
        lines,
        f"--data-dir={tmp_path}",
        "--listen-client-urls=https://127.0.0.1:1,https://[::1]:1,https://localhost:1",
        "--advertise-client-urls=https://127.0.0.1:1",
        "--auto-tls",
        "--self-signed-cert-validity=3",
    )
    made = client_tls(config)
    assert made is not None and made.files.self_signed
    folder = tmp_path / "fixtures" / "client"
    assert (made.files.cert_file, made.files.key_file) == (
        str(folder / "cert.pem"),
        str(folder / "key.pem"),
    )
    assert stat.S_IMODE((tmp_path / "fixtures").stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["cert.pem", "key.pem"]
    assert (folder / "key.pem").read_text().startswith("-----BEGIN EC PRIVATE KEY-----")
    messages = [message for _, message in lines.said]
    assert messages[:3] == [AUTO, "created key file", "created cert file"]

    shown = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp521r1"
    assert shown.subject == x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "etcd")])
    validity = shown.not_valid_after_utc - shown.not_valid_before_utc
    assert validity == datetime.timedelta(days=3 * 365)
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    usage = shown.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert shown.extensions.get_extension_for_class(x509.BasicConstraints).value.ca

    before = (folder / "cert.pem").read_bytes()
    del lines.said[:]
    assert client_tls(config) is not None  # a restart
    assert (folder / "cert.pem").read_bytes() == before
    assert (AUTO not in [message for _, message in lines.said]) and lines.said

    (folder / "key.pem").unlink()  # half a pair is of no use
    assert client_tls(config) is not None
    assert (folder / "cert.pem").read_bytes() != before


def test_peers_with_certificates_of_their_own_believe_each_other(tmp_path: Path) -> None:
    flags = (f"--data-dir={tmp_path}", PEERS, "--peer-auto-tls")
    serving, dialling = peer_tls(configured(Lines(), *flags))
    assert serving is not None and dialling is not None
    assert (tmp_path / "fixtures" / "peer" / "key.pem").exists()
    assert not dialling.context().check_hostname


def test_clients_are_asked_for_certificates_also_with_a_pair_of_our_own(
    tmp_path: Path, files: Files
) -> None:
    flags = (f"--data-dir={tmp_path}", "--auto-tls", f"--trusted-ca-file={files.ca}")
    made = client_tls(configured(Lines(), *SECURE, *flags))
    assert made is not None and made.files.certificate_needed


@pytest.mark.parametrize("kind", ["client", "peer"])
def test_a_validity_of_no_years_is_refused(tmp_path: Path, kind: str) -> None:
    lines = Lines()
    flag = "--peer-auto-tls" if kind == "peer" else "--auto-tls"
    config = configured(
        lines, *SECURE, PEERS, f"--data-dir={tmp_path}", flag, "--self-signed-cert-validity=0"
    )
    with pytest.raises(StartError) as refused:
        (peer_tls if kind == "peer" else client_tls)(config)
    assert str(refused.value) == ("selfSignedCertValidity is invalid,it should be greater than 0")
    assert refused.value.title == f"failed to get {kind} self-signed certs"
    assert lines.said == [("warn", "cannot generate cert")]


def test_a_validity_beyond_all_calendars_ends_with_them(tmp_path: Path) -> None:
    flags = (f"--data-dir={tmp_path}", "--auto-tls", "--self-signed-cert-validity=4294967295")
    made = client_tls(configured(Lines(), *SECURE, *flags))
    assert made is not None
    shown = x509.load_pem_x509_certificate(Path(made.files.cert_file).read_bytes())
    assert shown.not_valid_after_utc.year == 9999


def test_certificates_that_are_given_come_before_those_that_would_be_made(
    tmp_path: Path, files: Files
) -> None:
    lines = Lines()
    pair = (f"--cert-file={files.server_cert}", f"--key-file={files.server_key}")
    made = client_tls(configured(lines, *SECURE, *pair, f"--data-dir={tmp_path}", "--auto-tls"))
    assert made is not None and made.files.cert_file == str(files.server_cert)
    assert lines.said[0] == ("warn", "ignoring client auto TLS since certs given")
    assert not (tmp_path / "fixtures").exists()


@pytest.mark.parametrize(
    "flag", ["--client-cert-allowed-hostname=localhost", "--client-crl-file={ca}"]
)
def test_a_guard_that_nobody_must_pass_is_told(files: Files, flag: str) -> None:
    """The original lets everybody in, and says nothing."""
    lines = Lines()
    pair = (f"--cert-file={files.server_cert}", f"--key-file={files.server_key}")
    client_tls(configured(lines, *SECURE, *pair, filled(flag, files)))
    assert "no certificate is asked for" in str(lines.__dict__)
    lines = Lines()
    demanding = (*pair, f"--trusted-ca-file={files.ca}")
    with contextlib.suppress(StartError):  # what is given as a list is none
        client_tls(configured(lines, *SECURE, *demanding, filled(flag, files)))
    assert "no certificate is asked for" not in str(lines.__dict__)
