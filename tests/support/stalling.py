"""`etcd` with a disk that can be held up: GATE, then the member's own arguments.

Every sync of the log waits for a shared lock on the file GATE; a test that holds the lock
exclusively has stalled the disk. Syncs are left to the storage thread, as on a slow disk.
"""

from __future__ import annotations

import fcntl
import sys

from keyraft.cli import etcd
from keyraft.storage.files import OsFile
from keyraft.storage.wal import appender


def main() -> int:
    """Runs the member."""
    gate = sys.argv[1]
    write = OsFile.pwrite

    def pwrite(self: OsFile, data: bytes, offset: int, durable: bool = False) -> None:
        if durable:
            with open(gate, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
        write(self, data, offset, durable)

    OsFile.pwrite = pwrite  # type: ignore[method-assign]  # what this program is for
    appender.SyncPolicy.inline = lambda self, size, alone: False  # type: ignore[assignment, method-assign]  # the same
    return etcd.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
