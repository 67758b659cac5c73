"""`etcdctl`: the command-line client."""

from __future__ import annotations

import os
import signal
import sys

from keyraft.cli.pipes import guard


def main() -> None:
    """Runs the command line of this process and ends it."""
    guard()
    # Ctrl-C ends the program as it ends any other.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Commands that handle signals also get those that come while Python is loading: see `run`.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    from keyraft.cli.ctl.main import run

    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # skips the interpreter's cleanup, which takes time


if __name__ == "__main__":
    main()
