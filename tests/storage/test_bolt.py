"""bbolt's file format: read as etcd wrote it, written so that it reads back, hostile bytes."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.storage.bolt import (
    BoltError,
    BoltFile,
    Leaf,
    Update,
    check,
    free_pages,
    measure,
    write_file,
    write_stream,
)
from keyraft.storage.bolt.format import Meta, decode_meta, fnv1a64
from keyraft.storage.bolt.writer import front_pages
from tests.support.examples import examples

GOLDEN = Path(__file__).parent / "data" / "etcd-3.5.1.snapshot.db"
ETCD_BUCKETS = [
    b"alarm",
    b"auth",
    b"authRoles",
    b"authUsers",
    b"cluster",
    b"key",
    b"lease",
    b"members",
    b"members_removed",
    b"meta",
]
Model = dict[bytes, dict[bytes, bytes]]


def as_input(model: Model) -> list[tuple[bytes, Iterable[tuple[bytes, bytes]]]]:
    return [(name, sorted(items.items())) for name, items in sorted(model.items())]


def written(path: Path, model: Model, page_bytes: int = 4096) -> Path:
    with path.open("wb") as file:
        write_file(file, as_input(model), page_bytes)
    return path


def read(path: Path) -> Model:
    with BoltFile(path) as db:
        return {name: dict(bucket.items()) for name, bucket in db.buckets()}


# --- what etcd wrote -------------------------------------------------------------------------


def test_a_snapshot_of_etcd_is_read() -> None:
    with BoltFile(GOLDEN) as db:
        assert [name for name, _ in db.buckets()] == ETCD_BUCKETS
        assert db.meta.page_bytes == 4096
        assert db.size_bytes == db.file_bytes - 32
        assert check(db) == []
        assert free_pages(db) == []
        keys = db.bucket(b"key")
        assert keys is not None
        items = list(keys.items())
        assert len(items) == 13
        assert items[0][0] == b"\0\0\0\0\0\0\0\2_\0\0\0\0\0\0\0\0"
        assert items[0][1].startswith(b"\x0a\x02k1\x10\x02\x18\x02\x20\x01\x2a\x02v1")
        assert items[-1] == (b"\0\0\0\0\0\0\0\x0e_\0\0\0\0\0\0\0\0t", b"\x0a\x02k2")
        assert keys.last() == items[-1]
        assert keys.get(items[5][0]) == items[5][1]
        assert keys.get(b"nothing") is None
        assert list(keys.items(items[5][0])) == items[5:]
        assert db.bucket(b"nothing") is None
        cluster = db.bucket(b"cluster")
        assert cluster is not None and cluster.get(b"clusterVersion") == b"3.5.0"
        members = db.bucket(b"members_removed")
        assert members is not None and members.last() is None


def test_what_etcd_wrote_is_copied_without_loss(tmp_path: Path) -> None:
    model = read(GOLDEN)
    assert read(written(tmp_path / "db", model)) == model


# --- the format ------------------------------------------------------------------------------


def test_golden_meta() -> None:
    meta = Meta(4096, 3, 0, 2, 4, 2)
    assert meta.encode().hex() == (
        "edda0ced"
        + "02000000"
        + "00100000"
        + "00000000"
        + "0300000000000000"
        + "0000000000000000"
        + "0200000000000000"
        + "0400000000000000"
        + "0200000000000000"
        + fnv1a64(meta.encode()[:56]).to_bytes(8, "little").hex()
    )
    assert decode_meta(meta.encode()) == meta


def test_checksum_is_that_of_etcd() -> None:
    content = GOLDEN.read_bytes()
    for start in (16, 4096 + 16):
        meta = content[start : start + 64]
        assert fnv1a64(meta[:56]).to_bytes(8, "little") == meta[56:]
        assert decode_meta(meta).encode() == meta


def test_a_small_database_has_these_bytes(tmp_path: Path) -> None:
    """Every byte that is not zero of a database of two small buckets."""
    path = written(tmp_path / "db", {b"a": {}, b"b": {b"k": b"v"}})
    content = path.read_bytes()
    assert len(content) == 4 * 4096
    assert (
        content[2 * 4096 : 2 * 4096 + 16].hex() == "0200000000000000" + "1000" + "0000" + "00" * 4
    )
    root = content[3 * 4096 :]
    assert root[:16].hex() == "0300000000000000" + "0200" + "0200" + "00000000"
    assert root[16:32].hex() == "01000000" + "20000000" + "01000000" + "20000000"
    assert root[32:48].hex() == "01000000" + "31000000" + "01000000" + "32000000"
    inline_a = bytes(16) + bytes(8) + bytes.fromhex("0200" + "0000") + bytes(4)
    inline_b = (
        bytes(16)
        + bytes(8)
        + bytes.fromhex("0200" + "0100")
        + bytes(4)
        + bytes.fromhex("00000000" + "10000000" + "01000000" + "01000000")
        + b"kv"
    )
    assert root[48:].rstrip(b"\0") == (b"a" + inline_a + b"b" + inline_b)
    assert not any(root[48 + 33 + 51 :])


# --- writing and reading back ----------------------------------------------------------------

values = st.one_of(st.binary(max_size=60), st.integers(0, 20_000).map(lambda size: b"v" * size))
models = st.dictionaries(
    st.binary(min_size=1, max_size=12),
    st.dictionaries(st.binary(min_size=1, max_size=40), values, max_size=60),
    max_size=6,
)


@examples(40)
@given(model=models, page_bytes=st.sampled_from([1024, 4096, 16384]))
def test_what_was_written_is_read_back_and_sound(
    tmp_path_factory: pytest.TempPathFactory, model: Model, page_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("bolt")
    path = written(directory / "db", model, page_bytes)
    assert read(path) == model
    with BoltFile(path) as db:
        assert check(db) == []
        assert db.size_bytes == db.file_bytes
        for name, items in model.items():
            bucket = db.bucket(name)
            assert bucket is not None
            assert [key for key, _ in bucket.items()] == sorted(items)
            assert bucket.last() == (max(items.items()) if items else None)
            for key in list(items)[:5]:
                assert bucket.get(key) == items[key]
                assert [found for found, _ in bucket.items(key)] == sorted(
                    each for each in items if each >= key
                )
    pieces: list[bytes] = []
    meta = measure(as_input(model), page_bytes)
    write_stream(pieces.append, as_input(model), meta)
    assert b"".join(pieces) == path.read_bytes()
    assert meta.pages * page_bytes == path.stat().st_size
    shutil.rmtree(directory)


def test_a_deep_tree(tmp_path: Path) -> None:
    model = {b"key": {b"%017d" % number: b"x" * 30 for number in range(20_000)}, b"z": {}}
    path = written(tmp_path / "db", model, 1024)
    with BoltFile(path) as db:
        bucket = db.bucket(b"key")
        assert bucket is not None
        depth = 0
        page = bucket.root_page()
        while page.flags == 1:
            page = db.page(page.branch_elements()[0][1])
            depth += 1
        assert depth >= 3
        assert check(db) == []
    assert read(path) == model


def dumb_leaves(sizes: list[int], fill: int) -> list[int]:
    """How many rows each leaf has when they are put in one by one."""
    leaves, room = [0], fill - 16
    for size in sizes:
        if leaves[-1] and size + 16 > room:
            leaves.append(0)
            room = fill - 16
        leaves[-1] += 1
        room -= size + 16
    return leaves


@examples(40)
@given(seed=st.randoms(use_true_random=False), count=st.integers(130, 400))
def test_leaves_are_filled_in_turn_wherever_rows_are_taken_up(
    tmp_path_factory: pytest.TempPathFactory, seed: Random, count: int
) -> None:
    directory = tmp_path_factory.mktemp("bolt")
    rows = [
        (b"%05d" % number, b"x" * seed.choice((0, 1, 300, 900, 3600, 3700, 9000)))
        for number in range(count)
    ]
    path = written(directory / "db", {b"key": dict(rows)})
    with BoltFile(path) as db:
        bucket = db.bucket(b"key")
        assert bucket is not None
        found = [len(keys) for _, keys, _ in bucket.leaves()]
        assert check(db) == []
    assert found == dumb_leaves([5 + len(value) for _, value in rows], 4096 * 90 // 100)
    shutil.rmtree(directory)


def test_order_is_watched_beyond_what_is_taken_up_at_once() -> None:
    for length in range(60, 70):
        keys = [b"%05d" % number for number in range(length)]
        for wrong in (keys[-1], keys[0]):
            with pytest.raises(BoltError, match=f"key {wrong.hex()} follows {keys[-1].hex()}"):
                write_file(io.BytesIO(), [(b"key", [(key, b"v" * 400) for key in [*keys, wrong]])])


class Seen:
    """A visitor that notes everything."""

    def __init__(self) -> None:
        self.model: Model = {}
        self.joined = b""

    def bucket(self, name: bytes, depth: int) -> None:
        self.rows = self.model.setdefault(name, {}) if depth else {}

    def leaf(self, leaf: Leaf) -> None:
        self.rows |= dict(zip(leaf.keys, leaf.values()))
        self.joined += leaf.joined()


def test_who_visits_sees_every_row_once_and_in_order(tmp_path: Path) -> None:
    model = {
        b"a": {b"%04d" % number: b"v" * (number % 300) for number in range(1_000)},
        b"b": {},
        b"c": {b"k": b"v"},
    }
    with BoltFile(written(tmp_path / "db", model)) as db:
        seen = Seen()
        assert check(db, seen) == []
        assert seen.model == model
        rows = b"".join(key + row for items in model.values() for key, row in items.items())
        assert seen.joined.endswith(rows)


def test_unsorted_input_is_refused() -> None:
    for keys in ([b"b", b"a"], [b"a", b"a"]):
        with pytest.raises(BoltError, match="follows"):
            write_file(io.BytesIO(), [(b"key", [(key, b"") for key in keys])])
    with pytest.raises(BoltError, match="follows"):
        write_file(io.BytesIO(), [(b"z", []), (b"a", [])])


def test_a_stream_whose_input_changed_is_refused_before_its_end() -> None:
    meta = measure([(b"key", [(b"a", b"1" * 5000)])])
    pieces: list[bytes] = []
    with pytest.raises(BoltError, match="changed while it was written"):
        write_stream(pieces.append, [(b"key", [(b"a", b"1" * 9000)])], meta)
    assert sum(map(len, pieces)) < meta.pages * 4096


# --- one transaction on a file ---------------------------------------------------------------


@examples(40)
@given(model=models, changes=models, cleared=st.booleans(), row=values)
def test_an_update_changes_what_it_says_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    model: Model,
    changes: Model,
    cleared: bool,
    row: bytes,
) -> None:
    directory = tmp_path_factory.mktemp("bolt")
    model[b"key"] = {b"%04d" % number: b"x" * 100 for number in range(300)}
    path = written(directory / "db", model, 1024)
    with path.open("ab") as file:
        file.write(b"t" * 32)
    update = Update()
    for name, items in changes.items():
        if cleared:
            update.clear(name)
            model[name] = {}
        update.change(name, {**items, b"\0gone": None})
        model.setdefault(name, {}).update(items)
    update.append(b"key", b"zzzz", row)
    model[b"key"][b"zzzz"] = row
    try:
        meta = update.commit(str(path))
    except BoltError as error:
        assert "follows" in str(error) and max(model[b"key"]) > b"zzzz"
    else:
        assert read(path) == model
        with BoltFile(path) as db:
            assert check(db) == []
            assert (db.meta, db.meta.txid) == (meta, 3)
            assert db.size_bytes == db.file_bytes
    shutil.rmtree(directory)


def test_an_update_that_did_not_reach_its_meta_page_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "db", {b"a": {b"k": b"1"}})
    update = Update()
    update.change(b"a", {b"k": b"2"})
    syncs: list[int] = []

    def sync(fd: int) -> None:
        syncs.append(fd)
        if len(syncs) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="No space left"):
        update.commit(str(path))
    assert read(path) == {b"a": {b"k": b"1"}}
    update.commit(str(path))
    assert read(path) == {b"a": {b"k": b"2"}}


# --- damage ----------------------------------------------------------------------------------


def consume(path: Path) -> list[str]:
    """Everything that a tool does with a file; its check's messages."""
    with BoltFile(path) as db:
        messages = check(db)
        for _, bucket in db.buckets():
            for _ in bucket.items():
                pass
            bucket.last()
            bucket.get(b"k")
        return messages


def test_the_newer_sound_meta_page_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "db", {b"key": {b"a": b"1"}})
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with BoltFile(path) as db:
        assert db.meta.txid == 1
    assert read(path) == {b"key": {b"a": b"1"}}
    content[4096 + 16 + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(BoltError, match=r"version mismatch|checksum error|invalid database"):
        BoltFile(path)


@pytest.mark.parametrize("size", [0, 1, 32, 2047, 4096, 8192, 12288])
def test_a_cut_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "db"
    path.write_bytes(GOLDEN.read_bytes()[:size])
    with pytest.raises(BoltError):
        BoltFile(path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    for content in (b"hello" * 4000, bytes(20_000), bytes(range(256)) * 100):
        path.write_bytes(content)
        with pytest.raises(BoltError, match="invalid database"):
            BoltFile(path)


def test_checks_find_what_bbolt_finds(tmp_path: Path) -> None:
    model = {b"key": {b"%05d" % number: b"x" * 100 for number in range(200)}}
    path = written(tmp_path / "db", model, 1024)
    content = path.read_bytes()
    with BoltFile(path) as db:
        bucket = db.bucket(b"key")
        assert bucket is not None
        children = bucket.root_page().branch_elements()
        root = bucket.root

    def damaged(offset: int, replacement: bytes) -> list[str]:
        changed = bytearray(content)
        changed[offset : offset + len(replacement)] = replacement
        path.write_bytes(changed)
        with BoltFile(path) as db:
            return check(db)

    first = children[0][1] * 1024
    second = root * 1024 + 16 + 16 + 8
    assert any("invalid type: freelist" in text for text in damaged(first + 8, b"\x10\0"))
    assert any("needs to be >" in text for text in damaged(first + 16 + 16 * 7, b"9"))
    assert any("multiple references" in text for text in damaged(second, bytes([children[0][1]])))
    assert any("unreachable unfreed" in text for text in damaged(second, bytes([children[0][1]])))
    assert any("out of bounds" in text for text in damaged(second, b"\xff\xff"))


@examples(150)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 20_511), st.integers(0, 255)), min_size=1, max_size=12
    ),
    cut=st.one_of(st.none(), st.integers(0, 20_512)),
    fix=st.booleans(),
)
def test_hostile_bytes_give_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, int]],
    cut: int | None,
    fix: bool,
) -> None:
    content = bytearray(GOLDEN.read_bytes())
    for position, value in changes:
        content[position] = value
    if fix:  # a checksum that is right all the same
        for start in (16, 4096 + 16):
            content[start + 56 : start + 64] = fnv1a64(content[start : start + 56]).to_bytes(
                8, "little"
            )
    directory = tmp_path_factory.mktemp("bolt")
    path = directory / "db"
    path.write_bytes(content[:cut])
    try:
        consume(path)
    except BoltError:
        pass
    shutil.rmtree(directory)


def test_a_cycle_ends(tmp_path: Path) -> None:
    model = {b"key": {b"%05d" % number: b"x" * 100 for number in range(2000)}}
    path = written(tmp_path / "db", model, 1024)
    with BoltFile(path) as db:
        bucket = db.bucket(b"key")
        assert bucket is not None
        root = bucket.root
    content = bytearray(path.read_bytes())
    element = root * 1024 + 16
    content[element + 8 : element + 16] = root.to_bytes(8, "little")
    path.write_bytes(content)
    with BoltFile(path) as db:
        assert any("multiple references" in text for text in check(db))
        bucket = db.bucket(b"key")
        assert bucket is not None
        with pytest.raises(BoltError, match="does not end"):
            list(bucket.items())


def test_front_pages_are_three() -> None:
    assert len(front_pages(Meta(4096, 3, 0, 2, 4, 2))) == 3 * 4096
