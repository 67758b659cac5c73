"""A data directory that Go etcd left becomes ours when a member first starts on it."""

from __future__ import annotations

import os

from keyraft.base.log import Logger
from keyraft.storage.transfer.layout import BOLT, KV, has_bolt, has_lmdb, recover


def take_over(snap_dir: str, log: Logger) -> bool:
    """Makes a data directory of Go etcd ours: its `db` is imported and kept as it is.

    Also finishes a replacement that a crash interrupted. True when something was taken over.
    To be called before the database is opened. Raises TransferError, OSError.
    """
    if not os.path.isdir(snap_dir):
        return False
    recover(snap_dir)
    if has_lmdb(snap_dir) or not has_bolt(snap_dir):
        return False
    # Loaded here: once in a directory's life.
    from keyraft.storage.transfer.importing import install

    source = os.path.join(snap_dir, BOLT)
    result = install(source, snap_dir)
    log.info(
        "took over the database of etcd; the original is kept",
        from_path=source,
        to_path=os.path.join(snap_dir, KV),
        keys=result.keys,
        consistent_index=result.consistent_index,
    )
    return True
