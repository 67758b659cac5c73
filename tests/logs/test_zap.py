"""Log lines have the forms of etcd's logger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyraft.logs.zap import Duration, ZapLogger, build_logger


@pytest.fixture(autouse=True)
def universal_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Lines:
    """A log output that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line.decode())


FIELDS = {
    "member_id": "8e9e05c52164694d",
    "urls": ["http://a:1", "b"],
    "took": Duration(1_133_624),
    "ok": True,
    "count": 3,
    "odd": 'a"b\n\x01é',
}


def test_a_json_line_has_zaps_form() -> None:
    line = ZapLogger((), "info", "json").format(0.000001, "info", "app/x.py:7", "done", FIELDS)
    assert line.decode() == (
        '{"level":"info","ts":"1970-01-01T00:00:00.000001Z","caller":"app/x.py:7","msg":"done",'
        '"member-id":"8e9e05c52164694d","urls":["http://a:1","b"],"took":"1.133624ms","ok":true,'
        '"count":3,"odd":"a\\"b\\n\\u0001é"}\n'
    )
    assert json.loads(line)["odd"] == FIELDS["odd"]


def test_a_console_line_has_zaps_form() -> None:
    logger = ZapLogger((), "info", "console").named("raft")
    line = logger.format(1.5, "warn", "app/x.py:7", "done", {"a_b": 1, "c": ["x", "y"]})
    assert line.decode() == (
        '1970-01-01T00:00:01.500000Z\twarn\traft\tapp/x.py:7\tdone\t{"a-b": 1, "c": ["x", "y"]}\n'
    )


def test_levels_and_the_caller() -> None:
    output = Lines()
    logger = ZapLogger((output,), "warn")
    logger.info("quiet")
    logger.warn("loud")
    assert len(output.lines) == 1
    assert '"caller":"logs/test_zap.py:' in output.lines[0]
    with pytest.raises(SystemExit) as caught:
        logger.fatal("last")
    assert caught.value.code == 1


def test_a_repeating_line_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyraft.logs.zap.time.time", lambda: 1000.0)
    output = Lines()
    logger = ZapLogger((output,))
    for number in range(1000):
        logger.warn("again", number=number)
    logger.warn("other")
    assert len(output.lines) == 100 + 9 + 1


def test_files_are_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "etcd.log"
    path.write_text("before\n")
    logger = build_logger([str(path)], "info", "json", False, "{}")
    logger.info("after")
    assert path.read_text().splitlines()[0] == "before"


def test_dev_null_silences_everything() -> None:
    logger = build_logger(["stderr", "/dev/null"], "info", "json", False, "{}")
    logger.info("nobody hears")
    assert not logger._outputs
