"""The database of a member: a write buffer over LMDB (or over dictionaries, in simulations)."""

from __future__ import annotations

from .buffer import WriteBuffer
from .engine import Batch, Engine
from .lmdb_engine import LMDBEngine, Locked
from .memory import Disk, MemoryEngine

__all__ = ["Batch", "Disk", "Engine", "LMDBEngine", "Locked", "MemoryEngine", "WriteBuffer"]
