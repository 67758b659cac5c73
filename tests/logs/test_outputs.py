"""Rotated files and systemd's journal."""

from __future__ import annotations

import gzip
import re
import socket
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from keyraft.logs import outputs
from keyraft.logs.outputs import JournalOutput, RotatingOutput
from keyraft.logs.zap import LoggingError, ZapLogger, build_logger

LINE = b"x" * 700_000 + b"\n"


def rotating(folder: Path, **settings: Any) -> RotatingOutput:
    return RotatingOutput(str(folder / "etcd.log"), {"maxsize": 1, **settings})


def old(folder: Path, moment: datetime, packed: bool = False) -> Path:
    stamp = f"{moment:%Y-%m-%dT%H-%M-%S}.{moment.microsecond // 1000:03d}"
    path = folder / f"etcd-{stamp}.log{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(b"old") if packed else b"old")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_set_aside_in_one_millisecond_do_not_replace_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Still(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Still:
            return cls(2026, 11, 28, 23, 59, 59, 999_500, tz)

    monkeypatch.setattr(outputs, "datetime", Still)
    output = rotating(tmp_path)
    for number in range(4):
        output.write(b"%d" % number * 700_000)
    output.wait()
    kept = [(tmp_path / name).read_bytes()[:1] for name in names(tmp_path)]
    assert sorted(kept) == [b"0", b"1", b"2", b"3"]


def test_a_file_is_set_aside_before_it_is_too_large(tmp_path: Path) -> None:
    output = rotating(tmp_path)
    for _ in range(3):
        output.write(LINE)
    output.wait()
    assert (tmp_path / "etcd.log").read_bytes() == LINE
    first, second, _ = names(tmp_path)
    assert re.fullmatch(r"etcd-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}\.log", first)
    assert (tmp_path / first).read_bytes() == (tmp_path / second).read_bytes() == LINE
    assert (tmp_path / first).stat().st_mode & 0o777 == 0o600
    again = rotating(tmp_path)  # a member that starts again goes on with the file
    again.write(b"y")
    assert (tmp_path / "etcd.log").read_bytes() == LINE + b"y"


def test_old_files_go_by_number_and_are_compressed_and_others_stay(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    left = old(tmp_path, now - timedelta(hours=1))  # by a member that ended before it compressed
    gone = old(tmp_path, now - timedelta(hours=3), packed=True)
    others = [tmp_path / "etcd-other.log", tmp_path / "etcd-2024.log", tmp_path / "more.log"]
    for other in others:
        other.write_bytes(b"other")
    output = rotating(tmp_path, maxbackups=2, compress=True)
    output.write(LINE)
    output.write(LINE)
    output.wait()
    assert not gone.exists() and not left.exists()
    packed = [path for path in tmp_path.iterdir() if path.suffix == ".gz"]
    assert len(packed) == 2
    assert {gzip.decompress(path.read_bytes()) for path in packed} == {b"old", LINE}
    assert all(path.stat().st_mode & 0o777 in (0o600, 0o644) for path in packed)
    assert all(other.exists() for other in others)
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("localtime", [False, True])
def test_old_files_go_by_the_age_in_their_names(tmp_path: Path, localtime: bool) -> None:
    now = datetime.now() if localtime else datetime.now(UTC).replace(tzinfo=None)
    young = old(tmp_path, now - timedelta(days=2, hours=20))
    aged = old(tmp_path, now - timedelta(days=3, hours=4), packed=True)
    output = rotating(tmp_path, maxage=3, localtime=localtime)
    output.write(LINE)
    output.write(LINE)
    output.wait()
    assert young.exists() and not aged.exists()


def test_a_folder_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    output = rotating(tmp_path / "logs")
    output.write(LINE)
    (tmp_path / "logs" / "etcd.log").unlink()
    output.write(LINE)  # cannot be set aside
    output.write(LINE)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            '{"maxsize": "a"}',
            "invalid log rotation config: json: cannot unmarshal string into Go struct field "
            "logRotationConfig.Logger.maxsize of type int",
        ),
        (
            '{"maxAge": 1.5}',
            "invalid log rotation config: json: cannot unmarshal number 1.5 into Go struct field "
            "logRotationConfig.Logger.maxage of type int",
        ),
        (
            "[1]",
            "invalid log rotation config: json: cannot unmarshal array into Go value of type "
            "embed.logRotationConfig",
        ),
        (
            '{"maxsize":',
            "improperly formatted log rotation config: unexpected end of JSON input",
        ),
    ],
)
def test_bad_settings_are_refused_as_by_etcd(tmp_path: Path, settings: str, text: str) -> None:
    with pytest.raises(LoggingError) as refused:
        build_logger([str(tmp_path / "etcd.log")], "info", "json", True, settings)
    assert str(refused.value) == text


def test_keys_that_lumberjack_does_not_know_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "etcd.log"
    log = build_logger([str(path)], "info", "json", True, '{"MaxSize": 1, "what": [1]}')
    log.info("hello")
    assert b"hello" in path.read_bytes()


def test_several_outputs_have_every_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    log = build_logger([str(first), "stdout", "stderr", str(second)], "info", "console", False, "")
    log.info("everywhere")
    out, err = capfd.readouterr()
    assert [text.count("everywhere") for text in (out, err)] == [1, 1]
    assert first.read_text() == second.read_text() == out == err


def test_the_journal_is_told_level_and_package(tmp_path: Path) -> None:
    address = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(address)
        for form in ("json", "console"):
            output = JournalOutput(address)
            log = ZapLogger((output,), "info", form)
            log.warn("careful", key="a\nb")
            datagram = journal.recv(65_536)
            fields, _, rest = datagram.partition(b"MESSAGE\n")
            assert fields == b"PRIORITY=4\nPACKAGE=logs\nSYSLOG_IDENTIFIER=etcd\n"
            size = int.from_bytes(rest[:8], "little")
            assert rest[8 + size :] == b"\n" and b"careful" in rest[8 : 8 + size]
            output._socket.close()


def test_a_journal_that_goes_away_leaves_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    address = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(address))
        output = JournalOutput(str(address))
    output.write(b"the last words\n")
    output._socket.close()
    assert capfd.readouterr().err == "the last words\n"


def test_without_a_journal_or_beside_others_it_is_refused() -> None:
    with pytest.raises(LoggingError) as refused:
        build_logger(["systemd/journal", "stderr"], "info", "json", False, "")
    assert str(refused.value) == (
        "running with systemd/journal but other '--log-outputs' values "
        '(["stderr" "systemd/journal"]) are configured with \'default\'; '
        "override 'default' value with something else"
    )


def test_a_missing_journal_is_told_as_by_etcd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = str(tmp_path / "none")
    monkeypatch.setattr("keyraft.logs.outputs.JOURNAL_SOCKET", nowhere)
    monkeypatch.setattr(JournalOutput.__init__, "__defaults__", (nowhere,))
    with pytest.raises(LoggingError) as refused:
        build_logger(["systemd/journal"], "info", "json", False, "")
    assert str(refused.value) == (
        f"can't find journal (dial unixgram {nowhere}: connect: no such file or directory)"
    )
