"""Nobody reads on: every command ends by SIGPIPE and says nothing of its own about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.server import OURS, Server, environment

pytestmark = pytest.mark.real

QUIET = [
    ("etcd", "--help"),
    ("etcd", "--version"),
    ("etcd", "gateway", "--help"),
    ("etcdctl", "--help"),
    ("etcdctl", "version"),
    ("etcdctl", "completion", "bash"),
    ("etcdutl", "--help"),
    ("etcdutl", "version"),
    ("keyraft", "--help"),
    ("keyraft", "bench", "--help"),
]


def start(words: Sequence[str], output: int, errors: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", f"keyraft.cli.{words[0]}", *words[1:]],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        env=environment(),
    )


def closed_pipe() -> int:
    """A pipe's end that nobody reads from."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("words", QUIET, ids=" ".join)
def test_output_that_nobody_reads_ends_the_command(words: tuple[str, ...]) -> None:
    pipe = closed_pipe()
    with start(words, pipe, subprocess.PIPE) as command:
        os.close(pipe)
        _, said = command.communicate(timeout=60)
    assert b"Traceback" not in said
    assert b"BrokenPipe" not in said
    assert command.returncode == -signal.SIGPIPE


@pytest.mark.parametrize("words", [("etcd", "--nothing"), ("etcdctl", "nothing")], ids=" ".join)
def test_errors_that_nobody_reads_end_the_command(words: tuple[str, ...]) -> None:
    pipe = closed_pipe()
    with start(words, subprocess.PIPE, pipe) as command:
        os.close(pipe)
        command.communicate(timeout=60)
    assert command.returncode == -signal.SIGPIPE


def test_a_command_without_any_output_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m keyraft.cli.etcdutl version >&- 2>&-",
        shell=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


def test_a_watch_ends_with_its_reader_and_not_with_its_server(tmp_path: Path) -> None:
    server = Server(OURS, tmp_path / "data").start()
    try:
        watch = start(
            ("etcdctl", "--endpoints", server.endpoint, "watch", "k"),
            subprocess.PIPE,
            subprocess.PIPE,
        )
        assert watch.stdout is not None and watch.stderr is not None
        stop = threading.Event()
        putting = threading.Thread(target=_put_until, args=(server, stop))
        putting.start()
        try:
            assert watch.stdout.readline() == b"PUT\n"
            watch.stdout.close()
            assert watch.wait(60) == -signal.SIGPIPE
        finally:
            stop.set()
            putting.join()
            watch.kill()
        assert watch.stderr.read() == b""
        watch.stderr.close()
    finally:
        server.kill()


def _put_until(server: Server, stop: threading.Event) -> None:
    while not stop.is_set():
        start(
            ("etcdctl", "--endpoints", server.endpoint, "put", "k", "v"),
            subprocess.DEVNULL,
            subprocess.DEVNULL,
        ).wait()


def test_a_closed_connection_does_not_end_a_command_by_a_signal() -> None:
    """SIGPIPE stays ignored: it would come from a server that has hung up, too."""
    code = (
        "import signal\n"
        "from keyraft.cli.pipes import guard\n"
        "guard()\n"
        "assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN\n"
        "import socket\n"
        "one, other = socket.socketpair()\n"
        "other.close()\n"
        "try:\n"
        "    one.send(b'x')\n"
        "except BrokenPipeError:\n"
        "    print('an error like any other')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, check=True
    )
    assert done.stdout == b"an error like any other\n"
