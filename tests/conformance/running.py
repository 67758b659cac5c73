"""One test of a suite that Go has built: run alone, and read.

Each test has a session, and where the system allows it namespaces of its own for the network and
for processes, so that no port meets another's and no member outlives its test.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

GRACE_S: Final = 30.0
"""After the time that Go's own limit gives a test."""
_VERDICT = re.compile(r"^\s*--- (PASS|FAIL|SKIP): (\S+)", re.MULTILINE)
_NETWORK = Path(__file__).with_name("network.py")


@dataclass(slots=True)
class Result:
    """What one test came to."""

    verdict: str
    """PASS, FAIL or SKIP."""
    seconds: float
    parts: dict[str, str] = field(default_factory=dict)
    """Its subtests with their verdicts."""
    tries: int = 1

    def failed(self) -> list[str]:
        """The names of the innermost subtests that failed."""
        names = [name for name, verdict in self.parts.items() if verdict == "FAIL"]
        return [n for n in names if not any(other.startswith(n + "/") for other in names)]

    def kept(self) -> dict[str, Any]:
        """For the file of results."""
        return asdict(self)


def read(name: str, told: str, code: int, seconds: float) -> Result:
    """A verdict from what the test wrote. One that says nothing has failed, unless Go was content."""
    verdicts = {test: verdict for verdict, test in _VERDICT.findall(told)}
    verdict = verdicts.pop(name, "FAIL" if code else "PASS")
    if code and verdict == "PASS":
        verdict = "FAIL"
    return Result(verdict, round(seconds, 1), verdicts)


@functools.cache
def namespaces() -> tuple[str, ...]:
    """What goes before a command that shall have its own loopback and its own processes."""
    for words in (
        ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
        ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--map-root-user"),
    ):
        try:
            if not subprocess.run([*words, "true"], capture_output=True).returncode:
                return (*words, sys.executable, str(_NETWORK))
        except FileNotFoundError:
            break
    return ()


def names(program: Path, folder: Path) -> list[str]:
    """All tests of a suite, in its order."""
    told = subprocess.run([program, "-test.list", "."], cwd=folder, capture_output=True, text=True)
    return [line for line in told.stdout.splitlines() if line.startswith("Test")]


def run(
    program: Path, folder: Path, name: str, flags: Sequence[str], limit_s: float, log: Path
) -> Result:
    """One test, its words in `log`."""
    command = [*namespaces(), str(program), "-test.run", f"^{name}$", "-test.v"]
    command += [f"-test.timeout={limit_s:.0f}s", *flags]
    began = time.monotonic()
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, "EXPECT_DEBUG": "false"},
        ) as process,
    ):
        try:
            process.wait(limit_s + GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end(process)
    took = time.monotonic() - began
    return read(name, log.read_text(errors="replace"), process.returncode, took)


def _end(process: subprocess.Popen[bytes]) -> None:
    """What is left of its session."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(3)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()
