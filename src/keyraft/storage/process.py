"""Starting the storage process, before it is known which database it is for.

Starting an interpreter and loading LMDB takes a large part of the time of the member's own start.
So the command starts the process first and imports the member meanwhile. Later the process gets the
path to open and the lock of the directory over a socket; before that it touches nothing. This
module imports next to nothing for that reason. `backend/writer.py` is what runs in the process.
"""

from __future__ import annotations

import marshal
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

WRITER: Final = os.path.join(os.path.dirname(__file__), "backend", "writer.py")
EXIT_WAIT_S: Final = 30.0
MLOCK_FLAGS: Final = 1 | 2 | 4  # MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT: each page once it is there


def site_directory() -> str:
    """The directory from which the process imports LMDB."""
    found = find_spec("lmdb")
    assert found is not None and found.origin is not None, "lmdb is a dependency"
    return os.path.dirname(os.path.dirname(found.origin))


class StorageProcess:
    """One process; `open` is called once, before any batch goes to `stdin`."""

    __slots__ = ("_care", "_control", "_process", "stdin", "stdout")

    def __init__(self, synced: bool = True, locked: bool = False) -> None:
        """`synced`: whether commits are; `locked`: whether the process is never swapped out."""
        self._care = (synced, MLOCK_FLAGS if locked else 0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            control = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", "-s", WRITER, site_directory(), str(control)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=(control,),
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._control = ours
        self.stdin = self._process.stdin.fileno()
        self.stdout = self._process.stdout.fileno()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def open(self, path: str, map_bytes: int, buckets: Sequence[bytes], lock_fd: int) -> None:
        """Says what to open and hands over the lock; the answer comes on `stdout`.

        Raises BrokenPipeError when the process has ended.
        """
        with self._control as control:
            message = marshal.dumps((path, map_bytes, list(buckets), *self._care), 2)
            socket.send_fds(control, [message], [lock_fd])

    def stop(self) -> None:
        """Ends the process by ending its input; harmless when it is over."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        self._control.close()
        process.stdin.close()
        try:
            process.wait(EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
