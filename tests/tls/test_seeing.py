"""A certificate that is refused within the handshake, by its names or usage, with an alert."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from keyraft.net import Allowed, CertificateRefusedError, ClientTLS, ServerTLS, TLSFiles
from keyraft.net.reasons import handshake_reason
from keyraft.net.tls import seeing
from tests.tls.kinds import Papers
from tests.tls.knocking import visitor

NOT_ALLOWED = "client certificate authentication failed"
BAD = "remote error: tls: bad certificate"
UNUSABLE = (
    "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage"
)
NOBODYS = "tls: failed to verify certificate: x509: certificate signed by unknown authority"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(params=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def files(papers: Papers, kind: str = "valid", **others: object) -> TLSFiles:
    cert, key = papers.files[kind]
    return TLSFiles(
        cert_file=str(cert),
        key_file=str(key),
        trusted_ca_file=str(papers.ca),
        **others,  # type: ignore[arg-type]
    )


class Pair:
    """Two ends in memory; how it ended for each, in Go's words, nothing when it is well."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(to_client, to_server, server_hostname="localhost")
        self.server = server.wrap_bio(to_server, to_client, server_side=True)
        self.error: dict[str, OSError] = {}
        self.done: set[str] = set()
        for _ in range(6):
            self._step("client", self.client)
            self._step("server", self.server)
        if "client" not in self.error:
            try:
                self.client.read(1)
            except ssl.SSLWantReadError:
                pass
            except OSError as error:
                self.error["client"] = error

    def _step(self, name: str, end: ssl.SSLObject) -> None:
        if name in self.done or name in self.error:
            return
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            return
        except OSError as error:
            self.error[name] = error
        else:
            self.done.add(name)

    def said(self, name: str) -> str:
        return handshake_reason(self.error[name]) if name in self.error else ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "at_server", "at_client"),
    [
        ("valid", "", ""),
        ("chain", "", ""),
        ("self-signed and trusted", "", ""),
        ("other host", NOT_ALLOWED, BAD),
        ("common name only", NOT_ALLOWED, BAD),
        ("servers' usage", UNUSABLE, BAD),
        ("other authority", NOBODYS, "remote error: tls: unknown certificate authority"),
        ("self-signed", NOBODYS, "remote error: tls: unknown certificate authority"),
    ],
)
def test_a_server_tells_a_client_that_it_is_not_let_in(
    papers: Papers, version: str, kind: str, at_server: str, at_client: str
) -> None:
    server = ServerTLS(files(papers, allowed=Allowed(host_names=("localhost",))))
    pair = Pair(server.context(), visitor(papers.files[kind], version))
    assert pair.said("server") == at_server
    assert pair.said("client") == at_client
    if at_server == NOT_ALLOWED:
        refused = pair.error["server"]
        assert isinstance(refused, CertificateRefusedError) and refused.names is not None


def test_one_of_several_names_is_enough(papers: Papers, version: str) -> None:
    for allowed in (
        Allowed(common_names=("another", "someone")),
        Allowed(host_names=("10.9.9.9", "127.0.0.1")),
    ):
        server = ServerTLS(files(papers, allowed=allowed))
        assert Pair(server.context(), visitor(papers.files["valid"], version)).error == {}
        pair = Pair(server.context(), visitor(papers.files["two common names"], version))
        assert pair.said("server") == (NOT_ALLOWED if allowed.common_names else "")


def test_nothing_is_called_for_messages_after_the_certificate(
    papers: Papers, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is seen is seen once; a connection at work pays nothing."""
    messages: list[int] = []
    first_certificate = seeing.first_certificate

    def counting(message: bytes, version_1_3: bool) -> bytes:
        messages.append(message[0])
        return first_certificate(message, version_1_3)

    monkeypatch.setattr(seeing, "first_certificate", counting)
    server = ServerTLS(files(papers, allowed=Allowed(host_names=("localhost",))))
    begun = server.context()
    pair = Pair(begun, visitor(papers.files["valid"], version))
    assert messages == [11]
    assert pair.server.context is not begun
    pair.client.write(b"a" * 40_000)
    received = b""
    while len(received) < 40_000:
        received += pair.server.read(1 << 16)
    assert messages == [11]


def test_who_dials_tells_a_server_of_another_name(papers: Papers, version: str) -> None:
    dialling = ClientTLS(files(papers, allowed=Allowed(common_names=("someone",))))
    good = ServerTLS(files(papers)).context()
    assert Pair(good, dialling.context()).error == {}
    cert, key = papers.files["another common name"]
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(cert, key)
    other.maximum_version = other.minimum_version = {
        "1.2": ssl.TLSVersion.TLSv1_2,
        "1.3": ssl.TLSVersion.TLSv1_3,
    }[version]
    pair = Pair(other, dialling.context())
    assert pair.said("client") == NOT_ALLOWED
    assert pair.said("server") == BAD


def test_names_are_looked_at_again_after_the_handshake(
    papers: Papers, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no certificate is seen within it: another Python, or a session that is resumed."""
    monkeypatch.setattr("keyraft.net.tls.ends.can_see", lambda: False)
    server = ServerTLS(files(papers, allowed=Allowed(host_names=("localhost",))))
    assert server.verifies
    pair = Pair(server.context(), visitor(papers.files["other host"], version))
    assert pair.error == {}
    with pytest.raises(CertificateRefusedError, match=f"^{NOT_ALLOWED}$"):
        server.verify(pair.server, "127.0.0.1:1")
    pair = Pair(server.context(), visitor(papers.files["valid"], version))
    assert server.verify(pair.server, "127.0.0.1:1") is None


def test_a_member_with_a_certificate_of_its_own_making_allows_no_name(papers: Papers) -> None:
    """It verifies nobody, so it knows no name; the original refuses likewise."""
    dialling = ClientTLS(
        files(papers, self_signed=True, allowed=Allowed(common_names=("someone",)))
    )
    pair = Pair(ServerTLS(files(papers)).context(), dialling.context())
    with pytest.raises(CertificateRefusedError, match=f"^{NOT_ALLOWED}$"):
        dialling.verify(pair.client, "127.0.0.1:1")


def test_both_lists_exclude_each_other() -> None:
    assert Allowed(("a", "b"), ("c",)).exclusion() == (
        'AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a" "b"], hostnames=["c"])'
    )
    assert Allowed(("a",)).exclusion() == Allowed((), ("c",)).exclusion() == ""


def test_a_bundle_is_marked_whole(papers: Papers) -> None:
    """Also one with comments and a certificate that is marked already."""
    text = papers.ca.read_text()
    marked = seeing.rejected(f"# a comment\n{text}").decode()
    assert marked.count("BEGIN TRUSTED CERTIFICATE") == text.count("BEGIN CERTIFICATE") == 2
    assert seeing.rejected(marked).decode() == marked
    for broken in ("", "A", "AA=A", "MIIB"):  # OpenSSL refuses them, in whatever words
        seeing.rejected(f"-----BEGIN CERTIFICATE-----\n{broken}\n-----END CERTIFICATE-----")


@pytest.mark.parametrize("data", [b"", b"\x0b\0\0\0", b"\x0b\0\0\1\xff", b"\x0b\0\0\4\0\0\0\1\0"])
def test_a_certificate_message_without_one_has_no_leaf(data: bytes) -> None:
    assert seeing.first_certificate(data, True) == b""
    assert seeing.first_certificate(data, False) in (b"", data[10:])
