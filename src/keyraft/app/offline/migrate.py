"""Moving a stopped member's database to the storage version of an older or newer etcd.

Since 3.6 the version stands in bucket `meta`; a database without it is 3.5's once it has a term.
Going down is refused while the log, from its last snapshot on, holds entries that the older
version does not know. Source: etcd `server/storage/schema`, `wal/version.go`.
"""

from __future__ import annotations

import os
import re
from typing import Final

import lmdb

from keyraft.app.offline.source import OfflineError, Source, database_path, lock
from keyraft.base.log import Logger
from keyraft.mvcc.backend import META, META_CONSISTENT_INDEX, META_STORAGE_VERSION, META_TERM
from keyraft.raft import Entry, EntryType
from keyraft.storage.bolt import BoltError, Update
from keyraft.storage.files import OsFiles
from keyraft.storage.protofields import fields
from keyraft.storage.transfer.environment import open_environment
from keyraft.storage.wal import SnapshotMark, WALError, read_wal, valid_snapshots

Minor = tuple[int, int]

_OLDEST: Final[Minor] = (3, 5)
_FIRST_STORED: Final[Minor] = (3, 6)
_NEWEST: Final[Minor] = (3, 8)
# Fields of InternalRaftRequest by the version that brought them.
_SINCE: Final[dict[int, Minor]] = {
    1013: (3, 5),  # auth_status
    1300: (3, 5),  # cluster_version_set
    1301: (3, 5),  # cluster_member_attr_set
    1302: (3, 5),  # downgrade_info_set
    9900: (3, 6),  # downgrade_version_test
}
_VERSION_SET: Final = 1300


def parse_target(text: str) -> Minor:
    """`X.Y`; raises OfflineError with the original's words."""
    if text.count(".") != 1:
        raise OfflineError(f'wrong target version format, expected "X.Y", got "{text}"')
    match = re.fullmatch(r"(\d{1,9})\.(\d{1,9})", text)
    if match is None:
        raise OfflineError(f"failed to parse target version: {text}.0 is not in dotted-tri format")
    target = (int(match[1]), int(match[2]))
    if target < _OLDEST:
        raise OfflineError(f'target version "{_text(target)}" not supported. Minimal "3.5"')
    return target


def migrate(data_dir: str, target: Minor, force: bool, timeout_s: float, log: Logger) -> None:
    """Sets the storage version. Raises OfflineError."""
    path = database_path(data_dir)
    held = lock(path, timeout_s, exclusive=True)
    try:
        _migrate(data_dir, path, target, force, log)
    finally:
        os.close(held)


def _migrate(data_dir: str, path: str, target: Minor, force: bool, log: Logger) -> None:
    current = _current(path)
    if current == target:
        log.info("storage version up-to-date", storage_version=_text(target))
        return
    try:
        _check_reachable(current, target)
        if target < current:
            _check_log(data_dir, target)
    except OfflineError as error:
        if not force:
            raise
        log.info("normal migrate failed, trying with force", error=str(error))
    value = None if target < _FIRST_STORED else f"{_text(target)}.0".encode()
    _store(path, value)
    log.info("updated storage version", new_storage_version=f"{_text(target)}.0")


def _current(path: str) -> Minor:
    with Source(path, locked=True) as source:
        stored = source.get(META, META_STORAGE_VERSION)
        term = source.get(META, META_TERM)
        index = source.get(META, META_CONSISTENT_INDEX)
    if stored:
        match = re.fullmatch(rb"(\d+)\.(\d+)\.\d+\S*", stored)
        if match is None:
            raise OfflineError(f"the stored version {stored!r} cannot be read")
        return int(match[1]), int(match[2])
    if not term or not index or not int.from_bytes(term, "big"):
        raise OfflineError("cannot detect storage schema version: missing term information")
    return _OLDEST


def _check_reachable(current: Minor, target: Minor) -> None:
    for version in (current, target):
        if version[0] != current[0] or version > _NEWEST:
            raise OfflineError(
                f'cannot create migration plan: version "{_text(version)}.0" is not supported'
            )


def _check_log(data_dir: str, target: Minor) -> None:
    """Raises OfflineError when the log holds what `target` does not know."""
    files = OsFiles()
    path = os.path.join(data_dir, "member", "wal")
    try:
        marks = valid_snapshots(files, path)
        entries = read_wal(files, path, marks[-1] if marks else SnapshotMark()).entries
    except (WALError, OSError) as error:
        raise OfflineError(f"failed to read wal: {error}") from error
    needed = max((_needs(entry) for entry in entries), default=(0, 0))
    if target < needed:
        raise OfflineError(
            "cannot downgrade storage, WAL contains newer entries, as the target version "
            f"({_text(target)}.0) is lower than the version ({_text(needed)}.0) detected from WAL "
            "logs"
        )


def _needs(entry: Entry) -> Minor:
    """The oldest version that understands an entry."""
    if entry.type != EntryType.NORMAL or not entry.data:
        return (0, 0)
    needed: Minor = (0, 0)
    try:
        for number, value in fields(entry.data):
            needed = max(needed, _SINCE.get(number, (0, 0)))
            if number in (_VERSION_SET, 9900) and isinstance(value, bytes):
                for inner, text in fields(value):
                    match = re.match(rb"(\d+)\.(\d+)", text) if isinstance(text, bytes) else None
                    if inner == 1 and match:
                        needed = max(needed, (int(match[1]), int(match[2])))
    except ValueError:
        return (0, 0)  # a request of the v2 API, which only 3.5 and older wrote
    return needed


def _store(path: str, value: bytes | None) -> None:
    try:
        if not os.path.isdir(path):
            update = Update()
            update.change(META, {META_STORAGE_VERSION: value})
            update.commit(path)
            return
        env = open_environment(path)
        try:
            database = env.open_db(META)
            with env.begin(write=True) as txn:
                if value is None:
                    txn.delete(META_STORAGE_VERSION, db=database)
                else:
                    txn.put(META_STORAGE_VERSION, value, db=database)
            env.sync(True)
        finally:
            env.close()
    except (BoltError, lmdb.Error, OSError) as error:
        raise OfflineError(str(error)) from error


def _text(version: Minor) -> str:
    return f"{version[0]}.{version[1]}"
