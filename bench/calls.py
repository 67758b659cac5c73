"""How many Python calls a request takes, and through how many modules it passes, in a live member.

    PYTHONPATH=src python -m bench.calls                    this tree
    PYTHONPATH=OTHER/src python -m bench.calls              another one, with this script
    PYTHONPATH=src python -m bench.calls --where put        and which functions a put calls

The member runs in a process of its own with `sys.setprofile` on its loop's thread; a second thread
is the one client, which makes one request at a time and waits until the member has nothing more to
do for it. Counted are calls of Python functions (a generator that goes on and a comprehension are
one each); what is written in C is not. The figure is the median, so what a timer does in between
does not count. The data is in memory, so that the log's sync never goes to its thread.

Times differ from machine to machine and from minute to minute; calls do not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import keyraft
from bench.rawclient import Connection, Poll, header_block
from tests.support.ports import free_ports

ROOT: Final = Path(__file__).resolve().parents[1]
ROUNDS: Final = 300
WARM_UP_ROUNDS: Final = 100
QUIET_S: Final = 0.003  # without a call: the member is done with the request
POLL_S: Final = 0.0005
TIMEOUT_S: Final = 30.0
VALUE_BYTES: Final = 256
LEASE_ID: Final = 7

Rounds = list[list[CodeType]]
"""The calls of each round."""


def _text(number: int, value: bytes) -> bytes:
    """A protobuf field of bytes."""
    size = len(value)
    length = bytes((size,)) if size < 0x80 else bytes((size & 0x7F | 0x80, size >> 7))
    return bytes((number << 3 | 2,)) + length + value


KEY: Final = b"key/0001"
RANGE: Final = _text(1, KEY)
PUT: Final = _text(1, KEY) + _text(2, b"v" * VALUE_BYTES)
WATCH_CREATE: Final = _text(1, _text(1, KEY))
LEASE_GRANT: Final = b"\x08\x3c\x10" + bytes((LEASE_ID,))  # for a minute
LEASE_KEEP_ALIVE: Final = b"\x08" + bytes((LEASE_ID,))


def _posted(path: str, body: bytes) -> bytes:
    """A request of the JSON gateway over HTTP/1.1."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


JSON_PUT: Final = _posted(
    "/v3/kv/put",
    b'{"key":"%b","value":"%b"}' % (b64encode(KEY), b64encode(b"v" * VALUE_BYTES)),
)
JSON_RANGE: Final = _posted("/v3/kv/range", b'{"key":"%b"}' % b64encode(KEY))


class Client:
    """The one client. It lives in the member's process and looks at the calls that were noted."""

    def __init__(self, endpoint: str, calls: list[CodeType], rounds: int) -> None:
        self._endpoint = endpoint
        self._calls = calls
        self._rounds_wanted = rounds
        self._poll = Poll()
        self._answers = 0  # ends of calls and messages on streams
        self._connection = self._connect()

    def _connect(self) -> Connection:
        connection = Connection(self._endpoint, counting=False)
        connection.on_end = self._answered
        self._poll.add(connection)
        return connection

    def _answered(self, stream: int, content: bytes) -> None:
        self._answers += 1

    def _sent(self, connection: Connection, data: bytes, answers: int = 1) -> None:
        """Sends, and waits for so many answers and then for quiet."""
        until = self._answers + answers
        connection.socket.sendall(data)
        assert self._poll.until(lambda: self._answers >= until, TIMEOUT_S), "no answer"
        self._wait_for_quiet()

    def _wait_for_quiet(self) -> None:
        seen = -1
        while seen != len(self._calls):
            seen = len(self._calls)
            until_s = time.perf_counter() + QUIET_S
            while time.perf_counter() < until_s:
                time.sleep(POLL_S)

    def _rounds(self, once: Callable[[], None]) -> Rounds:
        for _ in range(WARM_UP_ROUNDS):
            once()
        found: Rounds = []
        for _ in range(self._rounds_wanted):
            self._calls.clear()
            once()
            found.append(list(self._calls))
        return found

    def _unary(self, path: str, request: bytes, answers: int = 1) -> Callable[[], None]:
        block = header_block(path, self._endpoint)
        connection = self._connection
        return lambda: self._sent(connection, connection.open(block, request, end=True), answers)

    def _json(self, request: bytes) -> Callable[[], None]:
        host, _, port = self._endpoint.partition(":")
        plain = socket.create_connection((host, int(port)), TIMEOUT_S)

        def once() -> None:
            plain.sendall(request)
            answer = plain.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"}"), answer
            self._wait_for_quiet()

        return once

    def _stream(self, path: str, first: bytes) -> tuple[Connection, int]:
        """A stream on a connection of its own, whose every message is an answer."""
        connection = self._connect()
        connection.on_data = self._answered
        block = header_block(path, self._endpoint)
        self._sent(connection, connection.open(block, first, end=False))
        return connection, connection.last_stream

    def measure(self) -> dict[str, Rounds]:
        """All kinds of requests, one after the other."""
        put = self._unary("/etcdserverpb.KV/Put", PUT)
        found = {
            "put": self._rounds(put),
            "range": self._rounds(self._unary("/etcdserverpb.KV/Range", RANGE)),
            "JSON put": self._rounds(self._json(JSON_PUT)),
            "JSON range": self._rounds(self._json(JSON_RANGE)),
        }
        self._unary("/etcdserverpb.Lease/LeaseGrant", LEASE_GRANT)()
        connection, stream = self._stream("/etcdserverpb.Lease/LeaseKeepAlive", LEASE_KEEP_ALIVE)
        renewal = connection.message(stream, LEASE_KEEP_ALIVE)
        found["keep-alive"] = self._rounds(lambda: self._sent(connection, renewal))
        self._stream("/etcdserverpb.Watch/Watch", WATCH_CREATE)
        found["put, event"] = self._rounds(self._unary("/etcdserverpb.KV/Put", PUT, answers=2))
        return found


def measured(rounds: Rounds) -> dict[str, Any]:
    """The medians, and the functions of a round that is one."""
    calls = int(statistics.median_low(map(len, rounds)))
    middle = next(one for one in rounds if len(one) == calls)
    return {
        "calls": calls,
        "least": min(map(len, rounds)),
        "modules": int(statistics.median_low(len({c.co_filename for c in one}) for one in rounds)),
        "functions": Counter(f"{c.co_filename}:{c.co_qualname}" for c in middle).most_common(),
    }


def live(directory: str, rounds: int) -> None:
    """Runs a member and its client in this process; writes what was found beside the data."""
    calls: list[CodeType] = []
    client_port, peer_port = free_ports(2)
    client, peer = (f"http://127.0.0.1:{port}" for port in (client_port, peer_port))

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            calls.append(frame.f_code)

    def work() -> None:
        try:
            wait_for(client_port)
            found = Client(f"127.0.0.1:{client_port}", calls, rounds).measure()
            text = json.dumps({name: measured(rounds) for name, rounds in found.items()})
            Path(directory, "found.json").write_text(text)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    from keyraft.cli import etcd

    threading.Thread(target=work).start()
    sys.setprofile(note)
    etcd.main(
        [
            f"--data-dir={directory}/data",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=error",
        ]
    )


def wait_for(port: int) -> None:
    """Returns when the member takes connections."""
    until_s = time.perf_counter() + TIMEOUT_S
    while True:
        try:
            Connection(f"127.0.0.1:{port}", counting=False).close()
        except OSError:
            assert time.perf_counter() < until_s, "the member does not start"
            time.sleep(0.05)
        else:
            return


def count(rounds: int = ROUNDS) -> dict[str, dict[str, Any]]:
    """What `measured` says of each kind of request; raises RuntimeError."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="keyraft-calls-", dir=memory) as directory:
        command = [sys.executable, "-m", "bench.calls", "--live", directory]
        command.append(f"--rounds={rounds}")
        # The same package as here, wherever it comes from.
        path = os.pathsep.join((str(ROOT), str(Path(keyraft.__path__[0]).parent)))
        ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode
        try:
            found: dict[str, dict[str, Any]] = json.loads(Path(directory, "found.json").read_text())
        except FileNotFoundError:
            raise RuntimeError(f"the member ended early, with {ended}") from None
        return found


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--where", metavar="KIND", help="list the functions that it calls")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each kind of request")
    parser.add_argument("--live", metavar="DIRECTORY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.live:
        live(options.live, options.rounds)
        return
    found = count(options.rounds)
    print(f"{'':12}{'calls':>7}{'least':>7}{'modules':>9}")
    for kind, figures in found.items():
        print(f"{kind:12}{figures['calls']:7}{figures['least']:7}{figures['modules']:9}")
    for name, often in found.get(options.where, {}).get("functions", ()):
        path, _, function = name.rpartition(":")
        print(f"{often:5}  {path.rpartition('/keyraft/')[2]} {function}")


if __name__ == "__main__":
    main()
