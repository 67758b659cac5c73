"""Whole databases in and out: bbolt files from ours, ours from bbolt files (layout.py)."""

from keyraft.storage.transfer.environment import TransferError
from keyraft.storage.transfer.exporting import DIGEST_BYTES, SnapshotExport, export_file
from keyraft.storage.transfer.feed import Sink, SnapshotFeed, SnapshotFeeds
from keyraft.storage.transfer.importing import (
    Imported,
    import_bolt,
    install,
    prepare,
    prepare_in_child,
    take_over,
)
from keyraft.storage.transfer.layout import has_bolt, has_lmdb, recover, replace

__all__ = [
    "DIGEST_BYTES",
    "Imported",
    "Sink",
    "SnapshotExport",
    "SnapshotFeed",
    "SnapshotFeeds",
    "TransferError",
    "export_file",
    "has_bolt",
    "has_lmdb",
    "import_bolt",
    "install",
    "prepare",
    "prepare_in_child",
    "recover",
    "replace",
    "take_over",
]
