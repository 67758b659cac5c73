"""Multi-version store: revisions, key index, transactions, compaction, hashes, watch groups. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.lazy import names_in
from .backend import Backend, BackendError
from .check import check_delete_range, check_put, check_range, check_range_stream, check_txn
from .checkpoint import Checkpoint
from .hash import HashAllJob, HashKVJob, KVHash, hash_all
from .hooks import Event, Listener, NoLeases, StoreLessor
from .large_range import LargeRange, large_range_steps
from .memory import MemoryBackend
from .restore import Restored, free_steps, restore, restore_steps
from .sorting import sort_steps
from .steps import emptied, finished
from .store import Store
from .txn import is_read_only, is_serializable
from .watch import PENDING_BYTES_MAX, WATCHERS_MAX, WatchHub
from .watch_cohort import NODELETE, NOPUT, PREVIOUS, BulkSink, Sink, Watcher
from .watch_pass import CHUNK_ROWS
from .watch_stream import WatchStream
from .wire import plain_put, plain_range

if TYPE_CHECKING:
    from .usage import PrefixRows, UsageWalk

__getattr__ = names_in(__name__, {".usage": ("PrefixRows", "UsageWalk")})  # asked for seldom

__all__ = [
    "CHUNK_ROWS",
    "NODELETE",
    "NOPUT",
    "PENDING_BYTES_MAX",
    "PREVIOUS",
    "WATCHERS_MAX",
    "Backend",
    "BackendError",
    "BulkSink",
    "Checkpoint",
    "Event",
    "HashAllJob",
    "HashKVJob",
    "KVHash",
    "LargeRange",
    "Listener",
    "MemoryBackend",
    "NoLeases",
    "PrefixRows",
    "Restored",
    "Sink",
    "Store",
    "StoreLessor",
    "UsageWalk",
    "WatchHub",
    "WatchStream",
    "Watcher",
    "check_delete_range",
    "check_put",
    "check_range",
    "check_range_stream",
    "check_txn",
    "emptied",
    "finished",
    "free_steps",
    "hash_all",
    "is_read_only",
    "is_serializable",
    "large_range_steps",
    "plain_put",
    "plain_range",
    "restore",
    "restore_steps",
    "sort_steps",
]
