"""The file of the audit log: set aside, moved away by others, full, and torn by a crash."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from keyraft.audit.files import LOOK_S, AuditFile


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(path: Path, clock: Clock, bytes_max: int = 0, backups_max: int = 0) -> AuditFile:
    return AuditFile(str(path), bytes_max, backups_max, clock, clock)


def test_it_is_set_aside_and_the_oldest_go(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "audit-mine.log").write_text("not ours")
    file = opened(tmp_path / "audit.log", clock, bytes_max=10, backups_max=2)
    for number in range(5):
        clock.now += 1.5
        file.write(b"line%d---\n" % number)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == [
        "audit-2023-11-14T22-13-26.000.log",
        "audit-2023-11-14T22-13-27.500.log",
        "audit-mine.log",
        "audit.log",
    ]
    assert (tmp_path / "audit.log").read_bytes() == b"line4---\n"
    assert stat.S_IMODE((tmp_path / "audit.log").stat().st_mode) == 0o600


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "audit.log"
    file = opened(path, clock)
    file.write(b"1\n")
    path.rename(tmp_path / "old")
    file.write(b"2\n")  # within a second of the last look
    clock.now += LOOK_S
    file.write(b"3\n")
    assert ((tmp_path / "old").read_bytes(), path.read_bytes()) == (b"1\n2\n", b"3\n")
    path.unlink()
    clock.now += LOOK_S
    file.write(b"4\n")
    assert path.read_bytes() == b"4\n"


def test_a_line_that_a_crash_has_torn_gets_its_end(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(b'{"time":"20')
    opened(path, clock).write(b"next\n")
    assert path.read_bytes() == b'{"time":"20\nnext\n'


def test_what_was_written_before_the_disk_was_full_is_not_written_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(tmp_path / "audit.log", clock)
    room = [4]

    def write(descriptor: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        count = min(room[0], len(data))
        room[0] -= count
        return real(descriptor, data[:count])

    real = os.write
    monkeypatch.setattr(os, "write", write)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            file.write(b"123456\n")
    room[0] = 100
    file.write(b"123456\n")
    file.write(b"next\n")
    assert (tmp_path / "audit.log").read_bytes() == b"123456\nnext\n"
