"""Rows that no member has written: each part says so in its declared error."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyraft.base.log import NullLogger
from keyraft.lease import Lessor
from keyraft.mvcc import BackendError, MemoryBackend
from keyraft.mvcc.backend import ALARM, LEASE
from keyraft.server.upkeep.alarms import AlarmStore
from keyraft.shell.bootstrap import Place, reopen
from keyraft.storage.files import OsFiles
from keyraft.storage.wal import WAL, WALDamagedError


@pytest.mark.parametrize("value", [b"\xff", b"\x08", b"\x0a\x05x"])
def test_a_lease_that_is_none(value: bytes) -> None:
    backend = MemoryBackend()
    backend.put(LEASE, bytes(8), value)
    with pytest.raises(BackendError, match="damaged lease 0000000000000000"):
        Lessor(backend, 1)


def test_an_alarm_that_is_none() -> None:
    backend = MemoryBackend()
    backend.put(ALARM, b"\xff", b"")
    with pytest.raises(BackendError, match="damaged alarm ff"):
        AlarmStore(backend)


@pytest.mark.parametrize("metadata", [b"\xff", b"\x08", b"\x0b"])
def test_a_logs_metadata_that_is_none(tmp_path: Path, metadata: bytes) -> None:
    path = str(tmp_path / "wal")
    WAL.create(OsFiles(), path, metadata).close()
    place = Place(OsFiles(), path, str(tmp_path), MemoryBackend(), NullLogger())  # type: ignore[arg-type]
    with pytest.raises(WALDamagedError, match="wal: metadata: "):
        reopen(place)
