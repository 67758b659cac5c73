"""TLS on both sides of the gRPC proxy, and command lines that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from keyraft.cli.grpcproxy import grpc_proxy
from keyraft.client import TLS, Client, errors
from keyraft.proxy.grpcproxy import GrpcProxy, OptionError, ProxyOptions
from tests.net.certificates import make_authority
from tests.net.test_revocation import revoked
from tests.support.proxies import options, through_proxy
from tests.support.server import OURS, Server


@pytest.mark.real
def test_both_sides_speak_tls_and_a_certificate_is_asked_for(tmp_path: Path) -> None:
    files = make_authority(tmp_path, client_name="")
    ours = ("--cert-file", str(files.server_cert), "--key-file", str(files.server_key))
    member = Server(OURS, tmp_path / "member")
    url = f"https://{member.endpoint}"
    member.flags = (
        *ours,
        f"--trusted-ca-file={files.ca}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
    )
    pair = {"cert_file": str(files.client_cert), "key_file": str(files.client_key)}

    async def body(proxy: GrpcProxy, client: Client) -> None:
        address = proxy.server.addresses[0]
        async with Client(address, tls=TLS(ca_file=str(files.ca), **pair)) as known:
            await known.put("k", "v")
            async with known.watch("k", start_revision=1) as watch:
                assert (await anext(aiter(watch))).kv.value == b"v"
        async with Client(address, tls=TLS(ca_file=str(files.ca)), timeout_s=0.5) as unknown:
            with pytest.raises(errors.DeadlineError):
                await unknown.put("k", "v")
        async with Client(address, timeout_s=0.5) as plain:
            with pytest.raises(errors.DeadlineError):
                await plain.put("k", "v")

    member.start()
    try:
        through_proxy(
            body,
            url,
            cacert=str(files.ca),
            cert=str(files.client_cert),
            key=str(files.client_key),
            cert_file=str(files.server_cert),
            key_file=str(files.server_key),
            trusted_ca_file=str(files.ca),
        )
    finally:
        member.kill()


def test_who_is_revoked_is_not_let_in(tmp_path: Path) -> None:
    files = make_authority(tmp_path)
    serial = x509.load_pem_x509_certificate(files.client_cert.read_bytes()).serial_number
    tls = TLS(str(files.ca), str(files.client_cert), str(files.client_key))
    revocations = tmp_path / "revoked.crl"

    async def body(proxy: GrpcProxy, client: Client) -> None:
        address = proxy.server.addresses[0]
        async with Client(address, tls=tls, timeout_s=10.0) as known:
            assert (await known.cluster.members()).members  # which the proxy itself answers
        revocations.write_bytes(revoked(files, serial))
        async with Client(address, tls=tls, timeout_s=0.5) as late:
            with pytest.raises(errors.DeadlineError):
                await late.put("k", "v")

    revocations.write_bytes(revoked(files, serial + 1))
    through_proxy(
        body,
        "127.0.0.1:1",
        cert_file=str(files.server_cert),
        key_file=str(files.server_key),
        trusted_ca_file=str(files.ca),
        client_crl_file=str(revocations),
    )


def test_a_pair_of_its_own_is_made_and_kept(tmp_path: Path) -> None:
    async def body(proxy: GrpcProxy, client: Client) -> None:
        address = proxy.server.addresses[0]
        async with Client(address, tls=TLS(verify=False), timeout_s=10.0) as known:
            assert (await known.cluster.members()).members  # which the proxy itself answers

    made = tmp_path / "fixtures" / "proxy" / "cert.pem"
    for _ in range(2):
        before = made.read_bytes() if made.exists() else b""
        through_proxy(body, "127.0.0.1:1", auto_tls=True, data_dir=str(tmp_path))
        assert made.read_bytes() == before or not before


def refusal(found: ProxyOptions) -> str:
    with pytest.raises(OptionError) as refused:
        found.check()
    return str(refused.value)


def test_what_cannot_be_is_refused() -> None:
    assert refusal(options(resolver_prefix="p")) == "invalid resolver-ttl 0"
    assert refusal(options(resolver_ttl=3)) == 'invalid resolver-prefix ""'
    assert "advertise-client-url" in refusal(
        options(resolver_prefix="p", resolver_ttl=3, advertise_client_url="")
    )
    assert "selfSigned" in refusal(options(auto_tls=True, self_signed_cert_validity=0))
    assert refusal(options(tls_min_version="TLS1.1")) == (
        'tls-min-version is invalid: unexpected TLS version "TLS1.1" '
        "(must be one of: TLS1.2, TLS1.3)"
    )
    assert refusal(options(tls_min_version="TLS1.3", tls_max_version="TLS1.2")) == (
        "min version (772) is greater than max version (771)"
    )
    assert "TLS1.3" in refusal(options(tls_min_version="TLS1.3", listen_cipher_suites=("x",)))
    options().check()


def test_the_command_line_answers_as_the_original_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        return (grpc_proxy(list(words)), *capsys.readouterr())

    code, out, _ = run("start", "--help")
    assert code == 0 and out.startswith("start the grpc proxy\n\nUsage:\n")
    assert '      --listen-addr string                      listen address (default "127' in out
    assert run()[1].startswith("grpc-proxy related command\n")
    code, _, told = run("start", "--nosuch")
    assert code == 1 and told.startswith("Error: unknown flag: --nosuch\nUsage:\n")
    assert told.endswith("\n\nunknown flag: --nosuch\n")
    _, _, told = run("start", "--resolver-ttl=abc")
    assert told.startswith('Error: invalid argument "abc" for "--resolver-ttl" flag: ')
    assert run("start", "--listen-addr=foo")[::2] == (
        1,
        "listen tcp: address foo: missing port in address\n",
    )
    files = make_authority(tmp_path, client_name="somebody")
    named = run("start", f"--cert={files.client_cert}", f"--key={files.client_key}")
    assert named[2] == f"cert has non empty Common Name (somebody): {files.client_cert}\n"
