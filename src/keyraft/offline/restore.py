"""From a snapshot to a member's data directory, for a new cluster.

The result is Go etcd's layout, on which both etcd and Keyraft start: `member/snap/db` without its
digest, the old members replaced by the new; a `.snap` file; a log whose entries add the members.
The database is copied and then changed by one transaction in bbolt's format, so a restore costs
little more than the copy. Source: etcd `etcdutl/snapshot/v3_snapshot.go`.

Everything is made beside its final name and renamed last: a restore that was interrupted leaves
nothing that looks like a member.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import Final

from keyraft.base.ids import INT64_MAX, MemberID
from keyraft.base.log import Logger, NullLogger
from keyraft.base.urls import URLError, parse_urls, parse_urls_map
from keyraft.cluster import (
    BootstrapError,
    MemberRecord,
    RaftCluster,
    check_new_cluster,
    cluster_id,
    founders,
)
from keyraft.cluster.member import member_key
from keyraft.mvcc import MemoryBackend
from keyraft.mvcc.backend import (
    KEY,
    MEMBERS,
    MEMBERS_REMOVED,
    META,
    META_CONF_STATE,
    META_CONSISTENT_INDEX,
    META_SCHEDULED_COMPACT,
    META_TERM,
)
from keyraft.offline.source import (
    DIGEST_BYTES,
    READ_BYTES,
    OfflineError,
    ProgressCallback,
    digest_mismatch,
    has_digest,
    no_progress,
    system_error,
)
from keyraft.raft import (
    ConfChange,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Snapshot,
    SnapshotMeta,
    codec,
)
from keyraft.server import encode_conf_state
from keyraft.server.membership.v2_tree import encode as encode_v2_tree
from keyraft.storage.bolt import BoltError, BoltFile, Update, check
from keyraft.storage.files import OsFiles, make_private_dirs
from keyraft.storage.snap import SnapDir
from keyraft.storage.wal import WAL, SnapshotMark, WALError, encode_metadata

_TERM: Final = 1
_UNFINISHED: Final = "member.restoring"


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """The flags of `snapshot restore`."""

    snapshot: str
    data_dir: str
    wal_dir: str  # empty: within data_dir
    name: str
    initial_cluster: str
    initial_cluster_token: str
    peer_urls: str  # comma separated
    skip_hash_check: bool = False
    bump_revision: int = 0
    mark_compacted: bool = False


def restore(
    plan: RestorePlan, log: Logger | None = None, progress: ProgressCallback = no_progress
) -> None:
    """Carries the plan out, or raises OfflineError and has written nothing."""
    log = log or NullLogger()
    members, own = _members(plan)
    if os.path.exists(plan.data_dir) and not _is_empty_dir(plan.data_dir):
        raise OfflineError(f'data-dir "{plan.data_dir}" not empty or could not be read')
    if plan.wal_dir and os.path.exists(plan.wal_dir):
        raise OfflineError(f'wal-dir "{plan.wal_dir}" exists')
    wal_dir = plan.wal_dir or os.path.join(plan.data_dir, "member", "wal")
    log.info("restoring snapshot", path=plan.snapshot, wal_dir=wal_dir, data_dir=plan.data_dir)
    existed = os.path.isdir(plan.data_dir)
    unfinished = os.path.join(plan.data_dir, _UNFINISHED)
    try:
        _write(plan, members, own, unfinished, log, progress)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if plan.wal_dir:
            shutil.rmtree(plan.wal_dir, ignore_errors=True)
        if not existed:
            shutil.rmtree(plan.data_dir, ignore_errors=True)
        if isinstance(error, OSError):
            raise OfflineError(f"cannot restore to '{plan.data_dir}': {error}") from error
        if isinstance(error, BoltError | WALError):
            raise OfflineError(str(error)) from error
        raise
    log.info("restored snapshot", path=plan.snapshot, wal_dir=wal_dir, data_dir=plan.data_dir)


def _members(plan: RestorePlan) -> tuple[list[MemberRecord], MemberRecord]:
    """The new cluster's members by id, and the one that is restored."""
    try:
        advertised = parse_urls(plan.peer_urls.split(","))
        initial = parse_urls_map(plan.initial_cluster)
        check_new_cluster(plan.name, advertised, initial)
        members = founders(plan.initial_cluster_token, initial)
    except (URLError, BootstrapError) as error:
        raise OfflineError(str(error)) from error
    return members, next(member for member in members if member.name == plan.name)


def _is_empty_dir(path: str) -> bool:
    try:
        return not os.listdir(path)
    except OSError:
        return False


def _write(
    plan: RestorePlan,
    members: list[MemberRecord],
    own: MemberRecord,
    target: str,
    log: Logger,
    progress: ProgressCallback,
) -> None:
    database = _copy(plan, target, progress)
    if plan.skip_hash_check:
        with BoltFile(database) as db:
            errors = check(db)
        if errors:
            raise OfflineError(
                f"snapshot file integrity check failed. {len(errors)} errors found.\n"
                + "\n".join(errors)
            )
    files = OsFiles()
    snap_dir = os.path.join(target, "snap")
    conf_state = ConfState([member.id for member in members])
    log.info("Trimming membership information from the backend...")
    _change(plan, database, members, conf_state, log)
    mark = SnapshotMark(len(members), _TERM, conf_state)
    # As in the original, nobody is local yet.
    cluster = RaftCluster(
        cluster_id([member.id for member in members]), MemberID(0), MemoryBackend(), log
    )
    for member in members:
        cluster.add(member)
    meta = SnapshotMeta(conf_state, mark.index, mark.term)
    SnapDir(files, snap_dir).save(Snapshot(encode_v2_tree(cluster), meta))
    wal_dir = plan.wal_dir or os.path.join(target, "wal")
    make_private_dirs(os.path.dirname(os.path.abspath(wal_dir)))
    wal = WAL.create(files, wal_dir, encode_metadata(own.id, cluster.id))
    try:
        entries = [
            Entry(
                _TERM,
                index,
                codec.encode_conf_change(
                    ConfChange(ConfChangeType.ADD_NODE, member.id, member.to_json())
                ),
                EntryType.CONF_CHANGE,
            )
            for index, member in enumerate(members, 1)
        ]
        wal.append(entries, HardState(_TERM, members[0].id, mark.index))
        wal.save_snapshot(mark)
    finally:
        wal.close()
    files.sync_dir(snap_dir)
    files.sync_dir(target)
    files.rename(target, os.path.join(plan.data_dir, "member"))
    files.sync_dir(plan.data_dir)
    files.sync_dir(os.path.dirname(os.path.abspath(plan.data_dir)))


def _copy(plan: RestorePlan, target: str, progress: ProgressCallback) -> str:
    """Copies the database without its digest, which is compared on the way; the copy's path."""
    try:
        source = open(plan.snapshot, "rb")  # noqa: SIM115  (closed right below)
    except OSError as error:
        raise system_error("open", plan.snapshot, error) from None
    with source:
        try:
            size = os.fstat(source.fileno()).st_size
            wanted = b""
            if has_digest(size):
                wanted = os.pread(source.fileno(), DIGEST_BYTES, size - DIGEST_BYTES)
                size -= DIGEST_BYTES
            elif not plan.skip_hash_check:
                raise OfflineError("snapshot missing hash but --skip-hash-check=false")
            make_private_dirs(os.path.join(target, "snap"))
            path = os.path.join(target, "snap", "db")
            sha = hashlib.sha256()
            done = 0
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                while done < size and (data := source.read(min(READ_BYTES, size - done))):
                    sha.update(data)
                    out.write(data)
                    done += len(data)
                    progress(done, size)
                out.flush()
                os.fsync(out.fileno())
        except IsADirectoryError as error:
            raise system_error("read", plan.snapshot, error) from None
    if wanted and not plan.skip_hash_check and wanted != sha.digest():
        raise digest_mismatch(wanted, sha.digest())
    return path


def _change(
    plan: RestorePlan,
    database: str,
    members: list[MemberRecord],
    conf_state: ConfState,
    log: Logger,
) -> None:
    """Makes the copy the database of a new cluster."""
    update = Update()
    update.clear(MEMBERS)
    update.clear(MEMBERS_REMOVED)
    update.change(MEMBERS, {member_key(member.id): member.to_json() for member in members})
    meta: dict[bytes, bytes | None] = {
        META_CONSISTENT_INDEX: len(members).to_bytes(8, "big"),
        META_TERM: _TERM.to_bytes(8, "big"),
        META_CONF_STATE: encode_conf_state(conf_state),
    }
    if plan.mark_compacted and plan.bump_revision:
        with BoltFile(database) as db:
            bucket = db.bucket(KEY)
            last = bucket.last() if bucket is not None else None
        latest = int.from_bytes(last[0][:8], "big") if last else 0
        revision = latest + plan.bump_revision
        if revision > INT64_MAX:
            raise OfflineError(
                f"cannot bump revision {latest} by {plan.bump_revision}: there is none so high"
            )
        log.info(
            "bumping latest revision",
            latest_revision=latest,
            bump_amount=plan.bump_revision,
            new_latest_revision=revision,
        )
        log.info("marking revision compacted", revision=revision)
        bumped = revision.to_bytes(8, "big") + b"_" + bytes(8)
        update.append(KEY, bumped, b"")
        meta[META_SCHEDULED_COMPACT] = bumped
    update.change(META, meta)
    update.commit(database)
