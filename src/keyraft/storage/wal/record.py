"""The write-ahead log's format: what is on the disk, and the errors of reading it.

A log is a directory of segments `{sequence:016x}-{index:016x}.wal`; `index` is that of the first
entry that may follow. A segment is a run of frames, each aligned to 8 bytes, so that a frame's
length never straddles a sector:

    offset  size  meaning
    0       8     little-endian: low 56 bits n, the record's length; top byte 0, or 0x80 | pad
    8       n     walpb.Record (proto2): type 1 int64, crc 2 uint32, data 3 bytes
    8+n     pad   zeros up to the next multiple of 8 (pad 1..7)

A length of zero, or the end of the file, ends the segment. Record types and their data:

    1 metadata   etcdserverpb.Metadata{NodeID 1, ClusterID 2}; the same in every segment
    2 entry      raftpb.Entry; an index seen before takes back what came after it
    3 state      raftpb.HardState
    4 crc        none; its crc is the running value at the end of the segment before (0: first)
    5 snapshot   walpb.Snapshot{index 1, term 2, conf_state 3}

A record's crc is the Castagnoli CRC-32 over the data of all records so far, its own included.

    segment 0:      crc(0) metadata snapshot(0,0) ...
    segment n > 0:  crc(previous) metadata [state] ...

Segments are reserved 64,000,000 bytes ahead, zero-filled; a batch is written whole into the
segment in which it begins, and the segment is closed (truncated to its end) when it has reached
that size. Source: etcd `server/storage/wal`; bytes checked against etcd 3.5.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from keyraft.base.protofields import fields
from keyraft.raft import codec
from keyraft.raft.types import ConfState

SEGMENT_BYTES: Final = 64_000_000  # a segment is cut once a batch ends at or behind this offset

METADATA: Final = 1
ENTRY: Final = 2
STATE: Final = 3
CRC: Final = 4
SNAPSHOT: Final = 5

FRAME_BYTES: Final = 8
LENGTH_MASK: Final = (1 << 56) - 1
RECORD_BYTES_MAX: Final = (
    512 << 20
) + 4096  # an entry goes to members in one message (peer.frames)
frame_length: Final = Struct("<Q")


class WALError(Exception):
    """The log cannot be used; the text says which file and why."""


class WALNotFoundError(WALError):
    """There is no log, or it begins behind the wanted index."""


class WALLockedError(WALError):
    """Another process has the log open."""


class WALDamagedError(WALError):
    """Bytes that no crash can leave: the log was altered, or the disk is faulty."""


class WALTornError(WALError):
    """A crash cut the last batch short; everything before `offset` is complete."""

    def __init__(self, text: str, offset: int) -> None:
        super().__init__(text)
        self.offset = offset


class WALRefusedError(WALError):
    """The log could not be read again after this write, so nothing of it was written."""

    def __init__(self, why: str) -> None:
        super().__init__(f"wal: refused to write {why}")


class WALWriteError(WALError):
    """A write or a sync failed: nothing since the last sync may be acknowledged, ever."""


class WALFullError(WALError):
    """There is no room: the first `written` batches are on the disk; the others may come again."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.written = 0


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """A snapshot's place in the log: its index, term and the configuration there."""

    index: int = 0
    term: int = 0
    conf_state: ConfState | None = None  # required when index > 0 (etcd 3.5 and later)


def encode_snapshot_mark(mark: SnapshotMark) -> bytes:
    """walpb.Snapshot with its numbers in full."""
    varint = codec.encode_varint
    head = b"\x08" + varint(mark.index) + b"\x10" + varint(mark.term)
    if mark.conf_state is None:
        return head
    conf_state = codec.encode_conf_state(mark.conf_state)
    return head + b"\x1a" + varint(len(conf_state)) + conf_state


def decode_snapshot_mark(data: bytes) -> SnapshotMark:
    """Raises ValueError when the bytes are no walpb.Snapshot."""
    index = term = 0
    conf_state: ConfState | None = None
    for number, value in fields(data):
        if number == 1 and isinstance(value, int):
            index = value
        elif number == 2 and isinstance(value, int):
            term = value
        elif number == 3 and isinstance(value, bytes):
            conf_state = codec.decode_conf_state(value)
    return SnapshotMark(index, term, conf_state)


def encode_metadata(member_id: int, cluster_id: int) -> bytes:
    """etcdserverpb.Metadata with its numbers in full."""
    return b"\x08" + codec.encode_varint(member_id) + b"\x10" + codec.encode_varint(cluster_id)


def decode_metadata(data: bytes) -> tuple[int, int]:
    """The member's and the cluster's id; raises ValueError when the bytes are something else."""
    member_id = cluster_id = 0
    for number, value in fields(data):
        if number == 1 and isinstance(value, int):
            member_id = value
        elif number == 2 and isinstance(value, int):
            cluster_id = value
    return member_id, cluster_id


def decode_record(data: bytes) -> tuple[int, int, bytes]:
    """Type, crc and data of a walpb.Record; raises ValueError when the bytes are something else."""
    kind = crc = 0
    content = b""
    for number, value in fields(data):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2 and isinstance(value, int):
            crc = value & 0xFFFFFFFF
        elif number == 3 and isinstance(value, bytes):
            content = value
        elif number <= 3:
            raise ValueError(f"field {number} of a record has another wire type")
    return kind, crc, content
