"""Which modules a piece of code leaves loaded, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from tests.support.server import environment


def loaded(code: str) -> set[str]:
    """Their names; what `code` prints is passed over."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('LOADED', *sys.modules)"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    return set(done.stdout.rpartition("LOADED ")[2].split())


def ours(modules: set[str]) -> int:
    """How many of them are the package's own."""
    return sum(name.startswith("keyraft") for name in modules)
