"""Whole databases in and out: bbolt files from ours, ours from bbolt files (layout.py).

Imported when first used, because a start needs neither format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.base.lazy import names_in

if TYPE_CHECKING:
    from keyraft.storage.transfer.environment import TransferError as TransferError
    from keyraft.storage.transfer.exporting import SnapshotExport as SnapshotExport
    from keyraft.storage.transfer.exporting import export_file as export_file
    from keyraft.storage.transfer.feed import ExportSink as ExportSink
    from keyraft.storage.transfer.feed import SnapshotFeed as SnapshotFeed
    from keyraft.storage.transfer.feed import SnapshotFeeds as SnapshotFeeds
    from keyraft.storage.transfer.importing import Imported as Imported
    from keyraft.storage.transfer.importing import import_bolt as import_bolt
    from keyraft.storage.transfer.importing import install as install
    from keyraft.storage.transfer.importing import prepare as prepare
    from keyraft.storage.transfer.importing import prepare_in_child as prepare_in_child
    from keyraft.storage.transfer.layout import DIGEST_BYTES as DIGEST_BYTES
    from keyraft.storage.transfer.layout import has_bolt as has_bolt
    from keyraft.storage.transfer.layout import has_lmdb as has_lmdb
    from keyraft.storage.transfer.layout import recover as recover
    from keyraft.storage.transfer.layout import replace as replace
    from keyraft.storage.transfer.takeover import take_over as take_over

__getattr__ = names_in(
    __name__,
    {
        ".environment": ("TransferError",),
        ".exporting": ("SnapshotExport", "export_file"),
        ".feed": ("ExportSink", "SnapshotFeed", "SnapshotFeeds"),
        ".importing": ("Imported", "import_bolt", "install", "prepare", "prepare_in_child"),
        ".layout": ("DIGEST_BYTES", "has_bolt", "has_lmdb", "recover", "replace"),
        ".takeover": ("take_over",),
    },
)

__all__ = [
    "DIGEST_BYTES",
    "ExportSink",
    "Imported",
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
