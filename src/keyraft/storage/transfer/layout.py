"""The databases under `member/snap`, and replacing one whole by another.

    kv/            our LMDB environment
    kv.building/   one being imported; what a crash leaves of it is worthless
    kv.ready/      one imported and durable, about to become kv/
    kv.old/        the one that is being replaced
    kv.wrong       an empty file: kv.ready is to replace kv, which is kept beside `snap`, as
                   corrupt-TIME/ (`server.upkeep.rebuild`); the newest two are kept
    db             Go etcd's bbolt file; taken over when there is no kv/ or when it holds more, and
                   kept as it is; `etcdutl migrate --to-original` writes it anew

`replace` renames kv -> kv.old and kv.ready -> kv; whichever of the two a crash leaves undone,
`recover` at start does.
"""

from __future__ import annotations

import os
import time
from typing import Final

from keyraft.storage.files import create_private

KV: Final = "kv"
BUILDING: Final = "kv.building"
READY: Final = "kv.ready"
OLD: Final = "kv.old"
WRONG: Final = "kv.wrong"
KEPT_PREFIX: Final = "corrupt-"
KEPT_MAX: Final = 2
BOLT: Final = "db"
DATA_FILE: Final = "data.mdb"
DIGEST_BYTES: Final = 32


def has_lmdb(snap_dir: str) -> bool:
    """Whether our own database is there."""
    return os.path.exists(os.path.join(snap_dir, KV, DATA_FILE))


def has_bolt(snap_dir: str) -> bool:
    """Whether Go etcd's database is there."""
    return os.path.isfile(os.path.join(snap_dir, BOLT))


def sync_dir(path: str) -> None:
    """The directory's names are on the disk when it returns. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """A directory and what is in it, as far as it can be removed; most often it is not there."""
    if os.path.lexists(path):
        import shutil  # a start does without

        shutil.rmtree(path, ignore_errors=True)


def replace(snap_dir: str) -> None:
    """kv.ready becomes kv; nobody may have kv open. Raises OSError."""
    ready, kv, old = (os.path.join(snap_dir, name) for name in (READY, KV, OLD))
    remove(old)
    if os.path.exists(kv):
        os.rename(kv, old)
    os.rename(ready, kv)
    sync_dir(snap_dir)
    remove(old)


def mark_wrong(snap_dir: str) -> None:
    """The next start replaces kv by kv.ready, which is durable, and keeps kv. Raises OSError."""
    os.close(create_private(os.path.join(snap_dir, WRONG)))
    sync_dir(snap_dir)


def kept(snap_dir: str) -> list[str]:
    """Databases that were wrong, oldest first."""
    above = os.path.dirname(snap_dir)
    return sorted(
        os.path.join(above, name) for name in os.listdir(above) if name.startswith(KEPT_PREFIX)
    )


def _keep_wrong(snap_dir: str) -> None:
    """What a member that found itself wrong has left to do."""
    marker = os.path.join(snap_dir, WRONG)
    if not os.path.exists(marker):
        return
    ready, kv = os.path.join(snap_dir, READY), os.path.join(snap_dir, KV)
    if os.path.exists(ready):
        if os.path.exists(kv):
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            aside = os.path.join(os.path.dirname(snap_dir), KEPT_PREFIX + stamp)
            remove(aside)
            os.rename(kv, aside)
            sync_dir(os.path.dirname(snap_dir))
        os.rename(ready, kv)
        sync_dir(snap_dir)
    os.unlink(marker)
    sync_dir(snap_dir)
    for old in kept(snap_dir)[:-KEPT_MAX]:
        remove(old)


def recover(snap_dir: str) -> None:
    """Finishes a replacement that a crash interrupted, drops a half-made import. Raises OSError."""
    _keep_wrong(snap_dir)
    building, ready, kv, old = (os.path.join(snap_dir, name) for name in (BUILDING, READY, KV, OLD))
    remove(building)
    if not has_lmdb(snap_dir):
        if os.path.exists(ready):
            remove(kv)
            os.rename(ready, kv)
            sync_dir(snap_dir)
        elif os.path.exists(old):
            remove(kv)
            os.rename(old, kv)
            sync_dir(snap_dir)
    remove(ready)
    remove(old)
