"""The database of a member: a write buffer over LMDB (or over dictionaries, in simulations)."""

from __future__ import annotations

from . import long_keys
from .buffer import WriteBuffer
from .checkpoints import Checkpoints, load_checkpoint, save_checkpoint
from .engine import Batch, StorageEngine
from .gate import opening
from .lmdb_engine import DatabaseLockedError, LMDBEngine, LMDBReader
from .memory import Disk, MemoryEngine
from .reader import ReadOnlyBackend

__all__ = [
    "Batch",
    "Checkpoints",
    "DatabaseLockedError",
    "Disk",
    "LMDBEngine",
    "LMDBReader",
    "MemoryEngine",
    "ReadOnlyBackend",
    "StorageEngine",
    "WriteBuffer",
    "load_checkpoint",
    "long_keys",
    "opening",
    "save_checkpoint",
]
