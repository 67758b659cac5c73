"""Handing a stopped member's data directory back to the original.

The log and the snapshot files are etcd's own already; what the original lacks is the database in
its format. It is written beside ours as `member/snap/db`. Ours stays. At our next start it is used
again, unless the original has run meanwhile: then `db` has a higher consistent index and is
imported (`storage.transfer.take_over`).
"""

from __future__ import annotations

import os
from typing import Final

from keyraft.base.log import Logger
from keyraft.offline.source import OfflineError, lock
from keyraft.storage.files import OsFiles, create_private
from keyraft.storage.transfer import TransferError, export_file, has_lmdb
from keyraft.storage.transfer.layout import BOLT, KV, sync_dir
from keyraft.storage.transfer.takeover import consistent_index
from keyraft.storage.wal import WALError, newest_snapshot

_UNFINISHED: Final = "db.tmp"  # the original removes such a file when it starts


def hand_back(data_dir: str, wal_dir: str, timeout_s: float, log: Logger) -> None:
    """Writes `member/snap/db`; `wal_dir` empty means the one in `data_dir`. Raises OfflineError."""
    snap_dir = os.path.join(data_dir, "member", "snap")
    if not has_lmdb(snap_dir):
        raise OfflineError(f"there is no database of Keyraft in '{data_dir}'")
    held = lock(os.path.join(snap_dir, KV), timeout_s, exclusive=True)
    try:
        index = consistent_index(os.path.join(snap_dir, KV))
        mark = newest_snapshot(OsFiles(), wal_dir or os.path.join(data_dir, "member", "wal"))
        if mark is not None and mark.index > index:
            raise OfflineError(
                f"the log knows of a snapshot at {mark.index}, but the database holds entries up to "
                f"{index} only: start the member once more, so that it takes the snapshot over"
            )
        size = write_bolt(snap_dir)
    except (TransferError, WALError, OSError) as error:
        raise OfflineError(str(error)) from error
    finally:
        os.close(held)
    log.info(
        "wrote the database for the original",
        path=os.path.join(snap_dir, BOLT),
        size_bytes=size,
        consistent_index=index,
    )


def write_bolt(snap_dir: str) -> int:
    """Writes the database in the original's format, and renames it when it is durable; its length.

    Blocks, for seconds per million keys. Raises TransferError, OSError.
    """
    unfinished = os.path.join(snap_dir, _UNFINISHED)
    with os.fdopen(create_private(unfinished, os.O_RDWR), "w+b") as file:
        size = export_file(os.path.join(snap_dir, KV), file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, os.path.join(snap_dir, BOLT))
    sync_dir(snap_dir)
    return size


def prepare_downgrade(snap_dir: str, target: str, log: Logger) -> None:
    """For a member that stops while a downgrade is enabled: the original will probably start here
    next. Blocks; logs what went wrong and raises nothing.
    """
    log.info(
        "writing the database for the original, because a downgrade is enabled",
        target_version=target,
        path=os.path.join(snap_dir, BOLT),
    )
    try:
        write_bolt(snap_dir)
    except (TransferError, OSError) as error:
        log.error(
            "failed to write the database for the original; "
            "etcdutl migrate --to-original does it later",
            error=str(error),
        )
