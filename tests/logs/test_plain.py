"""The plain lines of etcd 3.3."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import keyraft
from keyraft.logs import plain
from keyraft.logs.zap import PLAIN, ZapLogger
from tests.support.server import OURS, Server, serving

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} [CEWID] \| [a-z/0-9]+: \S.*")


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line.decode())


def said(caller: str, message: str, level: str = "info", **fields: object) -> str:
    line = plain.plain_line(1_552_000_000.25, level, caller, message, fields).decode()
    assert line.endswith("\n") and line.count("\n") == 1
    assert LINE.fullmatch(line[:-1])
    return line[27:-1]


def test_the_line_of_the_handbook() -> None:
    message = "raft.node: 8e9e05c52164694d elected leader 8e9e05c52164694d at term 36"
    assert said("consensus/leadership.py:140", message) == f"I | raft: {message}"


def test_words_of_3_3_are_used_where_they_differ() -> None:
    assert (
        said(
            "peer/stream.py:1",
            "lost TCP streaming connection with remote peer",
            "warn",
            stream_reader_type="stream Message",
            local_member_id="1",
            remote_peer_id="2",
            error="EOF",
        )
        == "W | rafthttp: lost the TCP streaming connection with peer 2 (stream Message reader)"
    )
    assert (
        said(
            "cluster/model.py:1",
            "added member",
            cluster_id="c",
            local_member_id="1",
            added_peer_id="2",
            added_peer_peer_urls=["http://a:1", "http://b:2"],
            added_peer_is_learner=False,
        )
        == "I | etcdserver/membership: added member 2 [http://a:1 http://b:2] to cluster c"
    )
    assert said("app/client_ports.py:1", "ready to serve client requests") == (
        "I | embed: ready to serve client requests"
    )


def test_other_fields_follow_the_message_and_stay_on_the_line() -> None:
    text = said("upkeep/a.py:3", "odd\nthing", "fatal", error="x\ny", count=3, is_on=True, raw=b"z")
    assert text == "C | etcdserver: odd thing (error: x y, count: 3, is-on: true, raw: z)"
    # A message that lost a field of its words is not lost itself.
    assert said("cluster/model.py:1", "added member", cluster_id="c") == (
        "I | etcdserver/membership: added member (cluster-id: c)"
    )


def test_a_percent_sign_is_a_percent_sign() -> None:
    text = said("app/client_ports.py:1", "serving client traffic securely", address="100%s")
    assert text == "I | embed: serving client requests on 100%s"


def test_every_wording_is_of_a_message_that_is_said() -> None:
    root = Path(keyraft.__file__).parent
    source = "".join(
        path.read_text() for path in root.rglob("*.py") if path.name not in ("plain.py",)
    )
    flat = re.sub(r'"\s+f?"', "", source)  # texts over several lines
    for message in (*plain._WORDS, *plain._STREAMS):
        # The rest may be put together, as is the first word where a stream ended.
        words = message.split()
        head, tail = " ".join(words[:4]), f"{{how}} {' '.join(words[1:4])}"
        assert f'"{head}' in flat or tail in flat, message


def test_the_logger_writes_them() -> None:
    output = Lines()
    ZapLogger([output], "info", PLAIN).named("raft").warn("hello", who="you")
    (line,) = output.lines
    assert re.fullmatch(r"\S+ \S+ W \| etcdserver: hello \(who: you\)\n", line), line


@pytest.mark.real
def test_a_member_logs_in_plain_lines_that_tell_its_leader(tmp_path: Path) -> None:
    server = Server(OURS, tmp_path / "data", flags=("--logger=capnslog",))
    # The lines in which others look for a start are zap's: here its leader tells.
    with serving(server):
        pass
    lines = server.log.splitlines()
    assert lines and all(LINE.fullmatch(line) for line in lines), lines[:5]
    assert re.search(
        r" I \| raft: raft\.node: (\w+) elected leader \1 at term \d+$", server.log, re.M
    )
    assert re.search(r" I \| etcdserver: published \{Name:default ClientURLs:\[", server.log)
