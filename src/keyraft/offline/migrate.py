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

from keyraft.base.gotext import parse_int
from keyraft.base.log import Logger
from keyraft.base.protofields import fields
from keyraft.mvcc.backend import META, META_CONSISTENT_INDEX, META_STORAGE_VERSION, META_TERM
from keyraft.offline.source import (
    OfflineError,
    Source,
    database_path,
    lock,
    system_error,
)
from keyraft.raft import Entry, EntryType
from keyraft.storage.bolt import BoltError, Update
from keyraft.storage.files import OsFiles
from keyraft.storage.transfer.environment import open_environment
from keyraft.storage.wal import SnapshotMark, WALError, read_wal, valid_snapshots

Minor = tuple[int, int]

_OLDEST: Final[Minor] = (3, 5)
_FIRST_STORED: Final[Minor] = (3, 6)
_CHANGES: Final[frozenset[Minor]] = frozenset({(3, 6), (3, 7)})
"""The versions between which etcd 3.7 can migrate (etcd `schema.schemaChanges`)."""
# Fields of InternalRaftRequest by the version that brought them.
_SINCE: Final[dict[int, Minor]] = {
    1013: (3, 5),  # auth_status
    1300: (3, 5),  # cluster_version_set
    1301: (3, 5),  # cluster_member_attr_set
    1302: (3, 5),  # downgrade_info_set
    9900: (3, 6),  # downgrade_version_test
}
_VERSION_TEST: Final = 9900


def parse_target(text: str) -> Minor:
    """`X.Y`; raises OfflineError with the original's words."""
    if text.count(".") != 1:
        raise OfflineError(f'wrong target version format, expected "X.Y", got "{text}"')
    core = (text + ".0").partition("+")[0].partition("-")[0]
    parts = core.split(".")
    try:
        if len(parts) != 3:
            raise ValueError(f"{core} is not in dotted-tri format")
        major, minor, _ = map(parse_int, parts)
    except ValueError as error:
        raise OfflineError(f"failed to parse target version: {error}") from None
    target = (major, minor)
    if target < _OLDEST:
        raise OfflineError(f'target version "{_text(target)}" not supported. Minimal "3.5"')
    return target


def migrate(
    data_dir: str, wal_dir: str, target: Minor, force: bool, timeout_s: float, log: Logger
) -> None:
    """Sets the storage version; `wal_dir` empty means the one in `data_dir`. Raises OfflineError."""
    if not os.path.exists(os.path.join(data_dir, "member", "snap", "kv")):
        _require(os.path.join(data_dir, "member", "snap", "db"))
    path = database_path(data_dir)
    held = lock(path, timeout_s, exclusive=True)
    try:
        _migrate(path, wal_dir or os.path.join(data_dir, "member", "wal"), target, force, log)
    finally:
        os.close(held)


def _require(path: str) -> None:
    try:
        os.stat(path)
    except OSError as error:
        raise system_error("stat", path, error) from None


def _migrate(path: str, wal_dir: str, target: Minor, force: bool, log: Logger) -> None:
    try:
        current = _current(path)
    except OfflineError:
        log.error(
            "failed to detect storage version. Please make sure you are using data dir from etcd "
            "v3.5 and older"
        )
        raise
    if current == target:
        log.info("storage version up-to-date", storage_version=_text(target))
        return
    needed = _needed_by_log(wal_dir, log)
    try:
        steps = _steps(current, target, log)
        if target < current and target < needed:
            raise OfflineError(
                "cannot downgrade storage, WAL contains newer entries, as the target version "
                f"({_text(target)}.0) is lower than the version ({_text(needed)}.0) detected from "
                "WAL logs"
            )
    except OfflineError as error:
        if not force:
            raise
        log.info("normal migrate failed, trying with force", error=str(error))
        _store(path, target)
        if target < _FIRST_STORED:
            log.warn("forcefully cleared storage version")
        else:
            log.warn("forcefully set storage version", storage_version=_text(target))
        return
    _store(path, target)
    for step in steps:
        log.info("updated storage version", new_storage_version=f"{_text(step)}.0")


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
        raise OfflineError("missing term information")
    return _OLDEST


def _steps(current: Minor, target: Minor, log: Logger) -> list[Minor]:
    """The versions on the way, the target last. Raises OfflineError."""
    if current[0] != target[0]:
        log.error(
            "Changing major storage version is not supported",
            storage_version=f"{_text(current)}.0",
            target_storage_version=f"{_text(target)}.0",
        )
        raise OfflineError(
            "cannot create migration plan: changing major storage version is not supported"
        )
    steps = []
    while current != target:
        up = current < target
        following = (current[0], current[1] + (1 if up else -1))
        newer = following if up else current
        if newer not in _CHANGES:
            raise OfflineError(
                f'cannot create migration plan: version "{_text(newer)}.0" is not supported'
            )
        current = following
        steps.append(current)
    return steps


def _needed_by_log(path: str, log: Logger) -> Minor:
    """The oldest version that understands all entries since the last snapshot."""
    files = OsFiles()
    try:
        os.listdir(path)
        marks = valid_snapshots(files, path)
        entries = read_wal(files, path, marks[-1] if marks else SnapshotMark()).entries
    except OSError as error:
        reason = system_error("open", path, error)
        text = (
            f"failed to get the lastest snapshot: [readWALNames] fileutil.ReadDir failed: {reason}"
        )
    except WALError as error:
        text = f"failed to read wal: {error}"
    else:
        return max((_needs(entry) for entry in entries), default=(0, 0))
    log.error("Failed to finalize config", error=text)
    raise OfflineError(text)


def _needs(entry: Entry) -> Minor:
    """The oldest version that understands an entry."""
    if entry.type != EntryType.NORMAL or not entry.data:
        return (0, 0)
    needed: Minor = (0, 0)
    try:
        for number, value in fields(entry.data):
            needed = max(needed, _SINCE.get(number, (0, 0)))
            if number == _VERSION_TEST and isinstance(value, bytes):
                for inner, text in fields(value):
                    match = re.match(rb"(\d+)\.(\d+)", text) if isinstance(text, bytes) else None
                    if inner == 1 and match:
                        needed = max(needed, (int(match[1]), int(match[2])))
    except ValueError:
        return (0, 0)  # a request of the v2 API, which only 3.5 and older wrote
    return needed


def _store(path: str, target: Minor) -> None:
    """3.5 and older have no version in the database."""
    value = None if target < _FIRST_STORED else f"{_text(target)}.0".encode()
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
