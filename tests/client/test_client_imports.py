"""What a program that imports the client, or starts etcdctl, does not have to wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.server import environment

HEAVY = (
    "aiohttp",
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


def loaded(code: str) -> set[str]:
    """The modules that `code` leaves loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('LOADED', *sys.modules)"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    return set(done.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize(
    "code",
    ["import keyraft.client", "import keyraft.client.sync, keyraft.client.recipes"],
)
def test_the_client_brings_nothing_of_the_server(code: str) -> None:
    modules = loaded(code)
    assert "keyraft.client.watch" in modules
    assert not [name for name in HEAVY if name in modules]


def test_a_command_without_a_server_needs_no_loop_and_no_messages() -> None:
    code = "from keyraft.cli.ctl.main import run; run(['version'])"
    modules = loaded("import keyraft.cli.etcdctl\n" + code)
    for name in (*HEAVY, "asyncio", "ssl", "google.protobuf", "keyraft.client", "keyraft.proto"):
        assert name not in modules
