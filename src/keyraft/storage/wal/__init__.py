"""The write-ahead log in etcd's format (record.py has the format, log.py the invariants)."""

from keyraft.storage.wal.appender import Appender, StorageThread, SyncPolicy
from keyraft.storage.wal.encode import WALBatch, WALEncoder
from keyraft.storage.wal.inspect import newest_snapshot, read_wal, valid_snapshots, verify
from keyraft.storage.wal.log import WAL, Replay
from keyraft.storage.wal.record import (
    SEGMENT_BYTES,
    SnapshotMark,
    WALDamagedError,
    WALError,
    WALFullError,
    WALLockedError,
    WALNotFoundError,
    WALRefusedError,
    WALTornError,
    WALWriteError,
    decode_metadata,
    encode_metadata,
)
from keyraft.storage.wal.segments import purge_segments, wal_exists

__all__ = [
    "SEGMENT_BYTES",
    "WAL",
    "Appender",
    "Replay",
    "SnapshotMark",
    "StorageThread",
    "SyncPolicy",
    "WALBatch",
    "WALDamagedError",
    "WALEncoder",
    "WALError",
    "WALFullError",
    "WALLockedError",
    "WALNotFoundError",
    "WALRefusedError",
    "WALTornError",
    "WALWriteError",
    "decode_metadata",
    "encode_metadata",
    "newest_snapshot",
    "purge_segments",
    "read_wal",
    "valid_snapshots",
    "verify",
    "wal_exists",
]
