"""Commands that etcdctl had up to 3.5 and that are etcdutl's now."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def become_etcdutl(command: str, *arguments: str) -> NoReturn:
    """Says so, and goes on as etcdutl in this process's place."""
    print(f"Deprecated: Use `etcdutl {command}` instead.\n", file=sys.stderr, flush=True)
    words = [sys.executable, "-m", "keyraft.cli.etcdutl", *command.split(), *arguments]
    os.execv(sys.executable, words)
