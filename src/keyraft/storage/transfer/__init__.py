"""Whole databases in and out: bbolt files from ours, ours from bbolt files (layout.py).

Imported when first used: a start does without the two formats.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from keyraft.storage.transfer.environment import TransferError as TransferError
    from keyraft.storage.transfer.exporting import SnapshotExport as SnapshotExport
    from keyraft.storage.transfer.exporting import export_file as export_file
    from keyraft.storage.transfer.feed import Sink as Sink
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

_HOMES: Final = {
    "DIGEST_BYTES": ".layout",
    "Imported": ".importing",
    "Sink": ".feed",
    "SnapshotExport": ".exporting",
    "SnapshotFeed": ".feed",
    "SnapshotFeeds": ".feed",
    "TransferError": ".environment",
    "export_file": ".exporting",
    "has_bolt": ".layout",
    "has_lmdb": ".layout",
    "import_bolt": ".importing",
    "install": ".importing",
    "prepare": ".importing",
    "prepare_in_child": ".importing",
    "recover": ".layout",
    "replace": ".layout",
    "take_over": ".takeover",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home, __name__), name)


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
