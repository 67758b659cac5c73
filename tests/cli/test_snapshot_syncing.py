"""A saved snapshot goes to the disk while it grows, and a disk that fails is not passed over."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from keyraft.cli.ctl.snapshot import SYNC_BYTES, Syncing

PIECE = bytes(SYNC_BYTES // 4)


def test_what_was_written_is_in_the_file_and_synced_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fdatasync

    def noted(descriptor: int) -> None:
        sync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", noted)

    async def save() -> None:
        with (tmp_path / "part").open("wb") as file:
            written = 0
            async with Syncing(file) as syncing:
                for _ in range(19):
                    file.write(PIECE)
                    written += len(PIECE)
                    await syncing.reached(written)

    asyncio.run(save())
    assert (tmp_path / "part").stat().st_size == 19 * len(PIECE)
    assert len(synced) == 4
    for number, size in enumerate(synced, 1):
        assert size >= number * SYNC_BYTES  # it may have grown on meanwhile


def test_an_error_of_the_disk_ends_the_save() -> None:
    async def save() -> None:
        reader, writer = os.pipe()  # which nobody can sync
        os.close(reader)
        with os.fdopen(writer, "wb", 0) as file:
            async with Syncing(file) as syncing:  # type: ignore[arg-type]
                await syncing.reached(SYNC_BYTES)

    with pytest.raises(OSError):
        asyncio.run(save())
