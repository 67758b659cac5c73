"""Batches on their way to the audit process, and the process itself.

A batch is kept until the process has confirmed it, so a process that dies loses none. What is kept
has a bound in bytes; who puts batches in looks at `room`.

Owned by the loop. Everything that blocks is done in the process, but for its start and its end.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from keyraft.base.clock import Loop
from keyraft.base.log import Logger

WRITER: Final = os.path.join(os.path.dirname(__file__), "writer.py")
SOURCE: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEPT_BYTES_MAX: Final = 8 * 1024 * 1024
ROOM_BYTES: Final = KEPT_BYTES_MAX // 2  # below this there is room again after there was none
START_WAIT_S: Final = 30.0
END_WAIT_S: Final = 5.0
AGAIN_S: Final = 1.0  # between the end of a process and the start of the next
_ANSWERS_BYTES: Final = 4_096
_MESSAGE_FORMAT: Final = 2  # of marshal


class SocketLoop(Loop, Protocol):
    """A loop that tells of sockets."""

    def add_reader(self, fd: int, callback: Callable[..., Any], *args: Any) -> None:
        """Calls back while there is something to read."""

    def remove_reader(self, fd: int) -> bool:
        """No longer."""

    def add_writer(self, fd: int, callback: Callable[..., Any], *args: Any) -> None:
        """Calls back while there is room to write."""

    def remove_writer(self, fd: int) -> bool:
        """No longer."""


class OutputError(OSError):
    """The file of the log cannot be opened."""


class Outbox:
    """One process after the other, and the batches that none has confirmed."""

    def __init__(
        self,
        loop: SocketLoop,
        log: Logger,
        path: str,
        bytes_max: int,
        backups_max: int,
        code_names: Sequence[str],
        on_room: Callable[[], None],
    ) -> None:
        """Raises OutputError. `on_room` is called when there is room again after there was none."""
        self._loop = loop
        self._log = log
        self._path = path
        order = (path, bytes_max, backups_max, tuple(code_names))
        self._order = _framed(order)
        self._on_room = on_room
        self._kept: deque[tuple[bytes, int]] = deque()
        self._kept_bytes = 0
        self._sent = 0  # of those kept, given to the process whole
        self._offset = 0  # of the next one
        self._writing = False
        self._full = False
        self._failing = 0  # the error that the process met last
        self._greeted = True
        self._over = False
        self.restarts = 0
        self._start()
        self._greet()

    @property
    def has_room(self) -> bool:
        """Whether another batch should be kept."""
        return self._kept_bytes < KEPT_BYTES_MAX

    @property
    def kept_bytes(self) -> int:
        """What waits for the process, and what it has not confirmed."""
        return self._kept_bytes

    @property
    def kept_calls(self) -> int:
        """The calls of those batches."""
        return sum(count for _, count in self._kept)

    def put(self, batch: object, calls: int) -> None:
        """Sends a batch of so many calls, soon."""
        frame = _framed(batch)
        self._kept.append((frame, calls))
        self._kept_bytes += len(frame)
        self._full = self._full or not self.has_room
        if not self._writing:
            self._write()

    def end(self) -> bool:
        """Waits for what is kept, not for ever; whether all of it is written."""
        self._over = True
        control = self._control
        self._loop.remove_reader(control.fileno())
        self._loop.remove_writer(control.fileno())
        by = time.monotonic() + END_WAIT_S
        with contextlib.suppress(OSError):
            while self._kept and (left := by - time.monotonic()) > 0:
                control.settimeout(left)
                while self._sent < len(self._kept):
                    control.sendall(self._kept[self._sent][0][self._offset :])
                    self._sent, self._offset = self._sent + 1, 0
                answers = control.recv(_ANSWERS_BYTES)
                if not answers:
                    break
                self._confirm(answers)
        control.close()
        process = self._process
        try:
            process.wait(max(0.1, by - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return not self._kept

    # --- the process ----------------------------------------------------------------------------

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", "-s", WRITER, SOURCE, str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=(number,),
            )
        self._control = ours

    def _greet(self) -> None:
        """The first process opens the file before the member goes on."""
        control = self._control
        control.settimeout(START_WAIT_S)
        try:
            control.sendall(self._order)
            answer = control.recv(1)
        except OSError:
            answer = b""
        number = answer[0] if answer else -1
        if number:
            control.close()
            self._process.kill()
            self._process.wait()
            if number > 0:
                raise OutputError(number, os.strerror(number), self._path)
            raise OutputError(0, "the audit process has ended", self._path)
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._read)

    def _again(self) -> None:
        """The next process, which gets all that is kept."""
        if self._over:
            return
        self.restarts += 1
        self._start()
        control = self._control
        control.setblocking(False)
        self._kept.appendleft((self._order, 0))
        self._greeted = False
        self._loop.add_reader(control.fileno(), self._read)
        self._write()

    def _read(self) -> None:
        try:
            answers = self._control.recv(_ANSWERS_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            answers = b""
        if not answers:
            self._lost()
            return
        self._confirm(answers)
        if self._full and self._kept_bytes < ROOM_BYTES and not self._over:
            self._full = False
            self._on_room()

    def _confirm(self, answers: bytes) -> None:
        for number in answers:
            if number:
                if number != self._failing:
                    self._failing = number
                    self._log.error(
                        "the audit log cannot be written; trying again",
                        path=self._path,
                        error=os.strerror(number),
                    )
                continue
            if self._failing and self._greeted:
                self._failing = 0
                self._log.info("the audit log is written again", path=self._path)
            frame, _ = self._kept.popleft()
            self._sent -= 1
            if self._greeted:
                self._kept_bytes -= len(frame)
            self._greeted = True

    def _lost(self) -> None:
        """The process has ended."""
        control = self._control
        self._loop.remove_reader(control.fileno())
        if self._writing:
            self._writing = False
            self._loop.remove_writer(control.fileno())
        control.close()
        self._process.kill()
        self._process.wait()
        if not self._greeted:
            self._kept.popleft()
            self._greeted = True
        self._sent = self._offset = 0
        self._writing = True  # nothing is written until the next is there
        self._log.error("the audit process has ended and is started again", path=self._path)
        self._loop.call_later(AGAIN_S, self._again)

    def _write(self) -> None:
        """Gives the process as much as it takes."""
        control, kept = self._control, self._kept
        try:
            while self._sent < len(kept):
                frame, _ = kept[self._sent]
                self._offset += control.send(
                    memoryview(frame)[self._offset :] if self._offset else frame
                )
                if self._offset == len(frame):
                    self._sent, self._offset = self._sent + 1, 0
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(control.fileno(), self._write)
            return
        except OSError:
            pass  # `_read` is told, too
        if self._writing:
            self._writing = False
            self._loop.remove_writer(control.fileno())


def _framed(message: Any) -> bytes:
    data = marshal.dumps(message, _MESSAGE_FORMAT)
    return len(data).to_bytes(4, "little") + data
