"""A live member whose peer port is told anything at all: it serves on, and starts again."""

from __future__ import annotations

import http.client
import json
import random
import re
from pathlib import Path

import pytest

from keyraft.base.ids import UINT64_MAX
from keyraft.raft import ConfState, Entry, Message, MessageType, Snapshot, SnapshotMeta, codec
from tests.raft.test_hostile import random_message
from tests.support.server import OURS, Server, etcdctl

pytestmark = pytest.mark.real
STRANGER = 0xBAD


class Peer:
    """Whoever reached the peer port: it knows the ids that every member is told."""

    def __init__(self, server: Server) -> None:
        self._port = server.peer_port
        found = re.search(
            r'"local-member-id":"([0-9a-f]+)","local-server-version":"[^"]*","cluster-id":"([0-9a-f]+)"',
            server.log,
        )
        assert found is not None, server.log[-3000:]
        self.member_id = int(found[1], 16)
        self.headers = {
            "X-Server-From": f"{STRANGER:x}",
            "X-Server-Version": "3.7.0",
            "X-Min-Cluster-Version": "3.0.0",
            "X-Etcd-Cluster-ID": found[2],
        }

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request(method, path, body, self.headers)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def say(self, message: Message) -> tuple[int, str]:
        message.to = self.member_id
        return self.ask("POST", "/raft", codec.encode_message(message))


def put(server: Server, key: str) -> bool:
    return etcdctl(server.endpoint, "put", key, key).returncode == 0


def test_no_message_ends_a_member_or_its_directory(tmp_path: Path) -> None:
    server = Server(OURS, tmp_path / "data").start()
    peer = Peer(server)
    try:
        assert put(server, "before")
        for term in (UINT64_MAX, UINT64_MAX - 1, 1 << 63):
            told = peer.say(Message(MessageType.HEARTBEAT.value, from_=STRANGER, term=term))
            assert told == (500, "error processing raft message\n")
            assert put(server, f"term {term:x}")
        meta = SnapshotMeta(ConfState([peer.member_id]), 1_000_000, 2)
        snapshot = Message(
            MessageType.SNAP.value, from_=STRANGER, term=9, snapshot=Snapshot(b"", meta)
        )
        assert peer.say(snapshot)[0] == 500, "no database came with it"
        garbage = Message(MessageType.PROP.value, from_=STRANGER, entries=[Entry(data=b"\xff")])
        assert peer.say(garbage)[0] == 500

        length = len(codec.encode_message(snapshot)).to_bytes(8, "big")
        posted = peer.ask("POST", "/raft/snapshot", length + codec.encode_message(snapshot) + b"db")
        assert posted[0] == 500
        left = [path.name for path in (tmp_path / "data" / "member" / "snap").iterdir()]
        assert not [name for name in left if "tmp" in name or ".snap.db" in name], left

        chance = random.Random(7)
        for _ in range(300):
            message = random_message(chance, 0.2)
            message.from_ = chance.choice([STRANGER, peer.member_id, UINT64_MAX, 1])
            status, _ = peer.say(message)
            assert status in (204, 500)
        for path in ("/members", "/version", "/raft/probing", "/downgrade/enabled"):
            assert peer.ask("GET", path)[0] in (200, 500), path
        for revision in (1 << 62, 1 << 63, UINT64_MAX, 10**30):
            body = json.dumps({"revision": revision}).encode()
            assert peer.ask("GET", "/members/hashkv", body)[0] == 400
        for lease in (b"\x08" + b"\xff" * 9 + b"\x01", b"\x08\x00", b"\xff"):
            assert peer.ask("POST", "/leases", lease)[0] in (400, 404, 408, 500)
        assert put(server, "after")
        assert "Traceback" not in server.log
        server.kill()
        server.start()
        for key in ("before", f"term {UINT64_MAX:x}", "after"):
            assert etcdctl(server.endpoint, "get", key, "--print-value-only").stdout == (
                key.encode() + b"\n"
            )
    finally:
        server.kill()
