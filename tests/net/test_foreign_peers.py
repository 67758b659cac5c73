"""grpcio, gRPC-Go, curl and h2spec against our server; our client against grpcio and gRPC-Go."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop

from keyraft.grpc import RpcError, status
from keyraft.net import Channel, client_context
from tests.net.certificates import make_authority, serving_tls
from tests.net.peers import ServerThread

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    with ServerThread() as thread:
        yield thread


def build(folder: Path, name: str, package: str) -> Path:
    """Builds a Go program, or skips."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go compiler")
    target = folder / name
    done = subprocess.run(
        [go, "build", "-o", str(target), package],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
    )
    if done.returncode:
        pytest.skip(f"Go cannot build {name} here: {done.stderr.strip()[-200:]}")
    return target


@pytest.fixture(scope="module")
def gopeer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gopeer")
    for file in (Path(__file__).parent / "gopeer").iterdir():
        shutil.copy(file, folder)
    return build(folder, "gopeer", ".")


# --- their clients, our server --------------------------------------------------------------


def unary(channel: grpc.Channel, path: str) -> Any:
    return channel.unary_unary(path, request_serializer=None, response_deserializer=None)


def test_grpcio_makes_unary_calls(server: ServerThread) -> None:
    with grpc.insecure_channel(server.address) as channel:
        echo = unary(channel, "/t.T/Echo")
        for size in (0, 1, 16_379, 16_380, 70_000, 1_500_000):
            assert echo(b"x" * size, timeout=20) == b"x" * size
        calls = [echo.future(b"%d" % i) for i in range(500)]
        assert [call.result() for call in calls] == [b"%d" % i for i in range(500)]
        token = unary(channel, "/t.T/Token")
        metadata = (("token", "abc"), ("key-bin", b"\0\xff"))
        assert token(b"", metadata=metadata) == b"abc\0\xff"


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/t.T/Fail", grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided"),
        ("/t.T/Text", grpc.StatusCode.UNKNOWN, "100% \u00fcn\u00efcode\n\ttext"),
        ("/t.T/None", grpc.StatusCode.UNIMPLEMENTED, "unknown method None for service t.T"),
        ("/no.S/None", grpc.StatusCode.UNIMPLEMENTED, "unknown service no.S"),
    ],
)
def test_grpcio_sees_our_errors(server: ServerThread, path: str, code: Any, text: str) -> None:
    with grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel, path)(b"", timeout=20)
        assert (caught.value.code(), caught.value.details()) == (code, text)  # type: ignore[attr-defined]


def test_grpcio_deadline_and_cancel_stop_the_work(server: ServerThread) -> None:
    with grpc.insecure_channel(server.address) as channel:
        hold, echo = unary(channel, "/t.T/Hold"), unary(channel, "/t.T/Echo")
        before = len(server.cancels)
        with pytest.raises(grpc.RpcError) as caught:
            hold(b"", timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
        call = hold.future(b"")
        echo(b"")
        call.cancel()
        while len(server.cancels) < before + 2:
            echo(b"")
        assert server.cancels[-1] == status.CANCELLED


def test_grpcio_streams_all_three_ways(server: ServerThread) -> None:
    plain = {"request_serializer": None, "response_deserializer": None}
    with grpc.insecure_channel(server.address) as channel:
        echoes = channel.stream_stream("/t.T/Echoes", **plain)
        sent = [b"x" * (i * 997 % 60_000) for i in range(300)]
        assert list(echoes(iter(sent), timeout=30)) == sent
        assert list(echoes(iter(()), timeout=30)) == []
        count = channel.unary_stream("/t.T/Count", **plain)
        assert sum(len(m) for m in count(b"100 100000", timeout=30)) == 10_000_000
        join = channel.stream_unary("/t.T/Join", **plain)
        assert join(iter([b"a", b"b", b"c" * 50_000]), timeout=30) == b"ab" + b"c" * 50_000


def test_grpcio_speaks_tls_and_shows_its_certificate(tmp_path: Path) -> None:
    files = make_authority(tmp_path)
    tls = serving_tls(files, guarded=True)
    with ServerThread(tls=tls) as server:
        credentials = grpc.ssl_channel_credentials(
            files.ca.read_bytes(), files.client_key.read_bytes(), files.client_cert.read_bytes()
        )
        with grpc.secure_channel(server.address, credentials) as channel:
            assert unary(channel, "/t.T/Echo")(b"secret", timeout=20) == b"secret"
            assert unary(channel, "/t.T/Name")(b"", timeout=20) == b"root"
        with (
            grpc.secure_channel(
                server.address, grpc.ssl_channel_credentials(files.ca.read_bytes())
            ) as channel,
            pytest.raises(grpc.RpcError),
        ):
            unary(channel, "/t.T/Echo")(b"", timeout=5)


def test_go_makes_every_kind_of_call(server: ServerThread, gopeer: Path) -> None:
    done = subprocess.run(
        [str(gopeer), "client", server.address], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") >= 22


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_gets_plain_http_on_the_same_port(server: ServerThread, version: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")

    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", version, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True
        ).stdout

    base = f"http://{server.address}"
    assert curl(base + "/a?b=c") == "GET /a?b=c http 127.0.0.1 "
    assert curl("-d", "x" * 100_000, base + "/p") == "POST /p http 127.0.0.1 " + "x" * 100_000
    assert curl(base + "/pieces") == "".join(f"piece {i}\n" for i in range(5))
    assert "content-length: 26" in curl("-I", base + "/head").lower()


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_over_tls_gets_what_it_negotiates(tmp_path: Path, version: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    files = make_authority(tmp_path)
    with ServerThread(tls=serving_tls(files)) as server:
        done = subprocess.run(
            ["curl", "-sS", version, "--cacert", str(files.ca), "-w", "%{http_version}",
             f"https://{server.address}/x"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    assert done.stdout == f"GET /x https 127.0.0.1 {'2' if version == '--http2' else '1.1'}"


def test_h2spec_finds_nothing(server: ServerThread, tmp_path: Path) -> None:
    for file in (Path(__file__).parent / "h2spec").iterdir():
        shutil.copy(file, tmp_path)
    program = build(tmp_path, "h2spec", "github.com/summerwind/h2spec/cmd/h2spec")
    host, port = server.address.split(":")
    done = subprocess.run(
        [str(program), "-h", host, "-p", port, "-o", "5"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    failed = [line.strip() for line in done.stdout.splitlines() if "\u00d7" in line]
    # A port that speaks HTTP/1.1 too answers a broken preface as HTTP/1.1 does, and etcd's the same.
    assert [line for line in failed if "Sends invalid connection preface" not in line] == []
    assert " 0 failed" in done.stdout or len(set(failed)) == 1


# --- our client, their servers ----------------------------------------------------------------


@asynccontextmanager
async def go_server(gopeer: Path) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        str(gopeer), "server", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


async def talk(channel: Channel) -> None:
    """Every kind of call, against a server with the methods of `peers`."""
    for size in (0, 1, 16_379, 16_380, 70_000, 3_000_000):
        message = os.urandom(size)
        assert await channel.unary(b"/t.T/Echo", message, timeout_s=20) == message
    answers = await asyncio.gather(
        *[channel.unary(b"/t.T/Echo", b"%d" % i * (i % 300), timeout_s=30) for i in range(1000)]
    )
    assert answers == [b"%d" % i * (i % 300) for i in range(1000)]
    with pytest.raises(RpcError) as caught:
        await channel.unary(b"/t.T/Fail", b"")
    assert (caught.value.code, caught.value.text) == (3, "etcdserver: key is not provided")
    with pytest.raises(RpcError) as caught:
        await channel.unary(b"/t.T/Text", b"")
    assert caught.value.text == "100% \u00fcn\u00efcode\n\ttext"
    with pytest.raises(RpcError) as caught:
        await channel.unary(b"/t.T/Hold", b"", timeout_s=0.05)
    assert caught.value.code == status.DEADLINE_EXCEEDED
    assert await channel.unary(b"/t.T/Token", b"", metadata=((b"token", b"abc"),)) == b"abc"
    stream = await channel.stream(b"/t.T/Echoes")
    sent = [b"x" * (i * 997 % 90_000) for i in range(300)]

    async def write() -> None:
        for message in sent:
            await stream.send(message)
        stream.half_close()

    writer = asyncio.ensure_future(write())
    assert [message async for message in stream] == sent
    await writer
    given_up = await channel.stream(b"/t.T/Echoes")
    await given_up.send(b"a")
    assert await given_up.receive() == b"a"
    given_up.cancel()
    with pytest.raises(RpcError) as caught:
        await given_up.receive()
    assert caught.value.code == status.CANCELLED
    assert await channel.unary(b"/t.T/Echo", b"still here") == b"still here"
    assert channel.dials_total == 1


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(body(), 60)

    uvloop.run(main())


def test_our_client_calls_a_go_server(gopeer: Path) -> None:
    async def body() -> None:
        async with go_server(gopeer) as address, Channel(f"http://{address}") as channel:
            await talk(channel)

    run(body)


class Grpcio(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """The methods of `peers`, as grpcio serves them."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def service(self, details: Any) -> Any:
        method = details.method.rsplit("/")[-1]

        def answer(request: bytes, context: Any) -> bytes:
            if method == "Fail":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided")
            if method == "Text":
                context.abort(grpc.StatusCode.UNKNOWN, "100% \u00fcn\u00efcode\n\ttext")
            if method == "Hold":
                context.add_callback(self.released.set)
                self.released.wait(5)
            if method == "Token":
                return str(dict(context.invocation_metadata())["token"]).encode()
            return request

        if method == "Echoes":
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: requests)
        return grpc.unary_unary_rpc_method_handler(answer)


def test_our_client_calls_a_grpcio_server() -> None:
    options = [("grpc.max_receive_message_length", -1)]
    theirs = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Grpcio()], options=options)
    port = theirs.add_insecure_port("127.0.0.1:0")
    theirs.start()
    try:

        async def body() -> None:
            async with Channel(f"http://127.0.0.1:{port}") as channel:
                await talk(channel)

        run(body)
    finally:
        theirs.stop(0).wait()


def test_our_client_speaks_tls_and_refuses_a_wrong_name(tmp_path: Path) -> None:
    files = make_authority(tmp_path)
    with ServerThread(tls=serving_tls(files)) as server:

        async def body() -> None:
            trusting = client_context(trusted_ca_file=str(files.ca))
            async with Channel(f"https://{server.address}", tls=trusting) as channel:
                assert await channel.unary(b"/t.T/Echo", b"secret") == b"secret"
            async with Channel(
                f"https://{server.address}", tls=trusting, server_name="elsewhere"
            ) as channel:
                with pytest.raises(RpcError) as caught:
                    await channel.unary(b"/t.T/Echo", b"")
                assert caught.value.code == status.UNAVAILABLE
                assert "certificate verify failed" in caught.value.text

        run(body)
