"""The process that writes an index checkpoint from the committed database.

`python -m keyraft.storage.backend.checkpointer DIRECTORY` writes a temporary file there and prints
its name and, in hex, the head that the database is to store as proof of it. It starts from the last
checkpoint, so it reads only rows that came since.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ...mvcc.backend import OWN, OWN_CHECKPOINT
from ...mvcc.checkpoint import HEAD_BYTES, decode, encode
from ...mvcc.store import Store
from .checkpoints import FILE_NAME, write_temporary
from .lmdb_engine import LMDBReader
from .reader import ReadOnlyBackend

NICE = 10


def main(arguments: list[str]) -> None:
    """Does the work of the module."""
    os.nice(NICE)
    directory = Path(arguments[0])
    reader = LMDBReader(directory)
    backend = ReadOnlyBackend(reader)
    try:
        last = decode((directory / FILE_NAME).read_bytes(), backend.get(OWN, OWN_CHECKPOINT))
    except FileNotFoundError:
        last = None
    data = encode(Store(backend, checkpoint=last))
    reader.close()
    path = write_temporary(directory, data)
    print(path.name, data[:HEAD_BYTES].hex(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
