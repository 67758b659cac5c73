"""`etcdutl`: the tool for files at rest."""

from __future__ import annotations

import os
import sys

from keyraft.cli.pipes import guard
from keyraft.cli.utl.main import run


def main() -> None:
    """Runs the command line of this process and ends it."""
    guard()
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # skips the interpreter's cleanup, which takes time


if __name__ == "__main__":
    main()
