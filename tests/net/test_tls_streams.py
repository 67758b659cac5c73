"""Connections with TLS: handshakes in threads, reading and writing on the loop, both ends' last words."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from keyraft.client import TLS, Client
from keyraft.grpc import Limits, Router, RpcError
from keyraft.net import Channel, Server, Terms, dial, handshake_reason, shake_hands
from keyraft.net.tls import ClientTLS, ServerTLS, TLSFiles, serving, stream
from tests.net.certificates import Files, make_authority, serving_tls

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
LIMIT_S = 30.0

pytestmark = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_authority(tmp_path_factory.mktemp("strangers"))


class Serving:
    """A server and what it said about failed handshakes."""

    def __init__(self, tls: ServerTLS, router: Router) -> None:
        self.reasons: list[tuple[str, str]] = []
        self.server = Server(
            asyncio.get_running_loop(),
            router,
            Limits(),
            lambda request: request.respond(200, [], b"plain"),
            failed=lambda client, name, why, shown: self.reasons.append((name, why)),
        )
        self._tls = tls

    async def __aenter__(self) -> Serving:
        await self.server.listen("https://127.0.0.1:0", self._tls)
        self.port = int(self.server.addresses[0].rpartition(":")[2])
        self.url = f"https://localhost:{self.port}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.server.stop()

    async def said(self) -> tuple[str, str]:
        while not self.reasons:
            await asyncio.sleep(0.001)
        return self.reasons[0]


def run(loop: str, body: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(body(), LIMIT_S)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(limited())


def echoing() -> Router:
    router = Router()
    router.unary("/t.T/Echo", lambda call, request: request)
    router.unary("/t.T/Who", lambda call, request: (call.common_name or "").encode())
    return router


def trusting(files: Files, *shown: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.ca))
    context.set_alpn_protocols(["h2"])
    if shown:
        context.load_cert_chain(*shown)
    return context


def test_messages_of_every_size_come_back(files: Files, loop: str) -> None:
    async def body() -> None:
        async with (
            Serving(serving_tls(files), echoing()) as serving_,
            Channel(serving_.url, tls=trusting(files)) as channel,
        ):
            for size in (0, 1, 16_383, 16_384, 16_385, 65_536, 1_400_000):
                assert await channel.unary(b"/t.T/Echo", b"x" * size) == b"x" * size
            many = [b"%d" % number * 3_000 for number in range(200)]
            calls = (channel.unary(b"/t.T/Echo", one) for one in many)
            assert await asyncio.gather(*calls) == many

    run(loop, body)


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
def test_no_key_and_no_certificate_is_the_business_of_the_loops_thread(
    files: Files, loop: str, version: str, guarded: bool
) -> None:
    """Only the end of a handshake of TLS 1.3 is, where the client shows no certificate."""
    steps: dict[ssl.SSLObject, list[bool]] = {}

    class Told(ssl.SSLObject):
        def do_handshake(self) -> None:
            here = threading.current_thread() is threading.main_thread()
            steps.setdefault(self, []).append(here)
            super().do_handshake()

    async def body() -> None:
        tls = serving_tls(files, Terms(version, version), guarded=guarded)
        context = trusting(files, files.client_cert, files.client_key)
        tls.context().sslobject_class = context.sslobject_class = Told
        async with (
            Serving(tls, echoing()) as serving_,
            Channel(serving_.url, tls=context) as channel,
        ):
            assert await channel.unary(b"/t.T/Echo", b"x") == b"x"
        for end, here in steps.items():
            assert not here[0] and len(here) > 1
            light = end.server_side and version == "TLS1.3" and not guarded
            assert here[-1] == light and here.count(True) == light
        assert len(steps) == 2

    run(loop, body)


@pytest.mark.parametrize("name", ["localhost", "elsewhere"])
def test_a_server_hears_why_our_clients_refuse_it(
    files: Files, strangers: Files, loop: str, name: str
) -> None:
    """With the loops' own TLS it heard that the client had hung up."""
    trusted = files if name == "elsewhere" else strangers
    heard = "bad certificate" if name == "elsewhere" else "unknown certificate authority"

    async def channel(serving_: Serving) -> None:
        address = f"https://127.0.0.1:{serving_.port}"
        made = Channel(address, tls=trusting(trusted), server_name=name)
        with pytest.raises(RpcError, match="certificate"):
            await made.unary(b"/t.T/Echo", b"")
        await made.close()

    async def client(serving_: Serving) -> None:
        tls = TLS(str(trusted.ca), server_name=name)
        address = f"https://127.0.0.1:{serving_.port}"
        async with Client(address, tls=tls, timeout_s=LIMIT_S, dial_timeout_s=LIMIT_S) as made:
            asking = asyncio.ensure_future(made.get("a"))
            await serving_.said()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def member(serving_: Serving) -> None:
        files_ = TLSFiles(
            cert_file=str(files.server_cert),
            key_file=str(files.server_key),
            trusted_ca_file=str(trusted.ca),
        )
        context = ClientTLS(files_).context()
        raw = socket.create_connection(("127.0.0.1", serving_.port))
        raw.setblocking(False)
        with pytest.raises(ssl.SSLCertVerificationError):
            await shake_hands(raw, context, name)
        assert raw.fileno() < 0

    async def body() -> None:
        for refuse in (channel, client, member):
            async with Serving(serving_tls(files), echoing()) as serving_:
                await refuse(serving_)
                assert await serving_.said() == (name, f"remote error: tls: {heard}")

    run(loop, body)


def test_a_member_that_dials_another_refuses_it_with_an_alert(
    files: Files, strangers: Files, loop: str
) -> None:
    described = TLSFiles(
        cert_file=str(files.server_cert),
        key_file=str(files.server_key),
        trusted_ca_file=str(strangers.ca),
    )

    async def body() -> None:
        async with Serving(serving_tls(files), echoing()) as serving_:
            with pytest.raises(ssl.SSLCertVerificationError):
                await dial(serving_.url, asyncio.Protocol, ClientTLS(described))
            assert (await serving_.said())[1].endswith("unknown certificate authority")

    run(loop, body)


def thread_client(
    port: int, context: ssl.SSLContext, session: Any = None
) -> tuple[bool, Any, bytes]:
    """Shakes hands, asks over HTTP/1.1 for one page; whether a session was resumed, the newest."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as raw,
        context.wrap_socket(
            raw, server_hostname="localhost", session=session, suppress_ragged_eofs=False
        ) as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := secure.recv(65_536):  # raises where the end is not said
            answer += piece
        return bool(secure.session_reused), secure.session, answer


def plain_context(files: Files, version: ssl.TLSVersion, *shown: Path) -> ssl.SSLContext:
    context = trusting(files, *shown)
    context.set_alpn_protocols(["http/1.1"])
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_and_the_server_says_when_it_hangs_up(
    files: Files, loop: str, version: ssl.TLSVersion
) -> None:
    async def body() -> None:
        async with Serving(serving_tls(files), echoing()) as serving_:
            context = plain_context(files, version)
            first, session, answer = await asyncio.to_thread(thread_client, serving_.port, context)
            assert not first and answer.endswith(b"plain")
            again, _, answer = await asyncio.to_thread(
                thread_client, serving_.port, context, session
            )
            assert again and answer.endswith(b"plain")

    run(loop, body)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_is_verified_and_ends_with_its_certificate(
    files: Files, loop: str, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []

    class Watched(ServerTLS):
        verifies = True  # type: ignore[assignment]

        def verify(self, tls: ssl.SSLObject, address: str) -> None:
            certificate = tls.getpeercert()
            assert certificate is not None
            verified.append(str(certificate["subject"]))

    described = TLSFiles(
        cert_file=str(files.server_cert),
        key_file=str(files.server_key),
        trusted_ca_file=str(files.ca),
        client_cert_auth=True,
    )

    async def body() -> None:
        async with Serving(Watched(described), echoing()) as serving_:
            context = plain_context(files, version, files.client_cert, files.client_key)
            _, session, _ = await asyncio.to_thread(thread_client, serving_.port, context)
            again, session, _ = await asyncio.to_thread(
                thread_client, serving_.port, context, session
            )
            assert again and len(verified) == 2 and verified[0] == verified[1]
            later = time.time() + datetime.timedelta(days=400).total_seconds()
            monkeypatch.setattr("keyraft.net.tls.resumption.time", lambda: later)
            with contextlib.suppress(ConnectionError):  # from sending to who has hung up
                _, _, answer = await asyncio.to_thread(
                    thread_client, serving_.port, context, session
                )
                assert answer == b""
            assert len(verified) == 2
            assert (await serving_.said())[1] == (
                "tls: failed to verify certificate: "
                "x509: certificate has expired or is not yet valid"
            )
            monkeypatch.undo()

    run(loop, body)


def test_who_says_nothing_is_given_up(
    files: Files, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HANDSHAKE_S_MAX", 0.05)

    async def body() -> None:
        async with Serving(serving_tls(files), echoing()) as serving_:
            reader, writer = await asyncio.open_connection("127.0.0.1", serving_.port)
            assert await reader.read() == b""
            assert await serving_.said() == ("", "i/o timeout")
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", serving_.port)
            writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")  # the beginning of a hello
            # Reset where the beginning came after the end, or was not read before it.
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            while serving_.server.places.taken:
                await asyncio.sleep(0)

    run(loop, body)


class Slow(asyncio.Protocol):
    """Reads nothing until it is told to."""

    def __init__(self) -> None:
        self.bytes_in = 0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        self.transport.pause_reading()  # after every piece
        self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(error)


class Pouring(asyncio.Protocol):
    """Writes for as long as it may, then closes."""

    def __init__(self, total: int) -> None:
        self.left = total
        self.stalls = 0
        self.most = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=100_000)
        self.stalled = False
        self.pour()

    def pour(self) -> None:
        while self.left and not self.stalled:
            count = min(self.left, 40_000)
            self.left -= count
            self.transport.write(b"y" * count)
            self.most = max(self.most, self.transport.get_write_buffer_size())
        if not self.left:
            self.transport.close()

    def pause_writing(self) -> None:
        self.stalled = True
        self.stalls += 1

    def resume_writing(self) -> None:
        self.stalled = False
        self.pour()


async def pair(files: Files, here: asyncio.Protocol, there: asyncio.Protocol) -> None:
    """Two protocols at the ends of one TLS connection."""
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    opened = loop.create_future()

    def begun(made: stream.TLSStream) -> None:
        made.open(here)
        opened.set_result(None)

    def failed(made: stream.TLSStream, error: OSError) -> None:
        opened.set_exception(error)

    context = serving_tls(files).context()
    stream.TLSStream(stream.Shared(loop), one, context, begun, failed, LIMIT_S)
    (await shake_hands(other, trusting(files), "localhost")).open(there)
    await opened


def test_a_slow_reader_holds_the_writer_and_gets_all_of_it(files: Files, loop: str) -> None:
    async def body() -> None:
        pouring, slow = Pouring(5_000_000), Slow()
        await pair(files, pouring, slow)
        while not pouring.stalls:
            await asyncio.sleep(0)
        assert pouring.left and pouring.most < 100_000 + 45_000
        slow.transport.resume_reading()
        assert await slow.ended is None
        assert slow.bytes_in == 5_000_000

    run(loop, body)


def test_closing_does_not_wait_for_a_reader_for_ever(
    files: Files, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CLOSE_S_MAX", 0.05)

    class Ending(Pouring):
        def __init__(self) -> None:
            super().__init__(5_000_000)
            self.lost = asyncio.get_running_loop().create_future()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.transport.close()

        def connection_lost(self, error: Exception | None) -> None:
            self.lost.set_result(error)

    async def body() -> None:
        ending, slow = Ending(), Slow()
        await pair(files, ending, slow)
        await ending.lost
        slow.transport.abort()
        await slow.ended

    run(loop, body)


def test_a_broken_record_is_answered_with_an_alert(files: Files, loop: str) -> None:
    def work(port: int) -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as raw:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = trusting(files).wrap_bio(incoming, outgoing, server_hostname="localhost")
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    incoming.write(raw.recv(65_536))
                else:
                    break
            raw.sendall(outgoing.read() + b"\x17\x03\x03\x00\x20" + b"?" * 32)
            try:
                while True:
                    incoming.write(raw.recv(65_536))
                    try:
                        tls.read()
                    except ssl.SSLWantReadError:
                        continue
            except OSError as error:
                return handshake_reason(error)

    async def body() -> None:
        async with Serving(serving_tls(files), echoing()) as serving_:
            why = await asyncio.to_thread(work, serving_.port)
            assert why == "remote error: tls: bad record MAC"

    run(loop, body)
