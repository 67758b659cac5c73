"""How a command ends (etcd `pkg/cobrautl`): the codes that scripts look at."""

from __future__ import annotations

from typing import Final

ERROR: Final = 1
SIGNALLED: Final = 255  # of a command that a signal ended; Go has -1 for it
BAD_CONNECTION: Final = 2  # the client could not be built; leases that cannot be reached
INVALID_INPUT: Final = 3  # for txn and watch: invalid standard input
BAD_FEATURE: Final = 4  # a flag has an invalid value
INTERRUPTED: Final = 5
IO: Final = 6
BAD_ARGS: Final = 128


class Exit(Exception):
    """Ends the command with a code; `text`, if any, goes to standard error after "Error: "."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def ended_by(returncode: int) -> str:
    """The words of Go's os/exec for how a process failed."""
    if returncode >= 0:
        return f"exit status {returncode}"
    import signal

    name = signal.strsignal(-returncode)
    return f"signal: {name.lower()}" if name else f"signal: signal {-returncode}"
