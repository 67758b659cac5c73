"""How a member starts: it founds a cluster, joins one, or restarts on its data directory.

Everything that is read or written here goes through `Files` and a backend that are handed in, so
the simulator's members start as real ones do. Source: etcd `server/etcdserver/bootstrap.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from keyraft.base.ids import ClusterID, MemberID
from keyraft.base.log import Logger
from keyraft.cluster import MemberRecord, RaftCluster, cluster_id
from keyraft.mvcc.backend import META, META_CONF_STATE, META_CONSISTENT_INDEX
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
from keyraft.server import Boot, decode_conf_state
from keyraft.server.membership import recovery
from keyraft.storage.backend import WriteBuffer
from keyraft.storage.files import Files
from keyraft.storage.snap import SnapDir, SnapError, snap_name
from keyraft.storage.wal import (
    SEGMENT_BYTES,
    WAL,
    SnapshotMark,
    WALDamagedError,
    decode_metadata,
    encode_metadata,
    newest_snapshot,
)


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of a member, and who it is."""

    files: Files
    wal_path: str
    snap_path: str
    backend: WriteBuffer
    log: Logger
    learners_max: int = 1
    segment_bytes: int = SEGMENT_BYTES


def _nothing() -> None:
    """The default of `replace_database`: no database is open yet."""


@dataclass(slots=True)
class Opened:
    """An opened data directory."""

    member_id: int
    cluster_id: int
    wal: WAL
    backend: WriteBuffer
    cluster: RaftCluster
    boot: Boot
    fresh: bool
    replace_database: Callable[[], None] = _nothing  # puts a received database in the place of ours
    others: list[MemberRecord] = field(default_factory=list)  # that a joining one can contact


def found(place: Place, own: MemberRecord, members: Sequence[MemberRecord]) -> Opened:
    """Founds a new cluster: the log begins with committed entries that add all its members."""
    number = cluster_id([member.id for member in members])
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
    wal = WAL.create(
        place.files,
        place.wal_path,
        encode_metadata(own.id, number),
        entries=entries,
        state=state,
        segment_bytes=place.segment_bytes,
        log=place.log,
    )
    cluster = RaftCluster(number, own.id, place.backend, place.log, place.learners_max)
    boot = Boot(state, entries)
    return Opened(own.id, number, wal, place.backend, cluster, boot, fresh=True)


def join(place: Place, own: MemberRecord, number: int, others: list[MemberRecord]) -> Opened:
    """Joins a running cluster that has added this member: an empty log, which the leader fills."""
    wal = WAL.create(
        place.files,
        place.wal_path,
        encode_metadata(own.id, number),
        segment_bytes=place.segment_bytes,
        log=place.log,
    )
    cluster = RaftCluster(ClusterID(number), own.id, place.backend, place.log, place.learners_max)
    return Opened(own.id, number, wal, place.backend, cluster, Boot(), fresh=True, others=others)


def reopen(place: Place) -> Opened:
    """Restarts on an existing data directory. Raises WALError, MembershipDataError."""
    backend = place.backend
    stored = backend.get(META, META_CONSISTENT_INDEX)
    consistent_index = int.from_bytes(stored, "big") if stored else 0
    mark = newest_snapshot(place.files, place.wal_path, consistent_index) or SnapshotMark()
    wal, replay = WAL.open(
        place.files, place.wal_path, mark, segment_bytes=place.segment_bytes, log=place.log
    )
    try:
        try:
            own, number = decode_metadata(replay.metadata)
        except ValueError as error:
            raise WALDamagedError(f"wal: metadata: {error}: in '{place.wal_path}'") from None
        boot = Boot(
            hard_state=replay.state,
            entries=replay.entries,
            snapshot=SnapshotMeta(mark.conf_state, mark.index, mark.term),
            consistent_index=consistent_index,
        )
        cluster = RaftCluster(
            ClusterID(number), MemberID(own), backend, place.log, place.learners_max
        )
        cluster.load()
        boot.conf_state = _configuration(place, cluster, mark, boot)
    except BaseException:
        wal.close()
        raise
    return Opened(own, number, wal, backend, cluster, boot, fresh=False)


def _configuration(place: Place, cluster: RaftCluster, mark: SnapshotMark, boot: Boot) -> ConfState:
    """The configuration at the consistent index; completes the members there (see
    `server.membership.recovery`)."""
    backend = place.backend
    stored = backend.get(META, META_CONF_STATE)
    if stored is not None and recovery.is_vouched(backend):
        return decode_conf_state(stored)
    start, tree = SnapshotMeta(mark.conf_state, mark.index, mark.term), b""
    if mark.index:
        snapshot = _snapshot(place, mark)
        if snapshot is not None:
            tree = snapshot.data
        if mark.conf_state is None:  # a mark of 3.4 or older
            if snapshot is not None:
                start = snapshot.meta
            elif stored is not None:
                start.conf_state = decode_conf_state(stored)
            else:
                start.conf_state = ConfState(*cluster.conf_ids())
    state = recovery.recover(cluster, start, tree, boot.entries, boot.consistent_index, place.log)
    recovery.vouch(backend, state)
    return state


def _snapshot(place: Place, mark: SnapshotMark) -> Snapshot | None:
    """The file of a mark; None when it cannot be read."""
    try:
        return SnapDir(place.files, place.snap_path).load(snap_name(mark.term, mark.index))
    except (SnapError, OSError) as error:
        place.log.warn("the file of the newest snapshot cannot be read", error=str(error))
        return None
