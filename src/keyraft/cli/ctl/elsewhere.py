"""Commands that etcdctl had up to 3.5 and that are etcdutl's now."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def become_etcdutl(command: str, *arguments: str) -> NoReturn:
    """Prints a note, then replaces this process by etcdutl."""
    print(f"Deprecated: Use `etcdutl {command}` instead.\n", file=sys.stderr, flush=True)
    words = [sys.executable, "-m", "keyraft.cli.etcdutl", *command.split(), *arguments]
    os.execv(sys.executable, words)
