"""Flags of the proxy that change what it does, each seen from outside."""

from __future__ import annotations

import asyncio
import json
import struct
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from bench.rawclient import header_block
from keyraft.client import Client, errors
from keyraft.grpc import PREFACE
from keyraft.proxy.grpcproxy import GrpcProxy
from tests.grpc.wire import END_HEADERS, HEADERS, RST, SETTINGS, frame, settings
from tests.support.ports import free_ports
from tests.support.proxies import behind, through_proxy
from tests.support.server import OURS, Server

MAX_CONCURRENT_STREAMS = 3  # RFC 9113 §6.5.2
REFUSED_STREAM = 7  # RFC 9113 §7

pytestmark = pytest.mark.real


def page(address: str, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://{address}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refusal:
        return refusal.code, refusal.read().decode()


@pytest.mark.parametrize("ordered", [True, False])
def test_with_an_ordering_no_read_goes_back(
    ordered: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One endpoint is far ahead and goes away, the other one comes and is behind."""
    place = tmp_path_factory.mktemp("ordering")
    ahead, late = (Server(OURS, place / name) for name in ("ahead", "late"))
    ahead.start()

    async def body(proxy: GrpcProxy, client: Client) -> None:
        for number in range(5):
            await client.put("k", str(number))
        newest = (await client.get("k", serializable=True)).header.revision
        ahead.kill()
        await asyncio.to_thread(late.start)
        if not ordered:
            assert (await client.get("k", serializable=True)).header.revision < newest
            return
        for _ in range(3):
            with pytest.raises(errors.EtcdError, match="no cluster members have a revision higher"):
                await client.get("k", serializable=True)
        async with Client(late.endpoint) as direct:
            while (await direct.put("k", "here")).header.revision < newest:
                pass
        got = await client.get("k", serializable=True)
        assert got.header.revision >= newest and got.kvs[0].value == b"here"

    try:
        through_proxy(
            body,
            ahead.endpoint,
            late.endpoint,
            experimental_serializable_ordering=ordered,
        )
    finally:
        ahead.kill()
        late.kill()


def test_metrics_profiles_and_the_log_of_calls_stand_where_the_flags_say(member: Server) -> None:
    port = free_ports(1)[0]
    proxy = behind(
        OURS,
        member,
        f"--metrics-addr=http://127.0.0.1:{port}",
        "--experimental-enable-grpc-logging",
        "--enable-pprof",
    )
    proxy.start()
    try:

        async def call() -> None:
            async with Client(proxy.endpoint) as client:
                await client.put("k", "secret value")
                with pytest.raises(errors.EtcdError):
                    await client.put("", "x")

        asyncio.run(call())
        status, text = page(f"127.0.0.1:{port}", "/proxy/metrics")
        assert status == 200 and "etcd_grpc_proxy_cache_keys_total" in text
        assert page(f"127.0.0.1:{port}", "/metrics")[0] == 200
        assert json.loads(page(f"127.0.0.1:{port}", "/health")[1])["health"] == "true"
        assert page(f"127.0.0.1:{port}", "/v3/kv/range")[0] == 404
        assert "goroutine" in page(proxy.endpoint, "/debug/pprof/")[1]
        assert "Pool._keep" in page(proxy.endpoint, "/debug/pprof/goroutine?debug=1")[1]
        status, text = page(proxy.endpoint, "/debug/pprof/profile?seconds=0.2&debug=1")
        assert status == 200 and "cpu" in text
    finally:
        proxy.stop()
    lines = [json.loads(line) for line in proxy.log.splitlines() if '"finished call"' in line]
    puts = [line for line in lines if line["grpc-method"] == "/etcdserverpb.KV/Put"]
    assert [line["grpc-code"] for line in puts] == ["OK", "InvalidArgument"]
    assert puts[0]["request-bytes"] > 10 and puts[0]["response-bytes"] > 10
    assert "secret value" not in proxy.log


def test_without_the_flags_there_are_neither_profiles_nor_lines_of_calls(member: Server) -> None:
    async def body(proxy: GrpcProxy, client: Client) -> None:
        await client.put("k", "v")
        assert proxy.router.ends.from_s == float("inf")
        address = proxy.server.addresses[0]
        assert (await asyncio.to_thread(page, address, "/debug/pprof/"))[0] == 404

    through_proxy(body, member.endpoint)


def test_a_client_has_no_more_streams_than_it_may(member: Server) -> None:
    """It is told how many, and one who opens more is refused."""
    limit = 2

    async def body(proxy: GrpcProxy, client: Client) -> None:
        address = proxy.server.addresses[0]
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        block = header_block("/etcdserverpb.Watch/Watch", address)
        streams = [frame(HEADERS, END_HEADERS, 1 + 2 * n, block) for n in range(limit + 1)]
        writer.write(PREFACE + settings() + b"".join(streams))
        advertised = None
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == SETTINGS and not head[4]:
                values = dict(struct.iter_unpack(">HI", payload))
                advertised = values.get(MAX_CONCURRENT_STREAMS)
            elif head[3] == RST:
                break
        assert advertised == limit
        assert int.from_bytes(head[5:], "big") == 1 + 2 * limit
        assert int.from_bytes(payload, "big") == REFUSED_STREAM
        writer.close()

    through_proxy(body, member.endpoint, max_concurrent_streams=limit)
