"""Databases in and out: nothing lost, nothing half-made, the member's loop never held."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from pathlib import Path

import lmdb
import pytest

from keyraft.base.log import NullLogger
from keyraft.mvcc.backend import BUCKETS, META, META_CONSISTENT_INDEX
from keyraft.storage.bolt import BoltFile, Update, check, write_file
from keyraft.storage.transfer import (
    SnapshotExport,
    TransferError,
    export_file,
    has_lmdb,
    import_bolt,
    install,
    prepare,
    prepare_in_child,
    recover,
    replace,
    take_over,
)

GOLDEN = Path(__file__).parent / "data" / "etcd-3.5.1.snapshot.db"
READ_BYTES = 32_768
Model = dict[bytes, dict[bytes, bytes]]


def read_bolt(path: Path) -> Model:
    with BoltFile(path) as db:
        assert check(db) == []
        return {name: dict(bucket.items()) for name, bucket in db.buckets()}


def read_lmdb(path: Path) -> Model:
    env = lmdb.open(str(path), max_dbs=16, readonly=True, map_size=1 << 28)
    with env.begin() as txn:
        model = {
            name: dict(txn.cursor(db=env.open_db(name, txn=txn, create=False))) for name in BUCKETS
        }
    env.close()
    return model


def big_bolt(path: Path, keys: int = 30_000) -> Path:
    model = read_bolt(GOLDEN)
    model[b"key"] |= {
        (100 + number).to_bytes(8, "big") + b"_" + bytes(8): b"value" * (number % 50)
        for number in range(keys)
    }
    with path.open("wb") as file:
        write_file(file, [(name, sorted(items.items())) for name, items in sorted(model.items())])
    return path


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_import_brings_everything_over(tmp_path: Path) -> None:
    source = big_bolt(tmp_path / "db")
    result = import_bolt(str(source), str(tmp_path / "kv"))
    model = read_bolt(source)
    assert read_lmdb(tmp_path / "kv") == model
    assert result.keys == sum(map(len, model.values()))
    assert result.consistent_index == 18
    assert result.passed_over == ()
    assert (tmp_path / "kv").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "kv" / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_export_is_the_import_reversed(tmp_path: Path) -> None:
    source = big_bolt(tmp_path / "db")
    import_bolt(str(source), str(tmp_path / "kv"))
    with (tmp_path / "out").open("w+b") as file:
        size = export_file(str(tmp_path / "kv"), file)
    assert size == (tmp_path / "out").stat().st_size
    assert (tmp_path / "out").read_bytes() == source.read_bytes()


@pytest.mark.slow
def test_a_snapshot_comes_out_of_a_process_of_its_own(tmp_path: Path) -> None:
    source = big_bolt(tmp_path / "db")
    import_bolt(str(source), str(tmp_path / "kv"))

    async def take(digest: bool) -> tuple[int, list[bytes]]:
        export = await SnapshotExport.start(str(tmp_path / "kv"), digest)
        blobs: list[bytes] = []
        try:
            while blob := await export.read(READ_BYTES):
                blobs.append(blob)
            assert export.remaining_bytes == 0
            return export.size_bytes, blobs
        finally:
            await export.close()

    size, blobs = asyncio.run(take(True))
    content = source.read_bytes()
    assert size == len(content)
    assert b"".join(blobs[:-1]) == content
    assert blobs[-1] == hashlib.sha256(content).digest()
    assert {len(blob) for blob in blobs[:-2]} == {READ_BYTES}
    _, blobs = asyncio.run(take(False))
    assert b"".join(blobs) == content


@pytest.mark.slow
def test_an_export_may_be_given_up(tmp_path: Path) -> None:
    import_bolt(str(big_bolt(tmp_path / "db")), str(tmp_path / "kv"))

    async def give_up() -> int | None:
        export = await SnapshotExport.start(str(tmp_path / "kv"))
        await export.read(READ_BYTES)
        await export.close()
        return export._process.returncode

    assert asyncio.run(give_up()) is not None


def test_an_export_of_nothing_fails_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="there is no database in"):
        asyncio.run(SnapshotExport.start(str(tmp_path / "kv")))


@pytest.mark.slow
def test_writes_during_an_export_are_not_in_it(tmp_path: Path) -> None:
    import_bolt(str(big_bolt(tmp_path / "db")), str(tmp_path / "kv"))

    async def run() -> bytes:
        export = await SnapshotExport.start(str(tmp_path / "kv"))
        env = lmdb.open(str(tmp_path / "kv"), max_dbs=16, map_size=1 << 28)
        database = env.open_db(b"key")
        with env.begin(write=True) as txn:
            txn.put(b"\xff" * 17, b"new" * 100_000, db=database)
            txn.drop(database, delete=False)
        env.close()
        blobs = []
        while blob := await export.read(READ_BYTES):
            blobs.append(blob)
        await export.close()
        return b"".join(blobs)

    assert asyncio.run(run())[:-32] == (tmp_path / "db").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "foreign", "flipped", "missing"])
def test_a_failed_import_leaves_nothing(tmp_path: Path, damage: str) -> None:
    source = big_bolt(tmp_path / "db")
    content = source.read_bytes()
    if damage == "cut":
        source.write_bytes(content[: len(content) // 2])
    elif damage == "foreign":
        source.write_bytes(b"hello" * 10_000)
    elif damage == "flipped":
        changed = bytearray(content)
        page = len(content) // 2 // 4096 * 4096
        changed[page + 10 : page + 12] = b"\xff\xff"
        source.write_bytes(changed)
    else:
        source.unlink()
    snap = tmp_path / "snap"
    snap.mkdir()
    with pytest.raises((TransferError, FileNotFoundError)):
        install(str(source), str(snap))
    assert names(snap) == []
    with pytest.raises(TransferError):
        prepare_in_child(str(source), str(snap))
    assert names(snap) == []


def test_unsorted_keys_are_refused(tmp_path: Path) -> None:
    source = big_bolt(tmp_path / "db", 2000)
    content = bytearray(source.read_bytes())
    content[content.index((1000).to_bytes(8, "big") + b"_")] = 0xFF
    source.write_bytes(content)
    with pytest.raises(TransferError, match="follows"):
        import_bolt(str(source), str(tmp_path / "kv"))
    assert not (tmp_path / "kv").exists()


def test_take_over_keeps_the_original_and_happens_once(tmp_path: Path) -> None:
    class Log(NullLogger):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def info(self, message: str, **fields: object) -> None:
            self.lines.append(message)

    log = Log()
    snap = tmp_path / "snap"
    assert not take_over(str(snap), log)
    snap.mkdir()
    assert not take_over(str(snap), log)
    content = GOLDEN.read_bytes()[:-32]
    (snap / "db").write_bytes(content)
    assert take_over(str(snap), log)
    assert (snap / "db").read_bytes() == content
    assert read_lmdb(snap / "kv") == read_bolt(snap / "db")
    assert names(snap) == ["db", "kv"]
    assert log.lines == ["took over the database of etcd; the original is kept"]
    assert not take_over(str(snap), log)
    assert len(log.lines) == 1


def at_index(path: Path, index: int) -> None:
    update = Update()
    update.change(META, {META_CONSISTENT_INDEX: index.to_bytes(8, "big")})
    update.commit(str(path))


def test_what_the_original_has_gone_on_with_is_taken_over_again(tmp_path: Path) -> None:
    snap = tmp_path
    db = snap / "db"
    db.write_bytes(GOLDEN.read_bytes()[:-32])
    at_index(db, 100)
    log = NullLogger()
    assert take_over(str(snap), log)
    with db.open("rb") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        assert not take_over(str(snap), log), "ours holds as much"
        at_index(db, 101)
        with pytest.raises(TransferError, match=r"in use: .* locked by another process"):
            take_over(str(snap), log)
    assert take_over(str(snap), log)
    assert read_lmdb(snap / "kv") == read_bolt(db)
    assert not take_over(str(snap), log)
    db.write_bytes(b"damaged")
    assert not take_over(str(snap), log), "nobody needs it"


def test_a_replacement_is_finished_wherever_it_was_interrupted(tmp_path: Path) -> None:
    golden = read_bolt(GOLDEN)
    for step in range(4):
        snap = tmp_path / str(step)
        snap.mkdir()
        import_bolt(str(big_bolt(tmp_path / "db", 100)), str(snap / "kv"))
        old = read_lmdb(snap / "kv")
        (snap / "kv.building").mkdir()
        prepare(str(GOLDEN), str(snap))
        if step >= 1:
            os.rename(snap / "kv", snap / "kv.old")
        if step >= 2:
            os.rename(snap / "kv.ready", snap / "kv")
        if step == 3:
            (snap / "kv.old" / "data.mdb").unlink()
        recover(str(snap))
        assert names(snap) == ["kv"]
        assert read_lmdb(snap / "kv") == (old if step == 0 else golden)
        assert has_lmdb(str(snap))
    prepare(str(GOLDEN), str(snap))
    replace(str(snap))
    assert names(snap) == ["kv"]


def test_an_interrupted_import_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "kv.building").mkdir()
    (tmp_path / "kv.building" / "data.mdb").write_bytes(b"half")
    recover(str(tmp_path))
    assert names(tmp_path) == []
