"""Ends a command by SIGPIPE when nobody reads its output any more.

The signal itself stays ignored, as is Python's default, because it also comes from a connection
that the other side has closed; there it is an ordinary error. (A Go program, too, ends by the
signal only for its standard output and error.)
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def end_by_pipe() -> NoReturn:
    """Ends this process by SIGPIPE, so that its parent sees why."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGPIPE,))
    os.kill(os.getpid(), signal.SIGPIPE)
    os._exit(128 + signal.SIGPIPE)  # the first process of a container ignores the signal


class _Output(io.FileIO):
    """A descriptor that may be a pipe."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            end_by_pipe()


def guard() -> None:
    """Makes writes to standard output and error end the process when their reader is gone."""
    sys.stdout = _guarded(sys.stdout, 1)
    sys.stderr = _guarded(sys.stderr, 2)


def _guarded(stream: TextIO | None, descriptor: int) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        # The process was started without this descriptor: output to it is discarded.
        return open(os.devnull, "w")
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(descriptor, "wb", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
