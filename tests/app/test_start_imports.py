"""What a start loads, before its first line and before it serves: a member that was killed is
away for as long. The limits may go down, and up only for a reason that the commit names.
"""

from __future__ import annotations

import importlib

import pytest

from keyraft.app.preloading import LATER
from tests.support.imports import loaded, ours

COMMAND = "import keyraft.cli.etcd"
MEMBER = f"{COMMAND}, keyraft.app.member"

NEVER = (
    "aiohttp",
    "click",
    "crc32c",
    "cryptography",
    "ctypes",
    "dns",
    "email",
    "google.protobuf.internal.python_message",
    "google.protobuf.text_format",
    "http",
    "importlib.metadata",
    "jwt",
    "keyraft.offline",
    "keyraft.client",
    "keyraft.storage.bolt",
    "multiprocessing",
    "platform",
    "prometheus_client",
    "shutil",
    "sortedcontainers",
    "tempfile",
    "urllib.request",
    "yaml",
    "zipfile",
    *LATER,
)
NOT_BEFORE_THE_FIRST_LINE = (
    "asyncio",
    "dataclasses",
    "google",
    "inspect",
    "lmdb",
    "logging",
    "ssl",
    "uvloop",
    "keyraft.grpc",
    "keyraft.mvcc",
    "keyraft.net",
    "keyraft.raft",
    "keyraft.server",
)


@pytest.mark.real
def test_before_the_first_line_only_the_flags_are_loaded() -> None:
    modules = loaded(COMMAND)
    assert modules.isdisjoint((*NEVER, *NOT_BEFORE_THE_FIRST_LINE))
    assert (ours(modules), len(modules)) <= (30, 125)


@pytest.mark.real
def test_before_it_serves_a_member_loads_what_serving_needs() -> None:
    modules = loaded(MEMBER)
    assert modules.isdisjoint(NEVER)
    assert ours(modules) <= 352 and len(modules) <= 560


def test_what_is_loaded_later_is_there() -> None:
    for name in LATER:
        importlib.import_module(name)
