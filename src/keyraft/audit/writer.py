"""The audit process: takes batches of ended calls, makes lines of them and writes them.

Started as `python -S -E -s writer.py SOURCE CONTROL`, where SOURCE is the directory of the package
and CONTROL the number of a socket. It ends when its input ends, that is, when the member is gone.

    to it:    4 bytes length (little endian), then that many bytes: a marshalled tuple; first one of
              (path, bytes max, backups max, names of codes), then batches (`lines`)
    from it:  a byte for each of them: 0 done, else the number of an error. An error of the first one
              is the end; after one of a batch the process tries again each second until it is done.
"""

from __future__ import annotations

import marshal
import os
import signal
import sys
import time

RETRY_S = 1.0
LENGTH_BYTES = 4
ERRORS_MAX = 255


def read_exactly(descriptor: int, size: int) -> bytes | None:
    """`size` bytes, or None when the input has ended."""
    pieces: list[bytes] = []
    while size:
        piece = os.read(descriptor, min(size, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def read_message(descriptor: int) -> object:
    """The next one, or None when the input has ended."""
    head = read_exactly(descriptor, LENGTH_BYTES)
    data = None if head is None else read_exactly(descriptor, int.from_bytes(head, "little"))
    return None if data is None else marshal.loads(data)


def run(control: int) -> None:
    """Until the input ends."""
    from keyraft.audit.files import AuditFile
    from keyraft.audit.lines import AuditLines

    def answer(number: int) -> None:
        os.write(control, bytes((min(number, ERRORS_MAX),)))

    order = read_message(control)
    if not isinstance(order, tuple):
        return
    path, bytes_max, backups_max, names = order
    try:
        file = AuditFile(path, bytes_max, backups_max, time.monotonic, time.time)
    except OSError as error:
        answer(error.errno or ERRORS_MAX)
        return
    answer(0)
    maker = AuditLines(names)
    while isinstance(batch := read_message(control), tuple):
        data = maker.lines(batch)
        while True:
            try:
                file.write(data)
                break
            except OSError as error:
                answer(error.errno or ERRORS_MAX)
                time.sleep(RETRY_S)
        answer(0)


def main() -> None:
    """A terminal's signals are for the member, which then ends this process's input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.path.insert(0, sys.argv[1])
    try:
        run(int(sys.argv[2]))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the member is gone


if __name__ == "__main__":
    main()
