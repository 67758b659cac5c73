"""The generated messages are current and keep to themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pool

from keyraft.proto import raft_internal_pb2, rpc_pb2

ROOT = Path(__file__).resolve().parents[2]


def test_generated_code_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen_proto.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_messages_stay_out_of_the_default_pool() -> None:
    assert rpc_pb2.PutRequest.DESCRIPTOR.file.pool is not descriptor_pool.Default()


def test_internal_request_wraps_the_requests_own_bytes() -> None:
    put = rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString()
    wrapped = bytes([(4 << 3) | 2, len(put)]) + put
    assert raft_internal_pb2.InternalRaftRequest.FromString(wrapped).put.key == b"k"
