"""The database of a member: a write buffer over LMDB (or over dictionaries, in simulations)."""

from __future__ import annotations

from . import long_keys
from .buffer import WriteBuffer
from .checkpoints import Checkpoints, load_checkpoint, save_checkpoint
from .engine import Batch, Engine
from .gate import opening
from .lmdb_engine import LMDBEngine, LMDBReader, Locked
from .memory import Disk, MemoryEngine
from .reader import ReadOnlyBackend

__all__ = [
    "Batch",
    "Checkpoints",
    "Disk",
    "Engine",
    "LMDBEngine",
    "LMDBReader",
    "Locked",
    "MemoryEngine",
    "ReadOnlyBackend",
    "WriteBuffer",
    "load_checkpoint",
    "long_keys",
    "opening",
    "save_checkpoint",
]
