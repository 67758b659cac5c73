"""Members ask each other beside Raft; the original's answers are understood too."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from keyraft.base import errors
from keyraft.base.log import NullLogger
from keyraft.grpc import Limits, Router
from keyraft.net import PEER_PORT, Http1Client, Http1Service, Server
from keyraft.peer.api_client import PeerApiClient
from keyraft.peer.api_handlers import ApiHandlers, HashKVAnswer
from keyraft.peer.compat import PeerRefusal
from keyraft.peer.exchange import Routes
from keyraft.proto import rpc_pb2
from tests.support.server import ORACLE, needs_oracle

MEMBER: dict[str, Any] = {
    "id": 7,
    "peerURLs": ["http://x"],
    "name": "m",
    "clientURLs": ["http://y"],
}


class Answering:
    """A member that answers as it was told."""

    applied = True
    refusal: type[errors.EtcdError] | None = None

    def members_json(self) -> list[dict[str, Any]]:
        return [MEMBER]

    def versions_json(self) -> dict[str, str]:
        return {"etcdserver": "3.7.1", "etcdcluster": "3.7.0"}

    def check(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def promote(self, member_id: int, token: str | None) -> list[dict[str, Any]]:
        self.check()
        assert (member_id, token) == (7, "secret")
        return [MEMBER]

    async def hash_kv(self, revision: int) -> HashKVAnswer:
        self.check()
        return HashKVAnswer(9, 1234, -1, revision or 9)

    async def wait_applied(self) -> bool:
        return self.applied

    async def renew(self, lease_id: int) -> int:
        self.check()
        return 60

    async def time_to_live(self, lease_id: int, keys: bool) -> rpc_pb2.LeaseTimeToLiveResponse:
        self.check()
        return rpc_pb2.LeaseTimeToLiveResponse(
            ID=lease_id, TTL=5, grantedTTL=60, keys=[b"k"] if keys else []
        )

    async def downgrade_enabled(self) -> bool:
        self.check()
        return True


def run(test: Callable[[Answering, str, PeerApiClient], Awaitable[None]]) -> None:
    async def main() -> None:
        local = Answering()
        routes = Routes(NullLogger())
        ApiHandlers(local, 0xC1).register(routes)
        loop = asyncio.get_running_loop()
        service = Http1Service(routes.handle, loop, PEER_PORT, early=True)
        server = Server(loop, Router(), Limits(), None, http1=service)
        await server.listen("http://127.0.0.1:0", None)
        client = Http1Client()
        try:
            await test(local, f"http://{server.addresses[0]}", PeerApiClient(client, NullLogger()))
        finally:
            client.close()
            await routes.stop()
            await server.stop()

    asyncio.run(main())


def test_every_question_has_its_answer() -> None:
    async def test(local: Answering, url: str, ask: PeerApiClient) -> None:
        view = await ask.cluster(["http://127.0.0.1:1", url])
        assert (view.cluster_id, view.members) == (0xC1, [MEMBER])
        versions = await ask.versions([url], 5)
        assert versions is not None and versions["etcdserver"] == "3.7.1"
        assert await ask.promote(url, 7, "secret", 5) == [MEMBER]
        assert await ask.hash_kv(url, 0xC1, 3, 5) == HashKVAnswer(9, 1234, -1, 3)
        assert await ask.renew(url, 12, 5) == 60
        answer = await ask.time_to_live(url, 12, True, 5)
        assert (answer.ID, answer.TTL, answer.grantedTTL, list(answer.keys)) == (12, 5, 60, [b"k"])

    run(test)


def test_every_refusal_keeps_its_meaning() -> None:
    async def test(local: Answering, url: str, ask: PeerApiClient) -> None:
        for refusal in (
            errors.MemberNotFoundError,
            errors.MemberNotLearnerError,
            errors.LearnerNotReadyError,
        ):
            local.refusal = refusal
            with pytest.raises(refusal):
                await ask.promote(url, 7, "secret", 5)
        for missed in (errors.CompactedError, errors.FutureRevisionError):
            local.refusal = missed
            with pytest.raises(missed):
                await ask.hash_kv(url, 0xC1, 3, 5)
        with pytest.raises(errors.ClusterIDMismatchError):
            await ask.hash_kv(url, 0xBAD, 3, 5)
        local.refusal = errors.LeaseNotFoundError
        with pytest.raises(errors.LeaseNotFoundError):
            await ask.renew(url, 1, 5)
        with pytest.raises(errors.LeaseNotFoundError):
            await ask.time_to_live(url, 1, False, 5)
        local.refusal = errors.NotLeaderError
        with pytest.raises(PeerRefusal, match="not a primary lessor"):
            await ask.renew(url, 1, 5)
        local.refusal = None
        local.applied = False
        with pytest.raises(PeerRefusal, match="catch up its applied index"):
            await ask.renew(url, 1, 5)
        with pytest.raises(PeerRefusal, match="could not retrieve cluster information"):
            await ask.cluster(["http://127.0.0.1:1"])

    run(test)


CASES = [
    ("GET", "/", b"", 404, "404 page not found"),
    ("GET", "/metrics", b"", 404, "404 page not found"),
    ("POST", "/members", b"", 405, "Method Not Allowed"),
    ("POST", "/version", b"", 405, "Method Not Allowed"),
    ("GET", "/leases", b"", 405, "Method Not Allowed"),
    ("POST", "/leases", b"\xff", 400, "error unmarshalling request"),
    ("POST", "/leases", b"x" * 70_000, 413, "request body too large"),
    ("POST", "/members/promote/abc", b"", 404, "member abc not found in cluster"),
    (
        "POST",
        "/members/promote/" + "9" * 5_000,
        b"",
        404,
        f"member {'9' * 5_000} not found in cluster",
    ),
    (
        "POST",
        "/members/promote/18446744073709551616",
        b"",
        404,
        "member 18446744073709551616 not found in cluster",
    ),
    ("POST", "/members/promote/", b"", 404, "member  not found in cluster"),
    ("POST", "/members/promote/%D9%A3", b"", 404, "member \u0663 not found in cluster"),
    ("GET", "/members/hashkv", b"{", 400, "error unmarshalling request"),
    ("GET", "/members/hashkv", b'{"revision": Infinity}', 400, "error unmarshalling request"),
    ("GET", "/members/hashkv", b'{"revision": 1e999}', 400, "error unmarshalling request"),
    ("GET", "/members/hashkv", b'{"revision": 1.5}', 400, "error unmarshalling request"),
    ("GET", "/members/hashkv", b'{"revision": "1"}', 400, "error unmarshalling request"),
    ("GET", "/members/hashkv", b'{"revision": true}', 400, "error unmarshalling request"),
    (
        "GET",
        "/members/hashkv",
        b'{"revision": 9223372036854775808}',
        400,
        "error unmarshalling request",
    ),
    (
        "GET",
        "/members/hashkv",
        b'{"revision": ' + b"9" * 5_000 + b"}",
        400,
        "error unmarshalling request",
    ),
    ("GET", "/members/hashkv", b"[]", 400, "error unmarshalling request"),
    ("GET", "/members/hashkv", b"", 400, "error unmarshalling request"),
    ("GET", "/members/hashkv", b"[" * 60_000, 400, "error unmarshalling request"),
    (
        "GET",
        "/members/hashkv",
        b'{"revision": ' + b"[" * 59_000,
        400,
        "error unmarshalling request",
    ),
]


def test_bad_requests_get_the_originals_answers() -> None:
    async def test(local: Answering, url: str, ask: PeerApiClient) -> None:
        client = Http1Client()
        for method, path, body, status, text in CASES:
            answer = await client.request(method, url, path, body=body)
            assert (answer.status, answer.body.decode().strip()) == (status, text), path
        client.close()

    run(test)


@pytest.mark.real
@needs_oracle()
def test_the_original_answers_the_same_and_is_understood(tmp_path: Path) -> None:
    async def main() -> None:
        urls = []
        for _ in range(2):
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
            urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            server.close()
            await server.wait_closed()
        client, peer = urls
        with (tmp_path / "log").open("wb") as log:
            go = subprocess.Popen(
                [
                    *ORACLE,
                    "--name=go",
                    f"--data-dir={tmp_path / 'go'}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=go={peer}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            asking = Http1Client()
            async with asyncio.timeout(30):
                ask = PeerApiClient(asking, NullLogger())
                while True:
                    try:
                        view = await ask.cluster([peer])
                        if view.members[0].get("clientURLs"):
                            break
                    except PeerRefusal:
                        pass
                    await asyncio.sleep(0.05)
                assert view.members[0]["name"] == "go"
                found = await ask.hash_kv(peer, view.cluster_id, 0, 5)
                assert found.compact_revision == -1
                with pytest.raises(errors.FutureRevisionError):
                    await ask.hash_kv(peer, view.cluster_id, 99, 5)
                with pytest.raises(errors.LeaseNotFoundError):
                    await ask.renew(peer, 99, 5)
                with pytest.raises(errors.MemberNotFoundError):
                    await ask.promote(peer, 99, None, 5)
                for method, path, body, status, text in CASES:
                    if len(body) > 60_000:
                        continue  # 3.5.1 has no limit yet
                    answer = await asking.request(method, peer, path, body=body)
                    assert (answer.status, answer.body.decode().strip()) == (status, text), path
                answer = await asking.request("GET", peer, "/members")
                assert answer.headers["content-type"] == "application/json"
                assert json.loads(answer.body) == view.members
            asking.close()
        finally:
            go.terminate()
            go.wait()

    asyncio.run(main())
