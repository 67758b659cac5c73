"""What a program that imports the client, or starts etcdctl, does not have to wait for."""

from __future__ import annotations

import pytest

from tests.support.imports import loaded

HEAVY = (
    "httptools",
    "cryptography",
    "click",
    "uvloop",
    "yaml",
    "prometheus_client",
    "dns",
    "lmdb",
    "keyraft.net.server",
    "keyraft.server",
    "keyraft.service",
    "google.protobuf.text_format",
    "google.protobuf.internal.python_message",
)
LATER = (  # what a client needs at its first call at the earliest, or never
    "google.protobuf",
    "keyraft.proto.rpc_pb2",
    "dataclasses",
    "random",
    "urllib.parse",
    "ipaddress",
    "keyraft.net.channel",
    "keyraft.grpc.server",
    "keyraft.grpc.router",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    ["import keyraft.client", "import keyraft.client.sync, keyraft.client.recipes"],
)
def test_the_client_brings_nothing_of_the_server(code: str) -> None:
    modules = loaded(code)
    assert "keyraft.client.watch" in modules
    assert not [name for name in HEAVY if name in modules]


def test_importing_the_client_makes_no_messages_yet() -> None:
    modules = loaded("import keyraft.client")
    assert {"asyncio", "keyraft.client.client", "keyraft.grpc.client"} <= modules
    assert not [name for name in LATER if name in modules]


def test_names_of_messages_are_there_when_they_are_asked_for() -> None:
    from keyraft import client
    from keyraft.proto import mvcc_pb2

    assert client.Event is mvcc_pb2.Event
    assert (client.PUT, client.DELETE) == (mvcc_pb2.Event.PUT, mvcc_pb2.Event.DELETE)
    assert set(client.__all__) <= set(dir(client))
    for name in client.__all__:
        assert getattr(client, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        client.Nothing  # noqa: B018


def test_a_command_without_a_server_needs_no_loop_and_no_messages() -> None:
    code = "from keyraft.cli.ctl.main import run; run(['version'])"
    modules = loaded("import keyraft.cli.etcdctl\n" + code)
    for name in (*HEAVY, "asyncio", "ssl", "google.protobuf", "keyraft.client", "keyraft.proto"):
        assert name not in modules
