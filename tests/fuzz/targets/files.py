"""Files that others may have written: log segments, snapshots, bbolt databases, rows."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from random import Random

from keyraft.base.crc import crc32c
from keyraft.base.varints import CodecError
from keyraft.cluster.member import MembershipDataError, decode_context, decode_member
from keyraft.mvcc import MemoryBackend, Store
from keyraft.mvcc.backend import KEY, BackendError
from keyraft.proto import mvcc_pb2
from keyraft.raft import codec
from keyraft.raft.types import ConfState, Entry, HardState, Snapshot, SnapshotMeta
from keyraft.server.apply import internal_request, v2_requests
from keyraft.server.apply.internal_request import MalformedEntryError
from keyraft.server.membership import v2_tree
from keyraft.storage.bolt import BoltError, BoltFile, check, write_file
from keyraft.storage.bolt.format import HEADER_BYTES, fnv1a64, meta_struct
from keyraft.storage.files import SECTOR_BYTES
from keyraft.storage.snap import SnapError, decode_snap, encode_snap
from keyraft.storage.wal import log as wal_log
from keyraft.storage.wal.encode import WALEncoder
from keyraft.storage.wal.record import (
    SnapshotMark,
    WALError,
    WALTornError,
    encode_metadata,
    encode_snapshot_mark,
)

from ..target import Choices, Target

SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None


class MemoryFile:
    """A file that is only read."""

    def __init__(self, content: bytes, path: str = "0000000000000000-0000000000000000.wal") -> None:
        self.content = content
        self.path = path

    def size(self) -> int:
        return len(self.content)

    def pread(self, size: int, offset: int) -> bytes:
        return self.content[offset : offset + size]


# --- the log --------------------------------------------------------------------------------


def _entries(count: int, size: int = 5) -> list[Entry]:
    return [Entry(1, index, b"v" * size) for index in range(1, count + 1)]


def _segment(entries: list[Entry], state: HardState | None = None) -> bytes:
    encoder = WALEncoder(encode_metadata(7, 9))
    head = encoder.head() + encoder.snapshot(SnapshotMark()).data
    if entries:
        batch = encoder.entries(entries, state, True)
        assert batch is not None, entries
        head += batch.data
    return head


def read_log(data: bytes) -> None:
    """One segment or, behind a mark, several. What is repaired can be read."""
    pieces = data.split(b"--segment--")
    files = [MemoryFile(piece) for piece in pieces[:4]]
    try:
        wal_log.read(files, SnapshotMark())  # type: ignore[arg-type]
    except WALTornError as torn:
        files[-1].content = files[-1].content[: torn.offset]
        try:
            wal_log.read(files, SnapshotMark())  # type: ignore[arg-type]
        except WALTornError as error:
            raise AssertionError("torn after its repair") from error
        except WALError:
            pass
    except WALError:
        pass


def read_records(data: bytes) -> None:
    """Records with right checksums and any content."""
    choices = Choices(data)
    out = bytearray()
    crc = 0
    out += _framed(b"\x08\x04\x10" + codec.encode_varint(0))
    while not choices.over:
        kind = choices.randrange(1, 8)
        content = _content(choices, kind)
        crc = crc32c(content, crc)
        record = b"\x08" + codec.encode_varint(kind) + b"\x10" + codec.encode_varint(crc)
        record += b"\x1a" + codec.encode_varint(len(content)) + content
        out += _framed(record)
    read_log(bytes(out) + bytes(SECTOR_BYTES))


def _content(choices: Choices, kind: int) -> bytes:
    if kind == 1 and choices.random() < 0.9:
        return encode_metadata(7, 9)
    if kind == 2 and choices.random() < 0.8:
        number = choices.randrange(1, 9)
        return codec.encode_entry(Entry(choices.randrange(4), number, b"x", choices.randrange(3)))
    if kind == 3 and choices.random() < 0.8:
        return codec.encode_hard_state(HardState(choices.randrange(4), 1, choices.randrange(9)))
    if kind == 5 and choices.random() < 0.8:
        mark = SnapshotMark(choices.randrange(3), choices.randrange(3), ConfState(voters=[1]))
        return encode_snapshot_mark(mark)
    return choices.take(choices.randrange(30))


def _framed(record: bytes) -> bytes:
    pad = -len(record) % 8
    length = len(record) | ((0x80 | pad) << 56 if pad else 0)
    return struct.pack("<Q", length) + record + bytes(pad)


# --- snapshots and what Raft writes -----------------------------------------------------------


def read_snap(data: bytes) -> None:
    """A snapshot file as it is, and the same content with a right checksum."""
    for content in (
        data,
        b"\x08"
        + codec.encode_varint(crc32c(data))
        + b"\x12"
        + codec.encode_varint(len(data))
        + data,
    ):
        try:
            snapshot = decode_snap(content, "x.snap")
        except SnapError:
            continue
        v2_tree_of(snapshot.data)


def v2_tree_of(data: bytes) -> None:
    """The members in a snapshot's tree."""
    try:
        v2_tree.decode(data)
    except ValueError:
        pass


def read_rows(data: bytes) -> None:
    """A database whose key rows are anybody's."""
    choices = Choices(data)
    backend = MemoryBackend()
    main = 1
    while not choices.over:
        main += choices.randrange(3)
        key = struct.pack(">QcQ", main, b"_", choices.randrange(3))
        if choices.random() < 0.1:
            key += choices.take(choices.randrange(3))
        if choices.random() < 0.5:
            value = mvcc_pb2.KeyValue(
                key=choices.take(choices.randrange(3)),
                mod_revision=choices.choice((main, 0, -1)),
                create_revision=choices.choice((main, 1, 1 << 62)),
                version=choices.choice((1, 0, -5)),
                lease=choices.choice((0, 1, -1)),
            ).SerializeToString()
        else:
            value = choices.take(choices.randrange(20))
        backend.put(KEY, key, value)
    try:
        Store(backend, None)
    except BackendError:
        pass


def read_members(data: bytes) -> None:
    """A member's row, and the context of a change of membership."""
    for decode in (decode_member, decode_context):
        try:
            decode(data)
        except MembershipDataError:
            pass


def read_entry_data(data: bytes) -> None:
    """What an entry of the log says is to be done; the short way reads it as the long one does."""
    if not data:
        return  # an entry without data has no effect, and is never taken apart
    parts = internal_request.split(data)
    if parts is not None:
        part = internal_request.proposer_part(parts[2])
        assert part is None or parts[2].endswith(part)
    try:
        parsed = internal_request.parse(data)
    except MalformedEntryError:
        pass
    else:
        if parts is not None and parts[0] in internal_request.KINDS:
            assert (parsed.kind, parsed.request, parsed.stamp) == parts, (parsed.kind, parts)
    try:
        v2 = internal_request.is_v2(data)
        v2_requests.translate(data if v2 is None else v2)
    except (MalformedEntryError, ValueError):
        pass


# --- bbolt ------------------------------------------------------------------------------------


def _bolt(model: dict[bytes, dict[bytes, bytes]], page_bytes: int = 1024) -> bytes:
    with tempfile.TemporaryFile(dir=SHM) as file:
        write_file(
            file, [(name, sorted(rows.items())) for name, rows in sorted(model.items())], page_bytes
        )
        file.seek(0)
        return file.read()


def read_bolt(data: bytes) -> None:
    """Whatever is in the pages; the checksums of the meta pages are made right first."""
    content = bytearray(data)
    for start in (0, 1024):
        at = start + HEADER_BYTES
        if len(content) >= at + meta_struct.size + 8:
            body = bytes(content[at : at + meta_struct.size])
            content[at + meta_struct.size : at + meta_struct.size + 8] = struct.pack(
                "<Q", fnv1a64(body)
            )
    with tempfile.NamedTemporaryFile(dir=SHM) as file:
        file.write(content)
        file.flush()
        try:
            db = BoltFile(file.name)
        except BoltError:
            return
        with db:
            for use in (check, _walk, _seek):
                try:
                    use(db)
                except BoltError:
                    pass


def _walk(db: BoltFile) -> None:
    rows = 0
    for _, bucket in db.buckets():
        for keys, _values in bucket.columns():
            rows += len(keys)
        bucket.last()


def _seek(db: BoltFile) -> None:
    for name in (b"key", b"meta", b"a"):
        bucket = db.bucket(name)
        if bucket is not None:
            bucket.get(b"k5")
            for _ in bucket.items(b"k3"):
                break


_ROWS = {b"k%d" % n: b"v" * 30 for n in range(40)}


def _bolt_seeds() -> Iterator[bytes]:
    yield _bolt({b"key": {b"k1": b"v"}, b"meta": {}})
    yield _bolt({b"key": _ROWS, b"meta": {b"consistent_index": bytes(8)}})
    yield _bolt({b"key": {b"k1": b"v" * 3000}, b"meta": {b"x": b"y"}})


# --- Raft's own messages in files and entries ---------------------------------------------------

_CODECS: tuple[tuple[Callable[[bytes], object], Callable[..., bytes]], ...] = (
    (codec.decode_entry, codec.encode_entry),
    (codec.decode_hard_state, codec.encode_hard_state),
    (codec.decode_conf_state, codec.encode_conf_state),
    (codec.decode_snapshot, codec.encode_snapshot),
    (codec.decode_snapshot_meta, codec.encode_snapshot_meta),
    (codec.decode_message, codec.encode_message),
    (codec.decode_conf_change, codec.encode_conf_change),
    (codec.decode_conf_change_v2, codec.encode_conf_change_v2),
)


def read_raft(data: bytes) -> None:
    """Each of Raft's messages: what was decoded is encoded and decoded to the same."""
    for decode, encode in _CODECS:
        try:
            value = decode(data)
        except CodecError:
            continue
        again = decode(encode(value))
        assert again == value, (decode, value, again)


def raft_seeds() -> Iterator[bytes]:
    """One of each."""
    from keyraft.raft.types import ConfChange, ConfChangeSingle, ConfChangeV2, Message

    state = ConfState(voters=[1, 2], learners=[3])
    entries = [Entry(3, 8, b"data"), Entry(3, 9, b"", 1)]
    yield codec.encode_entry(entries[0])
    yield codec.encode_hard_state(HardState(3, 1, 7))
    yield codec.encode_conf_state(state)
    yield codec.encode_snapshot(Snapshot(b"tree", SnapshotMeta(state, 9, 3)))
    yield codec.encode_message(
        Message(3, to=1, from_=2, term=3, log_term=3, index=7, entries=entries, commit=6)
    )
    yield codec.encode_message(
        Message(7, to=1, from_=2, term=3, snapshot=Snapshot(b"t", SnapshotMeta(state, 9, 3)))
    )
    yield codec.encode_conf_change(ConfChange(0, 7, b"{}", 5))
    yield codec.encode_conf_change_v2(ConfChangeV2(changes=[ConfChangeSingle(0, 7)], context=b"c"))


_TREE = (
    b'{"Root":{"Path":"/","CreatedIndex":0,"ModifiedIndex":0,"ExpireTime":"0001-01-01T00:00:00Z",'
    b'"Value":"","Children":{"0":{"Path":"/0","Children":{"members":{"Path":"/0/members",'
    b'"Children":{"8e9e05c52164694d":{"Path":"/0/members/8e9e05c52164694d","Children":{'
    b'"raftAttributes":{"Path":"/0/members/8e9e05c52164694d/raftAttributes","Value":'
    b'"{\\"peerURLs\\":[\\"http://a:1\\"]}","Children":null}}}}}}}}},"WatcherHub":{}}'
)
_SNAPSHOT = Snapshot(_TREE, SnapshotMeta(ConfState(voters=[1]), 9, 3))


def _random_program(seed: int, size: int = 400) -> bytes:
    return Random(seed).randbytes(size)


ALL = (
    Target(
        "wal",
        read_log,
        lambda: [
            _segment([]),
            _segment(_entries(3), HardState(1, 1, 2)),
            _segment(_entries(6), HardState(1, 1, 2)) + bytes(1024),
            _segment(_entries(3)) + b"--segment--" + _segment([]),
        ],
        (b"--segment--", b"\x08\x04\x10\x00", b"\0\0\0\0\0\1\0\0", bytes(8)),
        held_bytes=8 << 20,  # what is read at once, and copies of it
        grown={
            "entries": lambda n: _segment(_entries(n)),
            "one large entry": lambda n: _segment(_entries(1, 100 * n)),
        },
    ),
    Target(
        "wal_records",
        read_records,
        lambda: [_random_program(seed) for seed in range(4)],
        held_bytes=8 << 20,
    ),
    Target("snap", read_snap, lambda: [encode_snap(_SNAPSHOT), codec.encode_snapshot(_SNAPSHOT)]),
    Target(
        "v2_tree",
        v2_tree_of,
        lambda: [_TREE],
        (b'"Children":', b'"Path":', b"\\ud800", b"1e999", b"[[[[[[[[", b'{"a":'),
        grown={"deep": lambda n: b'{"Root":{"Children":' + b'{"a":{"Children":' * n},
    ),
    Target("rows", read_rows, lambda: [_random_program(seed, 120) for seed in range(4)]),
    Target(
        "members",
        read_members,
        lambda: [
            b'{"id":7,"peerURLs":["http://a:1"],"name":"m","clientURLs":["http://a:2"]}',
            b'{"id":7,"peerURLs":["http://a:1"],"isLearner":true,"isPromote":true}',
        ],
        (b'"peerURLs":', b"\\ud800", b"1e999", b"[[[[[[[[", b'"id":', b"18446744073709551616"),
    ),
    Target(
        "entry_data",
        read_entry_data,
        lambda: [
            internal_request.wrap(3, b"\x0a\x01k\x12\x01v", b"\xa2\x06\x02\x08\x07"),
            b"\x08\x07\x12\x03PUT\x1a\x10/0/members/7/attr\x22\x02{}",
        ],
    ),
    Target(
        "bolt",
        read_bolt,
        _bolt_seeds,
        bytes_max=12_000,
        held_bytes=4 << 20,
        grown={"rows": lambda n: _bolt({b"key": {b"%06d" % k: b"v" for k in range(n)}})},
    ),
    Target("raft_codec", read_raft, raft_seeds),
)
