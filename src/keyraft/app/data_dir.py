"""Opens a data directory: identity, log and database, from which a member starts.

With a directory without a log the member founds a cluster or joins one. A directory with a log
decides, whatever the flags say. The database is locked and opened first. Its consistent index
chooses the snapshot behind which the log is read. Only then may anything be written.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import lmdb

from keyraft.app.snapshot_transfers import ReceivedFiles
from keyraft.app.start_checks import StartError, go_error, loose_permission
from keyraft.base.durations import SECOND, format_duration
from keyraft.base.errors import TooManyLearnersError
from keyraft.base.sizes import size
from keyraft.cluster import (
    BootstrapError,
    MembershipDataError,
    VersionError,
    adopt_ids,
    check_join,
    check_learners,
    check_new_cluster,
    decode_member,
    founders,
)
from keyraft.config.config import Config
from keyraft.mvcc import BackendError
from keyraft.mvcc.backend import META, META_CONSISTENT_INDEX
from keyraft.peer.api_client import ClusterView
from keyraft.shell.bootstrap import Opened, Place, found, join, reopen
from keyraft.shell.database_reception import finish_at_start
from keyraft.shell.force_new_cluster import force_new_cluster
from keyraft.storage.backend import LMDBEngine, WriteBuffer, load_checkpoint
from keyraft.storage.files import FileLockedError, OsFiles, UnsyncedFiles
from keyraft.storage.process import StorageProcess
from keyraft.storage.transfer import TransferError, replace, take_over
from keyraft.storage.wal import (
    WALError,
    WALLockedError,
    WALNotFoundError,
    wal_exists,
)

_LOG_TOO_SHORT: Final = (
    "the log does not reach back to what the database holds: a segment is missing, or another "
    "program has gone on with the log and its database is gone. Put back what was removed, or "
    "remove this member from its cluster and add it anew with an empty data directory"
)
DEFRAG_LOCK_S: Final = 10.0  # to get it from the storage process that has just ended


def kv_directory(config: Config) -> str:
    """The directory of the database."""
    return os.path.join(config.snap_directory, "kv")


def has_log(config: Config) -> bool:
    """Whether a member has run on this directory before."""
    return wal_exists(OsFiles(), config.wal_directory)


def os_files(config: Config) -> OsFiles:
    """The file system for the log and the snapshots."""
    return UnsyncedFiles() if config.unsafe_no_fsync else OsFiles()


def open_disk(
    config: Config,
    loop: asyncio.AbstractEventLoop,
    fail: Callable[[str], None],
    running: ClusterView | None = None,
    spare: StorageProcess | None = None,
) -> Opened:
    """Opens, founds or joins; raises StartError with one clear message.

    `running` is the answer of the other initial members, if they answered; `spare` is a storage
    process that has opened nothing yet.
    """
    files = os_files(config)
    try:
        if os.path.exists(config.snap_directory):
            loose = loose_permission(config.snap_directory)
            if loose:
                config.log.warn("check file permission", error=loose)
        files.make_dirs(config.snap_directory)
    except OSError as error:
        raise StartError(f"cannot create directory: {go_error('mkdir', error)}") from None
    path = config.wal_directory
    had_log = wal_exists(files, path)

    def open_engine() -> LMDBEngine:
        nonlocal spare
        process, spare = spare, None
        return LMDBEngine(
            kv_directory(config),
            loop.call_soon_threadsafe,
            lambda: _wait_for_lock(config, files, path),
            process,
            partial(StorageProcess, not config.unsafe_no_fsync, config.memory_mlock),
        )

    try:
        take_over(config.snap_directory, config.log)
        if had_log:
            _finish_transfer(config, files, path, open_engine)
        engine = open_engine()
        if config.bootstrap_defrag_threshold_megabytes:
            engine = defragmented(config, engine, open_engine)
    except (BackendError, TransferError, WALError) as error:
        raise StartError(str(error)) from None
    except OSError as error:
        raise StartError(go_error("open", error)) from None
    backend = WriteBuffer(
        engine, loop, fail, config.backend_batch_interval_s, config.backend_batch_limit
    )
    try:
        if had_log:
            opened = reopen(_place(config, files, backend))
            if config.force_new_cluster:
                force_new_cluster(opened, config.log)
        elif config.initial_cluster_state == "existing":
            opened = _join(config, files, backend, running)
        else:
            opened = _found(config, files, backend, running)
    except (
        WALError,
        BackendError,
        MembershipDataError,
        VersionError,
        BootstrapError,
        TooManyLearnersError,
        lmdb.Error,
    ) as error:
        backend.close()
        if isinstance(error, WALLockedError):
            raise StartError(f"the data directory is in use: {error}") from None
        if isinstance(error, WALNotFoundError):
            raise StartError(f"{error}; {_LOG_TOO_SHORT}") from None
        raise StartError(str(error)) from None
    except BaseException:
        backend.close()
        raise

    def replace_database() -> None:
        def put_in_place() -> LMDBEngine:
            replace(config.snap_directory)
            return open_engine()

        backend.exchange(put_in_place)

    opened.replace_database = replace_database
    opened.boot.checkpoint = load_checkpoint(kv_directory(config), backend)
    return opened


def _finish_transfer(
    config: Config, files: OsFiles, path: str, open_engine: Callable[[], LMDBEngine]
) -> None:
    """The log may have a leader's snapshot that is newer than the database: take its file."""
    received = ReceivedFiles(config.snap_directory)

    def stored_index() -> int:
        engine = open_engine()
        try:
            return int.from_bytes(engine.get(META, META_CONSISTENT_INDEX) or b"", "big")
        finally:
            engine.close()

    def install(index: int) -> None:
        from keyraft.storage.transfer import install

        install(received.path(index), config.snap_directory)

    finish_at_start(
        files, path, received.indexes(), stored_index, install, received.remove, config.log
    )


def defragmented(
    config: Config, engine: LMDBEngine, open_engine: Callable[[], LMDBEngine]
) -> LMDBEngine:
    """The database, written anew first if that frees `--bootstrap-defrag-threshold-megabytes`."""
    threshold_bytes = config.bootstrap_defrag_threshold_megabytes * 1024 * 1024
    sizes = _sizes(engine)
    if engine.size_bytes - engine.size_in_use_bytes < threshold_bytes:
        config.log.info(
            "Skipping defragmentation",
            **sizes,
            bootstrap_defrag_threshold_bytes=threshold_bytes,
            bootstrap_defrag_threshold=size(threshold_bytes),
        )
        return engine
    # Loaded here, because few members need it.
    from keyraft.offline.defrag import defrag
    from keyraft.offline.source import OfflineError

    path = kv_directory(config)
    config.log.info("defragmenting", path=path, **sizes)
    began_s = time.monotonic()
    engine.close()
    try:
        defrag(path, DEFRAG_LOCK_S)
    except OfflineError as error:
        raise StartError(f"cannot defragment the database: {error}") from None
    engine = open_engine()
    config.log.info(
        "finished defragmenting directory",
        path=path,
        **_sizes(engine),
        took=format_duration(round((time.monotonic() - began_s) * SECOND)),
    )
    return engine


def _sizes(engine: LMDBEngine) -> dict[str, object]:
    return {
        "current_db_size_bytes": engine.size_bytes,
        "current_db_size": size(engine.size_bytes),
        "current_db_size_in_use_bytes": engine.size_in_use_bytes,
        "current_db_size_in_use": size(engine.size_in_use_bytes),
    }


def _wait_for_lock(config: Config, files: OsFiles, path: str) -> None:
    """Logs that another member, or the last commit of a killed one, locks the database."""
    if wal_exists(files, path):
        newest = [name for name in files.list(path) if name.endswith(".wal")][-1]
        try:
            files.open_locked(os.path.join(path, newest)).close()
        except FileLockedError:
            raise StartError(
                f"the data directory is in use: {path} is locked by another process"
            ) from None
    config.log.info(
        "db file is flocked by another process, or taking too long",
        path=kv_directory(config),
    )


def _resolve(address: str) -> str:
    """host:port → address:port; raises OSError."""
    host, _, port = address.rpartition(":")
    family, _, _, _, found = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM
    )[0]
    number = str(found[0])
    return f"[{number}]:{port}" if family == socket.AF_INET6 else f"{number}:{port}"


def _check_empty(config: Config, backend: WriteBuffer) -> None:
    if backend.get(META, META_CONSISTENT_INDEX) is not None:
        raise StartError(
            f"the database in {config.snap_directory} has data, but {config.wal_directory} "
            "holds no write-ahead log"
        )


def _join(
    config: Config, files: OsFiles, backend: WriteBuffer, running: ClusterView | None
) -> Opened:
    """Joins a running cluster that has added this member: an empty log, which the leader fills."""
    _check_empty(config, backend)
    initial = config.peer_urls_map()
    check_join(config.name, initial)
    if running is None:
        raise StartError(
            "cannot fetch cluster info from peer urls: could not retrieve cluster information "
            "from the given URLs"
        )
    existing = [decode_member(json.dumps(member).encode()) for member in running.members]
    local = founders(config.initial_cluster_token, initial)
    members = adopt_ids(local, existing, running.cluster_id, _resolve)
    check_learners(existing, config.max_learners)
    own = next(member for member in members if member.name == config.name)
    others = [member for member in members if member.id != own.id]
    return join(_place(config, files, backend), own, running.cluster_id, others)


def _found(
    config: Config, files: OsFiles, backend: WriteBuffer, running: ClusterView | None
) -> Opened:
    """Founds the cluster of `--initial-cluster`."""
    _check_empty(config, backend)
    initial = config.peer_urls_map()
    check_new_cluster(config.name, config.initial_advertise_peer_urls, initial, _resolve)
    members = founders(config.initial_cluster_token, initial)
    own = next(member for member in members if member.name == config.name)
    if running is not None and any(
        one.get("id") == own.id and one.get("clientURLs") for one in running.members
    ):
        raise StartError(f"member {own.id:x} has already been bootstrapped")
    return found(_place(config, files, backend), own, members)


def _place(config: Config, files: OsFiles, backend: WriteBuffer) -> Place:
    return Place(
        files,
        config.wal_directory,
        config.snap_directory,
        backend,
        config.log,
        config.max_learners,
    )
