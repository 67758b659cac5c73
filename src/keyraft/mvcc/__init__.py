"""Multi-version store: revisions, key index, transactions, compaction, hashes, watch groups. Pure."""

from __future__ import annotations

from .backend import Backend, BackendError
from .memory import MemoryBackend

__all__ = ["Backend", "BackendError", "MemoryBackend"]
