"""`--bootstrap-defrag-threshold-megabytes`: what would free as much is written anew at the start."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyraft.app.data_dir import defragmented, kv_directory
from keyraft.config.arguments import load
from keyraft.config.config import Config
from keyraft.logs.zap import ZapLogger
from keyraft.mvcc.backend import KEY
from keyraft.storage.backend import LMDBEngine

ROWS = 2_000


class Lines:
    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def write(self, line: bytes) -> None:
        self.lines.append(json.loads(line))


def configured(place: Path, megabytes: int) -> tuple[Config, Lines]:
    lines = Lines()
    flags = [f"--data-dir={place}", f"--bootstrap-defrag-threshold-megabytes={megabytes}"]
    config = load([*flags, "--log-outputs=/dev/null"], {}, ZapLogger(()))
    config.log._outputs = (lines,)
    return config, lines


def opened(config: Config) -> LMDBEngine:
    return LMDBEngine(kv_directory(config), lambda call, *arguments: call(*arguments))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A database of which all but a few rows were deleted."""
    engine = opened(configured(tmp_path, 1)[0])
    for value in (b"v" * 2_000, None):
        engine.commit({KEY: {b"%08d" % row: value for row in range(ROWS)}}, lambda: None)
        engine.wait()
    engine.commit({KEY: {b"kept": b"v"}}, lambda: None)
    engine.wait()
    engine.close()
    yield tmp_path


def test_what_frees_less_is_left_alone(place: Path) -> None:
    config, lines = configured(place, 1_000)
    engine = opened(config)
    before = os.stat(Path(kv_directory(config)) / "data.mdb").st_ino
    same = defragmented(config, engine, lambda: opened(config))
    assert same is engine
    engine.close()
    assert os.stat(Path(kv_directory(config)) / "data.mdb").st_ino == before
    (line,) = lines.lines
    assert line["msg"] == "Skipping defragmentation"
    assert line["bootstrap-defrag-threshold-bytes"] == 1_000 << 20
    assert line["bootstrap-defrag-threshold"] == "1.0 GB"


def test_what_frees_as_much_is_written_anew(place: Path) -> None:
    config, lines = configured(place, 2)
    first = opened(config)
    before = first.size_bytes
    engine = defragmented(config, first, lambda: opened(config))
    assert engine.get(KEY, b"kept") == b"v" and engine.get(KEY, b"%08d" % 1) is None
    assert engine.size_bytes < before / 10
    engine.close()
    assert [line["msg"] for line in lines.lines] == [
        "defragmenting",
        "finished defragmenting directory",
    ]
