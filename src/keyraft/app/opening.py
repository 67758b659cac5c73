"""From a data directory to what a member starts from: identity, log, database.

A directory without a log founds a cluster (or is about to join one); with one, what it says
counts, whatever the flags say. The order: the database is locked and opened first, its consistent
index chooses the snapshot to read the log behind, and only then may anything be written.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from keyraft.app.config import Config
from keyraft.app.startup import StartError, go_error
from keyraft.base.ids import ClusterID, MemberID
from keyraft.cluster import (
    BootstrapError,
    Cluster,
    MembershipDataError,
    VersionError,
    check_new_cluster,
    cluster_id,
    founders,
)
from keyraft.mvcc import BackendError
from keyraft.mvcc.backend import META, META_CONF_STATE, META_CONSISTENT_INDEX
from keyraft.raft import (
    ConfChange,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    HardState,
    SnapshotMeta,
    codec,
)
from keyraft.server import Boot, decode_conf_state
from keyraft.storage.backend import LMDBEngine, WriteBuffer
from keyraft.storage.files import LockedError, OsFiles
from keyraft.storage.wal import (
    WAL,
    SnapshotMark,
    WALError,
    WALLockedError,
    decode_metadata,
    encode_metadata,
    valid_snapshots,
    wal_exists,
)


@dataclass(slots=True)
class Opened:
    """A member's disk, ready."""

    member_id: int
    cluster_id: int
    wal: WAL
    backend: WriteBuffer
    cluster: Cluster
    boot: Boot
    fresh: bool


def open_disk(
    config: Config, loop: asyncio.AbstractEventLoop, fail: Callable[[str], None]
) -> Opened:
    """Opens or founds; raises StartError with one clear message."""
    files = OsFiles()
    try:
        files.make_dirs(config.snap_directory)
    except OSError as error:
        raise StartError(f"cannot create directory: {go_error('mkdir', error)}") from None
    path = config.wal_directory
    had_log = wal_exists(files, path)
    try:
        engine = LMDBEngine(
            os.path.join(config.snap_directory, "kv"),
            loop.call_soon_threadsafe,
            lambda: _wait_for_lock(config, files, path),
        )
    except BackendError as error:
        raise StartError(str(error)) from None
    backend = WriteBuffer(
        engine, loop, fail, config.backend_batch_interval_s, config.backend_batch_limit
    )
    try:
        opened = _open_log(config, files, backend) if had_log else _found(config, files, backend)
    except (WALError, BackendError, MembershipDataError, VersionError, BootstrapError) as error:
        backend.close()
        if isinstance(error, WALLockedError):
            raise StartError(f"the data directory is in use: {error}") from None
        raise StartError(str(error)) from None
    except BaseException:
        backend.close()
        raise
    return opened


def _wait_for_lock(config: Config, files: OsFiles, path: str) -> None:
    """Somebody holds the database: another member, or the last commit of one that was killed."""
    if wal_exists(files, path):
        newest = [name for name in files.list(path) if name.endswith(".wal")][-1]
        try:
            files.open_locked(os.path.join(path, newest)).close()
        except LockedError:
            raise StartError(
                f"the data directory is in use: {path} is locked by another process"
            ) from None
    config.log.info(
        "db file is flocked by another process, or taking too long",
        path=os.path.join(config.snap_directory, "kv"),
    )


def _found(config: Config, files: OsFiles, backend: WriteBuffer) -> Opened:
    """A new cluster, as `--initial-cluster` names it."""
    if backend.get(META, META_CONSISTENT_INDEX) is not None:
        raise StartError(
            f"the database in {config.snap_directory} has data, but {config.wal_directory} "
            "holds no write-ahead log"
        )
    initial = config.peer_urls_map()
    check_new_cluster(config.name, config.initial_advertise_peer_urls, initial)
    members = founders(config.initial_cluster_token, initial)
    own = next(member for member in members if member.name == config.name)
    cluster_number = cluster_id([member.id for member in members])
    wal = WAL.create(
        files, config.wal_directory, encode_metadata(own.id, cluster_number), log=config.log
    )
    entries = [
        Entry(
            1,
            index,
            codec.encode_conf_change(ConfChange(ConfChangeType.ADD_NODE, one.id, one.to_json())),
            EntryType.CONF_CHANGE,
        )
        for index, one in enumerate(members, 1)
    ]
    state = HardState(1, 0, len(entries))
    wal.append(entries, state)
    cluster = Cluster(cluster_number, own.id, backend, config.log, config.max_learners)
    return Opened(own.id, cluster_number, wal, backend, cluster, Boot(state, entries), fresh=True)


def _open_log(config: Config, files: OsFiles, backend: WriteBuffer) -> Opened:
    """The log and the database of a former life."""
    stored = backend.get(META, META_CONSISTENT_INDEX)
    consistent_index = int.from_bytes(stored, "big") if stored else 0
    path = config.wal_directory
    marks = valid_snapshots(files, path)
    usable = [mark for mark in marks if mark.index <= consistent_index]
    if marks and not usable:
        raise StartError(
            f"the database holds entries up to {consistent_index}, but the write-ahead log "
            f"begins behind {marks[0].index}"
        )
    mark = usable[-1] if usable else SnapshotMark()
    wal, replay = WAL.open(files, path, mark, log=config.log)
    try:
        own, cluster_number = decode_metadata(replay.metadata)
        conf_state = backend.get(META, META_CONF_STATE)
        boot = Boot(
            hard_state=replay.state,
            entries=replay.entries,
            snapshot=SnapshotMeta(mark.conf_state, mark.index, mark.term),
            consistent_index=consistent_index,
        )
        cluster = Cluster(
            ClusterID(cluster_number), MemberID(own), backend, config.log, config.max_learners
        )
        cluster.load()
        if conf_state is not None:
            boot.conf_state = decode_conf_state(conf_state)
        elif consistent_index:
            boot.conf_state = ConfState(*cluster.conf_ids())
    except BaseException:
        wal.close()
        raise
    return Opened(own, cluster_number, wal, backend, cluster, boot, fresh=False)
