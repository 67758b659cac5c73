"""The processes that read or write a whole database beside a member.

`export KV_DIRECTORY DIGEST` writes what `exporting` describes to standard output; `import DB
SNAP_DIRECTORY` carries out `importing.prepare` and writes the consistent index. A failure is one
line on standard error, exit 1.
"""

from __future__ import annotations

import signal
import sys

from keyraft.storage.transfer.background import Background
from keyraft.storage.transfer.environment import TransferError
from keyraft.storage.transfer.exporting import export, write_fd
from keyraft.storage.transfer.importing import prepare


def main(arguments: list[str]) -> int:
    """The exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ends when the member closes the pipe
    background = Background()  # the member has priority
    command, first, second = arguments
    try:
        if command == "export":
            export(first, write_fd(1), second == "1", background)
        else:
            print(prepare(first, second).consistent_index)
    except BrokenPipeError:
        return 1
    except (TransferError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
