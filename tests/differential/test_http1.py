"""HTTP/1.1 byte by byte on the client and peer ports: Keyraft answers what Go's server answers."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.server import ORACLE, OURS, Server, needs_oracle, serving

pytestmark = [pytest.mark.real, needs_oracle()]

CLIENT, PEER = "client", "peer"
PATIENT_S = 20.0
TALKS_AT_ONCE = 32
H = b"Host: h\r\n"


# What is said on one connection; whoever says half of something then has no more to say.
SAID: dict[str, bytes] = {}


def said(name: str, data: bytes) -> None:
    SAID[name] = data


CLOSE = b"Connection: close\r\n"
said("health", b"GET /health HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("line feeds alone", b"GET /health HTTP/1.1\nHost: h\nConnection: close\n\n")
said("empty lines first", b"\r\n\r\nGET /health HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("1.0", b"GET /health HTTP/1.0\r\n\r\n")
said("1.0 kept", b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /x HTTP/1.0\r\n\r\n")
said("1.0 without host, 1.1 without", b"GET /health HTTP/1.1\r\n\r\n")
said("1.5", b"GET /health HTTP/1.5\r\n" + H + CLOSE + b"\r\n")
said("2.0", b"GET /health HTTP/2.0\r\n" + H + b"\r\n")
said("0.9", b"GET /health HTTP/0.9\r\n" + H + b"\r\n")
said("3.0", b"GET /health HTTP/3.0\r\n" + H + b"\r\n")
said("no version", b"GET /health\r\n" + H + b"\r\n")
said("bad version", b"GET /health HTTP/1.x\r\n" + H + b"\r\n")
said("lower-case version", b"GET /health http/1.1\r\n" + H + b"\r\n")
said("nonsense", b"nonsense\r\n\r\n")
said("empty method", b" / HTTP/1.1\r\n" + H + b"\r\n")
said("lower-case method", b"get /version HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("unknown method", b"BREW /version HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("unknown method and path", b"BREW /pot HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("bad method", b"G(T /version HTTP/1.1\r\n" + H + b"\r\n")
said("two spaces", b"GET  /version HTTP/1.1\r\n" + H + b"\r\n")
said("trailing space", b"GET /version HTTP/1.1 \r\n" + H + b"\r\n")
said("HEAD", b"HEAD /version HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("OPTIONS", b"OPTIONS /version HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("POST", b"POST /version HTTP/1.1\r\n" + H + CLOSE + b"Content-Length: 3\r\n\r\nabc")
said("POST without length", b"POST /version HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("absolute", b"GET http://other/version HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("relative", b"GET version HTTP/1.1\r\n" + H + b"\r\n")
said("query alone", b"GET ?x HTTP/1.1\r\n" + H + b"\r\n")
said("bad escape", b"GET /%zz HTTP/1.1\r\n" + H + b"\r\n")
said("bad escape in the query", b"GET /version?%zz HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("escaped", b"GET /%76ersion HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("a control character", b"GET /\x01 HTTP/1.1\r\n" + H + b"\r\n")
said("two hosts", b"GET /version HTTP/1.1\r\n" + H + H + b"\r\n")
said("bad host", b"GET /version HTTP/1.1\r\nHost: a b\r\n\r\n")
said("empty host", b"GET /version HTTP/1.1\r\nHost:\r\n" + CLOSE + b"\r\n")
said("space before the colon", b"GET /version HTTP/1.1\r\nHost : h\r\n\r\n")
said("no colon", b"GET /version HTTP/1.1\r\n" + H + CLOSE + b"nonsense\r\n\r\n")
said("no name", b"GET /version HTTP/1.1\r\n" + H + CLOSE + b": x\r\n\r\n")
said("bad name", b"GET /version HTTP/1.1\r\n" + H + CLOSE + b"a(b: x\r\n\r\n")
said("bad value", b"GET /version HTTP/1.1\r\n" + H + CLOSE + b"a: \x01\r\n\r\n")
said("indented first field", b"GET /version HTTP/1.1\r\n Host: h\r\n\r\n")
said("folded field", b"GET /version HTTP/1.1\r\n" + H + b"a: b\r\n c\r\n" + CLOSE + b"\r\n")
said("empty value", b"GET /version HTTP/1.1\r\n" + H + b"a:\r\n" + CLOSE + b"\r\n")
said("expects what nobody knows", b"POST /x HTTP/1.1\r\n" + H + b"Expect: tea\r\n\r\n")
said(
    "expects to go on",
    b"POST /version HTTP/1.1\r\n"
    + H
    + CLOSE
    + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
)
chunked = b"Transfer-Encoding: chunked\r\n"
said("chunked", b"POST /version HTTP/1.1\r\n" + H + CLOSE + chunked + b"\r\n3\r\nabc\r\n0\r\n\r\n")
said(
    "chunked and trailed",
    b"POST /version HTTP/1.1\r\n" + H + CLOSE + chunked + b"\r\n3;x=y\r\nabc\r\n0\r\na: b\r\n\r\n",
)
said("unknown coding", b"POST /x HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip\r\n\r\n")
said("two codings", b"POST /x HTTP/1.1\r\n" + H + chunked + chunked + b"\r\n0\r\n\r\n")
said("a list of codings", b"POST /x HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n")
said("coding in 1.0", b"POST /x HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n")
said(
    "different lengths",
    b"POST /x HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
)
said("bad length", b"POST /x HTTP/1.1\r\n" + H + b"Content-Length: +1\r\n\r\na")
said("empty length", b"POST /x HTTP/1.1\r\n" + H + CLOSE + b"Content-Length:\r\n\r\n")
said(
    "huge length",
    b"POST /x HTTP/1.1\r\n" + H + CLOSE + b"Content-Length: 99999999999999999999\r\n\r\n",
)
said(
    "length and chunks",
    b"POST /x HTTP/1.1\r\n" + H + CLOSE + chunked + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
)
said(
    "pipelined",
    (b"GET /version HTTP/1.1\r\n" + H + b"\r\n") * 3 + b"GET /x HTTP/1.1\r\n" + H + CLOSE + b"\r\n",
)
said(
    "pipelined behind a body",
    b"POST /x HTTP/1.1\r\n"
    + H
    + b"Content-Length: 3\r\n\r\nabcGET /version HTTP/1.1\r\n"
    + H
    + CLOSE
    + b"\r\n",
)
said(
    "pipelined behind what closes",
    b"GET /x HTTP/1.1\r\n" + H + CLOSE + b"\r\nGET /version HTTP/1.1\r\n" + H + b"\r\n",
)
said("pipelined nonsense", b"GET /x HTTP/1.1\r\n" + H + b"\r\nnonsense\r\n\r\n")
said(
    "an upgrade",
    b"GET /version HTTP/1.1\r\n" + H + b"Connection: upgrade, close\r\nUpgrade: h2c\r\n\r\n",
)
said("half a head", b"GET /version HTTP/1.1\r\nHo")
said("half a body", b"POST /version HTTP/1.1\r\n" + H + b"Content-Length: 9\r\n\r\nab")
for path in ("/", "/nothing", "/raft/probing/x", "/members/x", "/raft/x", "/raft/stream/message/x"):
    said(f"GET {path}", b"GET " + path.encode() + b" HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
for path in ("/leases", "/members", "/raft", "/downgrade/enabled", "/members/hashkv"):
    said(f"PUT {path}", b"PUT " + path.encode() + b" HTTP/1.1\r\n" + H + CLOSE + b"\r\n")
said("POST /raft", b"POST /raft HTTP/1.1\r\n" + H + CLOSE + b"Content-Length: 1\r\n\r\nx")

UNRECOGNIZED = "the original's client port closes without a word what it does not take for HTTP/1"
# What ours answers in another way, by port; the answers must differ.
KNOWN: dict[tuple[str, str], str] = {
    **{
        (CLIENT, name): UNRECOGNIZED
        for name in (
            *("empty lines first", "0.9", "2.0", "3.0", "no version", "bad version", "nonsense"),
            *("lower-case version", "two spaces", "trailing space"),
        )
    },
    (PEER, "empty lines first"): "RFC 9112 2.2: a server should ignore them",
    (CLIENT, "folded field"): "RFC 9112 5.2: a server must refuse it or undo the folding",
    (PEER, "folded field"): "the same",
    (CLIENT, "space before the colon"): "refused with 400 either way; Go drops the field first",
    (PEER, "space before the colon"): "the same",
    (CLIENT, "half a body"): "a request is handled when its body is there",
    (PEER, "half a body"): "ours does not say that the connection ends, which has ended already",
}


# What etcd 3.5.1 answers in another way, because it was made with an older Go.
OLDER = ("two hosts", "no name", "bad name", "bad value", "empty length")


def answers(got: bytes) -> bytes:
    """Status lines, headers in order and bodies, without what differs from member to member."""
    got = re.sub(rb"Date: [^\r]*\r\n", b"", got)
    got = re.sub(rb'\{"etcdserver":[^}]*\}', b"{versions}", got)
    got = re.sub(rb"Content-Length: (44|62)\r\n", b"", got)  # of the same
    got = re.sub(rb"X-(Etcd-Cluster-Id|Server-Version): [^\r]*\r\n", b"", got)
    heads = re.compile(rb"HTTP/1\.[01] (?:[^\r]+\r\n)+?\r\n")

    def in_order(head: re.Match[bytes]) -> bytes:
        status, *fields = head.group().rstrip().split(b"\r\n")
        return b"\n".join((status, *sorted(fields), b"", b""))

    return heads.sub(in_order, got)


def talk(port: int, data: bytes, leaves: bool) -> bytes:
    """Everything that comes back."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), PATIENT_S) as connection:
        with contextlib.suppress(OSError):  # it may have stopped to listen
            connection.sendall(data)
            if leaves:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65_536):
                got += piece
    return got


def test_the_ports_answer_as_the_originals_do(tmp_path: Path) -> None:
    original, ours = Server(ORACLE, tmp_path / "original"), Server(OURS, tmp_path / "ours")
    version = subprocess.run([*ORACLE, "--version"], capture_output=True, check=True).stdout
    older = OLDER if version.startswith(b"etcd Version: 3.5.") else ()
    wrong = []
    with serving(original, ours), ThreadPoolExecutor(TALKS_AT_ONCE) as talks:
        # Some of them end by a server's patience only: they wait side by side.
        told = {
            (port, name, which): talks.submit(
                talk, getattr(server, f"{port}_port"), data, name.startswith("half")
            )
            for name, data in SAID.items()
            for port in (CLIENT, PEER)
            for which, server in (("original", original), ("ours", ours))
        }
        for name in SAID:
            for port in (CLIENT, PEER):
                theirs, our = (
                    answers(told[port, name, which].result()) for which in ("original", "ours")
                )
                if (theirs != our) != ((port, name) in KNOWN or name in older):
                    wrong.append((port, name, theirs[:500], our[:500]))
        assert "Traceback" not in ours.log
    for line in wrong:
        print(line)
    assert not wrong
