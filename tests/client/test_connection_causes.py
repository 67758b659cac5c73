"""Why a connection failed is told by the error, the log and the server, in etcd's words."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from keyraft.app.descriptors import REJECTED_LINES_PER_S_MAX, Rejections
from keyraft.client import TLS, Client, errors
from keyraft.client.dial import Dialer, DialError
from keyraft.client.endpoint import parse
from keyraft.client.recipes.barrier import HeldError
from keyraft.client.recipes.election import NotLeaderError
from keyraft.client.recipes.lock import LockedError
from keyraft.grpc import Limits, Router
from keyraft.net import Server, ServerTLS
from keyraft.net.tls.names import CertificateNames
from tests.net.certificates import Files, make_authority, serving_tls

LIMIT_S = 60.0
DIALLING = "transport: Error while dialing: "
HANDSHAKE = "transport: authentication handshake failed: "
PREFACE = "error reading server preface: "


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_authority(tmp_path_factory.mktemp("theirs"))


class Lines:
    """A log as a list."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, dict[str, object]]] = []

    def debug(self, message: str, **fields: object) -> None:
        self.said.append(("debug", message, fields))

    def info(self, message: str, **fields: object) -> None:
        self.said.append(("info", message, fields))

    def warn(self, message: str, **fields: object) -> None:
        self.said.append(("warn", message, fields))

    def error(self, message: str, **fields: object) -> None:
        self.said.append(("error", message, fields))


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, LIMIT_S))


async def cause_of(endpoint: str, tls: TLS | None = None, **options: Any) -> str:
    """Why a get fails there, as soon as an attempt has failed."""
    lines = Lines()
    options.setdefault("dial_timeout_s", LIMIT_S)  # a busy machine's handshake is no late one
    async with Client(endpoint, tls=tls, timeout_s=LIMIT_S, log=lines, **options) as client:
        asking = asyncio.ensure_future(client.get("a"))
        while not any(message == "failed to connect" for _, message, _ in lines.said):
            await asyncio.sleep(0.005)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        with pytest.raises(errors.DeadlineError) as caught:
            await client.get("a", timeout_s=0.001)
        error = caught.value
        assert isinstance(error, errors.EtcdError) and error.text == "context deadline exceeded"
        begin = 'latest balancer error: connection error: desc = "'
        assert error.cause.startswith(begin) and error.cause.endswith('"'), error.cause
        assert str(error) == f"context deadline exceeded: {error.cause}"
        _, message, fields = next(said for said in lines.said if said[0] == "warn")
        assert message == "retrying of unary invoker failed"
        assert fields["error"] == f"rpc error: code = DeadlineExceeded desc = {error.cause}"
        assert fields["method"] == "/etcdserverpb.KV/Range" and fields["attempt"] == 0
        return error.cause.removeprefix(begin)[:-1]


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port on which nobody listens, and which nobody else is given."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_a_refused_connection_is_told_in_gos_words(tmp_path: Path) -> None:
    async def work() -> None:
        with refusing() as port:
            refused = f"{DIALLING}dial tcp 127.0.0.1:{port}: connect: connection refused"
            assert await cause_of(f"127.0.0.1:{port}") == refused
        missing = await cause_of(f"unix://{tmp_path}/none.sock")
        assert missing == (
            f"{DIALLING}dial unix {tmp_path}/none.sock: connect: no such file or directory"
        )

    run(work())


def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*words: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    run(expects("no.such.host:2379", f"{DIALLING}dial tcp: lookup no.such.host: no such host"))


def test_a_name_whose_first_address_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are tried; the first one's reason is told."""

    def two(host: str, *words: object, **more: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.1", "127.0.0.2")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with refusing() as port:
        run(
            expects(
                f"twice.example:{port}",
                f"{DIALLING}dial tcp 127.0.0.1:{port}: connect: connection refused",
            )
        )


async def expects(endpoint: str, cause: str, tls: TLS | None = None, **options: Any) -> None:
    assert await cause_of(endpoint, tls, **options) == cause


DIAL_S = 5.0


@pytest.mark.parametrize(("scheme", "stage"), [("http", PREFACE), ("https", HANDSHAKE)])
def test_a_server_that_says_nothing(scheme: str, stage: str) -> None:
    """Once the client has said its first words to it, the time to dial is over at once."""

    async def work() -> None:
        loop, later_s = asyncio.get_running_loop(), 0.0
        clock = loop.time
        loop.time = lambda: clock() + later_s  # type: ignore[method-assign]

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal later_s
            await reader.read(1)
            later_s += DIAL_S
            await reader.read()
            writer.close()

        async with await asyncio.start_server(hear, "127.0.0.1", 0) as listening:
            address = "{}:{}".format(*listening.sockets[0].getsockname())
            await expects(
                f"{scheme}://{address}",
                f"{stage}context deadline exceeded",
                TLS(verify=False),
                dial_timeout_s=DIAL_S,
            )

    run(work())


def served(tls: ServerTLS | None, work: Callable[[str, Lines], Coroutine[Any, Any, None]]) -> None:
    """Runs `work` beside a server with or without TLS, whose log tells of handshakes."""

    async def beside() -> None:
        loop, lines = asyncio.get_running_loop(), Lines()
        server = Server(
            loop,
            Router(),
            Limits(),
            lambda request: None,
            failed=Rejections(lines, "client", loop.time),
        )
        await server.listen(f"{'https' if tls else 'http'}://127.0.0.1:0", tls)
        try:
            await work(server.addresses[0], lines)
        finally:
            await server.stop()

    run(beside())


def rejected(lines: Lines, error: str) -> None:
    """The server has said why, once for each attempt."""
    level, message, fields = lines.said[0]
    assert (level, message) == ("warn", "rejected connection on client endpoint")
    assert fields["error"] == error and fields["server_name"] == ""
    assert str(fields["remote_addr"]).startswith("127.0.0.1:")


def test_tls_with_a_server_that_has_none() -> None:
    async def work(address: str, lines: Lines) -> None:
        await expects(f"https://{address}", f"{HANDSHAKE}EOF", TLS(verify=False))

    served(None, work)


def test_no_tls_with_a_server_that_wants_it(files: Files) -> None:
    async def work(address: str, lines: Lines) -> None:
        await expects(f"http://{address}", f"{PREFACE}EOF")
        rejected(lines, "tls: first record does not look like a TLS handshake")

    served(serving_tls(files), work)


def test_an_authority_that_the_client_does_not_know(files: Files, strangers: Files) -> None:
    async def work(address: str, lines: Lines) -> None:
        await expects(
            f"https://{address}",
            f"{HANDSHAKE}tls: failed to verify certificate: "
            "x509: certificate signed by unknown authority",
            TLS(str(strangers.ca)),
        )

    served(serving_tls(files), work)


def test_a_client_without_a_certificate_and_one_of_strangers(
    files: Files, strangers: Files
) -> None:
    guarded = serving_tls(files, guarded=True)

    async def nothing(address: str, lines: Lines) -> None:
        cause = await cause_of(f"https://{address}", TLS(str(files.ca)))
        assert cause == f"{PREFACE}remote error: tls: certificate required"
        rejected(lines, "tls: client didn't provide a certificate")

    async def foreign(address: str, lines: Lines) -> None:
        shown = TLS(str(files.ca), str(strangers.client_cert), str(strangers.client_key))
        cause = await cause_of(f"https://{address}", shown)
        assert cause == f"{PREFACE}remote error: tls: unknown certificate authority"
        rejected(
            lines,
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        )

    served(guarded, nothing)
    served(guarded, foreign)


def test_a_flood_of_bad_handshakes_is_counted_and_not_said() -> None:
    lines, now = Lines(), 5.0
    say = Rejections(lines, "peer", lambda: now)
    for _ in range(1_000):
        say("1.2.3.4:5", "", "remote error: tls: bad certificate")
    assert len(lines.said) == REJECTED_LINES_PER_S_MAX
    now = 6.0
    say("1.2.3.4:5", "name", "remote error: tls: bad certificate")
    assert lines.said[-1][1] == "rejected connection on peer endpoint"
    assert lines.said[-1][2]["more"] == 1_000 - REJECTED_LINES_PER_S_MAX
    say("1.2.3.4:5", "", "EOF")
    assert lines.said[-1][0] == "debug"


def test_one_root_is_above_whatever_the_library_raises() -> None:
    made = [
        errors.DeadlineError(),
        errors.UnavailableError("gone"),
        errors.UnimplementedError("old"),
        errors.ClosedError("closed"),
        errors.LeaseLostError(7),
        errors.WatchCompactedError(7),
        errors.WatchCanceledByServerError(""),
        errors.from_status(2, "nobody knows this text"),
        errors.from_status(5, "etcdserver: requested lease not found"),
        LockedError("locked"),
        HeldError("held"),
        NotLeaderError("no"),
    ]
    for error in made:
        assert isinstance(error, errors.EtcdError), error
        assert str(error) and error.text == str(error) and isinstance(error.code, int)
    for told in made[:3] + made[6:8]:  # as before, these are RawErrors, too
        assert isinstance(told, errors.RawError)


def test_a_server_with_another_name_says_whom_its_certificate_names(files: Files) -> None:
    valid = f"{HANDSHAKE}tls: failed to verify certificate: x509: certificate is valid for"

    async def work(address: str, lines: Lines) -> None:
        named = TLS(str(files.ca), server_name="etcd.example")
        await expects(f"https://{address}", f"{valid} localhost, not etcd.example", named)
        other = TLS(str(files.ca), server_name="127.0.0.9")
        await expects(f"https://{address}", f"{valid} 127.0.0.1, not 127.0.0.9", other)

    served(serving_tls(files), work)


@pytest.mark.parametrize(
    ("certificate", "wanted", "said"),
    [
        (CertificateNames(), "a", "certificate is not valid for any names, but wanted to match a"),
        (
            CertificateNames("A"),
            "a",
            "certificate relies on legacy Common Name field, use SANs instead",
        ),
        (
            CertificateNames(
                dns_names=("b", "*.c"), addresses=(ip_address("::1"),), has_names=True
            ),
            "a",
            "certificate is valid for b, *.c, not a",
        ),
        (
            CertificateNames(dns_names=("b",), has_names=True),
            "::1",
            "cannot validate certificate for ::1 because it doesn't contain any IP SANs",
        ),
        (
            CertificateNames(
                addresses=(ip_address("0:0:0:0:0:0:0:1"), ip_address("10.0.0.1")), has_names=True
            ),
            "10.0.0.2",
            "certificate is valid for ::1, 10.0.0.1, not 10.0.0.2",
        ),
    ],
)
def test_gos_words_for_a_name_that_does_not_match(
    certificate: CertificateNames, wanted: str, said: str
) -> None:
    assert certificate.mismatch(wanted) == f"x509: {said}"


def test_a_clients_files_may_change_between_connections(
    files: Files, strangers: Files, tmp_path: Path
) -> None:
    """And are read only then."""
    bundle = tmp_path / "bundle"
    bundle.write_bytes(strangers.ca.read_bytes())
    contexts = []

    async def work(address: str, lines: Lines) -> None:
        dial = Dialer(TLS(str(bundle)))
        endpoint = parse(f"https://{address}")
        for _ in range(2):
            with pytest.raises(DialError, match="unknown authority"):
                await dial(endpoint)
            contexts.append(dial._contexts.context())
        assert contexts[0] is contexts[1]
        bundle.write_bytes(files.ca.read_bytes())
        connection = await dial(endpoint)
        await connection.close()
        bundle.unlink()
        with pytest.raises(FileNotFoundError):
            await dial(endpoint)

    served(serving_tls(files), work)
