"""Runs our etcdctl as a process for each command line without starting an interpreter each time.

One process has everything imported; for each request it forks a child with pipes for its standard
streams. Started as `python forking.py`, it reads a request a line (JSON) and answers likewise.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command said and how it ended."""

    out: bytes
    err: bytes
    code: int


def _child(request: dict[str, Any], files: list[int]) -> None:
    from keyraft.cli.ctl.main import run

    for number, file in enumerate(files):
        os.dup2(file, number)
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    os.environ.update(request["environment"])
    code = 99
    try:
        code = run(request["words"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    import asyncio  # noqa: F401  # what every command needs is here before the fork
    import csv  # noqa: F401

    import keyraft.cli.ctl.auth
    import keyraft.cli.ctl.concurrency
    import keyraft.cli.ctl.endpoint
    import keyraft.cli.ctl.help
    import keyraft.cli.ctl.kv
    import keyraft.cli.ctl.lease
    import keyraft.cli.ctl.member
    import keyraft.cli.ctl.printers.fields
    import keyraft.cli.ctl.printers.json
    import keyraft.cli.ctl.printers.simple
    import keyraft.cli.ctl.printers.table
    import keyraft.cli.ctl.txn
    import keyraft.cli.ctl.watch
    import keyraft.client.recipes  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as given:
            given.write(base64.b64decode(request["stdin"]))
            given.seek(0)
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                files = [given.fileno(), out.fileno(), err.fileno()]
                pid = os.fork()
                if pid == 0:
                    _child(request, files)
                _, status = os.waitpid(pid, 0)
                said = []
                for file in (out, err):
                    file.seek(0)
                    said.append(base64.b64encode(file.read()).decode())
        answer = {"said": said, "code": os.waitstatus_to_exitcode(status)}
        print(json.dumps(answer), flush=True)


class Forker:
    """The other end: `run` is one command."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
        )

    def run(
        self, words: list[str], stdin: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> Outcome:
        """Runs `etcdctl WORDS`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {
            "words": words,
            "stdin": base64.b64encode(stdin).decode(),
            "environment": dict(environment or {}),
        }
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        out, err = (base64.b64decode(part) for part in answer["said"])
        return Outcome(out, err, answer["code"])

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


if __name__ == "__main__":
    _serve()
