"""Files at rest: status, HashKV, restore, defragmentation, migration; and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from keyraft.base.log import NullLogger
from keyraft.mvcc.backend import KEY, MEMBERS, META, META_STORAGE_VERSION
from keyraft.offline import defrag, hashkv, migrate
from keyraft.offline.restore import RestorePlan, restore
from keyraft.offline.source import OfflineError, lock
from keyraft.offline.status import SnapshotStatus, status
from keyraft.raft.types import ConfState, HardState
from keyraft.storage.bolt import BoltFile, Update, check, write_file
from keyraft.storage.files import OsFiles
from keyraft.storage.snap import SnapDir
from keyraft.storage.transfer import import_bolt
from keyraft.storage.wal import decode_metadata, read_wal, valid_snapshots

GOLDEN = Path(__file__).parents[1] / "storage" / "data" / "etcd-3.5.1.snapshot.db"
GOLDEN_STATUS = SnapshotStatus(
    0x83214E31, 14, 11, 20480, ""
)  # the hash is what etcdutl 3.5.1 prints
Model = dict[bytes, dict[bytes, bytes]]


def model_of(path: Path) -> Model:
    with BoltFile(path) as db:
        assert check(db) == []
        return {name: dict(bucket.items()) for name, bucket in db.buckets()}


def plan(snapshot: Path, data_dir: Path, **changes: object) -> RestorePlan:
    values: dict[str, object] = {
        "snapshot": str(snapshot),
        "data_dir": str(data_dir),
        "wal_dir": "",
        "name": "m2",
        "initial_cluster": "m1=http://h1:2380,m2=http://h2:2380,m3=http://h3:2380",
        "initial_cluster_token": "token",
        "peer_urls": "http://h2:2380",
    }
    return RestorePlan(**(values | changes))  # type: ignore[arg-type]  # values of many types by name


# --- status and hash -------------------------------------------------------------------------


def test_status_of_a_snapshot_of_etcd() -> None:
    assert status(str(GOLDEN)) == GOLDEN_STATUS


def test_our_own_database_has_the_same_status_and_hash(tmp_path: Path) -> None:
    kv = tmp_path / "data" / "member" / "snap" / "kv"
    kv.parent.mkdir(parents=True)
    import_bolt(str(GOLDEN), str(kv))
    for path in (kv, tmp_path / "data"):
        found = status(str(path))
        assert (found.hash, found.revision, found.keys) == (0x83214E31, 14, 11)
        hashed = hashkv.hash_kv(str(path))
        assert (hashed.hash, hashed.revision, hashed.compact_revision) == (1236003968, 14, -1)


def test_hash_of_an_older_revision(tmp_path: Path) -> None:
    old = hashkv.hash_kv(str(GOLDEN), 5)
    assert old.revision == 5
    assert old.hash != hashkv.hash_kv(str(GOLDEN)).hash
    with pytest.raises(OfflineError, match="required revision is a future revision"):
        hashkv.hash_kv(str(GOLDEN), 15)


def test_a_database_in_use_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    shutil.copy(GOLDEN, path)
    held = lock(str(path), 0, exclusive=True)
    with pytest.raises(OfflineError, match="timeout"):
        status(str(path), 0.001)
    os.close(held)
    assert status(str(path), 0.001) == GOLDEN_STATUS


# --- restore ---------------------------------------------------------------------------------


def test_restore_makes_a_member_of_the_new_cluster(tmp_path: Path) -> None:
    data = tmp_path / "data"
    restore(plan(GOLDEN, data))
    assert sorted(os.listdir(data)) == ["member"]
    assert sorted(os.listdir(data / "member")) == ["snap", "wal"]
    before, after = model_of(GOLDEN), model_of(data / "member" / "snap" / "db")
    assert {name for name in before if before[name] != after[name]} == {b"members", b"meta"}
    assert len(after[MEMBERS]) == 3
    assert after[META][b"consistent_index"] == (3).to_bytes(8, "big")
    assert after[META][b"term"] == (1).to_bytes(8, "big")
    files = OsFiles()
    wal_dir = str(data / "member" / "wal")
    replay = read_wal(files, wal_dir)
    own, _ = decode_metadata(replay.metadata)
    ids = sorted(int(key, 16) for key in after[MEMBERS])
    assert own in ids
    assert b'"name":"m2"' in after[MEMBERS][b"%x" % own]
    assert [entry.type for entry in replay.entries] == [1, 1, 1]
    assert replay.state == HardState(1, ids[0], 3)
    (_, mark) = valid_snapshots(files, wal_dir)
    assert (mark.index, mark.term, mark.conf_state) == (3, 1, ConfState(ids))
    snap = SnapDir(files, str(data / "member" / "snap")).load_newest([mark])
    assert snap is not None and b'"/0/members/' in snap.data
    assert (data / "member" / "snap" / "db").stat().st_mode & 0o777 == 0o600


def test_all_that_is_restored_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        restore(plan(GOLDEN, tmp_path / "a" / "data"))
    finally:
        os.umask(before)
    for path in (tmp_path / "a").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_database_that_no_transaction_can_follow_is_refused(tmp_path: Path) -> None:
    last = tmp_path / "last.db"
    data = bytearray(GOLDEN.read_bytes()[: -hashlib.sha256().digest_size])
    with BoltFile(str(GOLDEN)) as db:
        meta = dataclasses.replace(db.meta, txid=(1 << 64) - 1)
    at = meta.page_bytes + 16
    data[at : at + 64] = meta.encode()
    last.write_bytes(bytes(data))
    with pytest.raises(OfflineError, match="no transaction behind 18446744073709551615"):
        restore(plan(last, tmp_path / "data", skip_hash_check=True))
    with pytest.raises(OfflineError, match="there is none so high"):
        bumped = plan(GOLDEN, tmp_path / "data", bump_revision=(1 << 63) - 1, mark_compacted=True)
        restore(bumped)
    assert [path.name for path in tmp_path.iterdir()] == ["last.db"]


def test_every_member_agrees_on_the_cluster(tmp_path: Path) -> None:
    found = []
    for name, host in (("m1", "h1"), ("m2", "h2"), ("m3", "h3")):
        data = tmp_path / name
        restore(plan(GOLDEN, data, name=name, peer_urls=f"http://{host}:2380"))
        found.append(decode_metadata(read_wal(OsFiles(), str(data / "member" / "wal")).metadata))
    assert len({cluster for _, cluster in found}) == 1
    assert len({member for member, _ in found}) == 3


def test_bumped_and_compacted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    restore(plan(GOLDEN, data, bump_revision=1_000_000, mark_compacted=True))
    after = model_of(data / "member" / "snap" / "db")
    bumped = (1_000_014).to_bytes(8, "big") + b"_" + bytes(8)
    assert after[KEY].pop(bumped) == b""
    assert after[KEY] == model_of(GOLDEN)[KEY]
    assert after[META][b"scheduledCompactRev"] == bumped
    assert status(str(data)).revision == 1_000_014


def test_a_wal_directory_of_its_own(tmp_path: Path) -> None:
    restore(plan(GOLDEN, tmp_path / "data", wal_dir=str(tmp_path / "far" / "wal")))
    assert sorted(os.listdir(tmp_path / "data" / "member")) == ["snap"]
    assert len(read_wal(OsFiles(), str(tmp_path / "far" / "wal")).entries) == 3
    with pytest.raises(OfflineError, match=r'wal-dir ".*wal" exists'):
        restore(plan(GOLDEN, tmp_path / "other", wal_dir=str(tmp_path / "far" / "wal")))


def test_an_existing_member_is_not_touched(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "something").write_bytes(b"x")
    with pytest.raises(OfflineError, match=r'data-dir ".*" not empty or could not be read'):
        restore(plan(GOLDEN, data))
    assert os.listdir(data) == ["something"]


def test_flags_that_do_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(OfflineError, match='couldn\'t find local name "zz" in the initial cluster'):
        restore(plan(GOLDEN, tmp_path / "data", name="zz"))
    with pytest.raises(OfflineError):
        restore(plan(GOLDEN, tmp_path / "data", peer_urls="http://elsewhere:1"))
    with pytest.raises(OfflineError):
        restore(plan(GOLDEN, tmp_path / "data", initial_cluster="m2=nonsense"))
    assert os.listdir(tmp_path) == []


def big(path: Path) -> Path:
    model = model_of(GOLDEN)
    model[KEY] |= {
        (100 + number).to_bytes(8, "big") + b"_" + bytes(8): b"\x0a\x01k" + b"v" * 300
        for number in range(2000)
    }
    with path.open("w+b") as file:
        write_file(file, [(name, sorted(items.items())) for name, items in sorted(model.items())])
        file.seek(0)
        file.write(hashlib.sha256(file.read()).digest())
    return path


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated by a byte": lambda content: content[:-1],
    "truncated in the middle": lambda content: content[: len(content) // 2],
    "truncated to a page": lambda content: content[:4096],
    "without its digest": lambda content: content[:-32],
    "bit flipped in a value": lambda content: content.replace(b"v" * 300, b"v" * 299 + b"w", 1),
    "bit flipped in a digest": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "bit flipped in a meta page": lambda content: b"\1" + content[1:],
    "foreign": lambda content: b"hello" * 10_000,
    "foreign of the right length": lambda content: os.urandom(len(content)),
    "empty": lambda content: b"",
    "short": lambda content: b"x" * 32,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_refused_and_nothing_is_written(tmp_path: Path, damage: str) -> None:
    path = big(tmp_path / "snapshot.db")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(OfflineError) as failure:
        restore(plan(path, tmp_path / "data"))
    assert str(failure.value)
    assert os.listdir(tmp_path) == ["snapshot.db"]
    with pytest.raises(OfflineError):
        restore(plan(path, tmp_path / "data", wal_dir=str(tmp_path / "wal")))
    assert os.listdir(tmp_path) == ["snapshot.db"]
    if damage != "without its digest":
        with pytest.raises(OfflineError):
            status(str(path))


@pytest.mark.parametrize("damage", ["truncated in the middle", "foreign", "empty", "short"])
def test_without_a_digest_the_structure_is_checked(tmp_path: Path, damage: str) -> None:
    path = big(tmp_path / "snapshot.db")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(OfflineError):
        restore(plan(path, tmp_path / "data", skip_hash_check=True))
    assert os.listdir(tmp_path) == ["snapshot.db"]


def test_the_integrity_check_speaks_as_the_original(tmp_path: Path) -> None:
    path = big(tmp_path / "snapshot.db")
    content = bytearray(path.read_bytes())
    with BoltFile(path) as db:
        bucket = db.bucket(KEY)
        assert bucket is not None
        page = db.page(bucket.root_page().branch_elements()[0][1])
        leaf = page.branch_elements()[3][1]
    content[leaf * 4096 + 8] = 0x10
    path.write_bytes(content)
    text = r"snapshot file integrity check failed\. \d+ errors found\.\npage \d+: invalid type"
    with pytest.raises(OfflineError, match=text):
        status(str(path))


def test_messages_are_those_of_the_original(tmp_path: Path) -> None:
    path = big(tmp_path / "snapshot.db")
    content = path.read_bytes()
    for changed, text in (
        (content[:-32], "snapshot missing hash but --skip-hash-check=false"),
        (content[:-1] + b"\0", r"expected sha256 \[[\d ]+ 0\], got \[[\d ]+\]"),
    ):
        path.write_bytes(changed)
        with pytest.raises(OfflineError, match=text):
            restore(plan(path, tmp_path / "data"))
    with pytest.raises(OfflineError, match="open nosuch: no such file or directory"):
        restore(plan(Path("nosuch"), tmp_path / "data"))
    path.write_bytes(content[:-32])
    restore(plan(path, tmp_path / "data", skip_hash_check=True))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Update, "commit", full)
    with pytest.raises(OfflineError, match="No space left on device"):
        restore(plan(GOLDEN, tmp_path / "data"))
    assert os.listdir(tmp_path) == []


# --- defragmentation and migration -----------------------------------------------------------


@pytest.fixture(params=["etcd", "ours"])
def stopped(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The data directory of a stopped member."""
    data = tmp_path / "data"
    restore(plan(GOLDEN, data))
    if request.param == "ours":
        snap = data / "member" / "snap"
        import_bolt(str(snap / "db"), str(snap / "kv"))
        (snap / "db").unlink()
    return data


def test_defragmentation_changes_nothing_but_the_size(stopped: Path) -> None:
    found = status(str(stopped))
    before, after = defrag.defrag(str(stopped), 1)
    assert 0 < after <= max(before, 40960)
    again = status(str(stopped))
    assert (again.hash, again.revision, again.keys) == (found.hash, found.revision, found.keys)
    names = sorted(os.listdir(stopped / "member" / "snap"))
    assert [name for name in names if not name.endswith(".snap")] in (["db"], ["kv"])


def test_defragmentation_of_a_running_member_is_refused(stopped: Path) -> None:
    snap = stopped / "member" / "snap"
    held = lock(str(snap / "db" if (snap / "db").exists() else snap / "kv"), 0, exclusive=True)
    with pytest.raises(OfflineError, match="timeout"):
        defrag.defrag(str(stopped), 0.001)
    os.close(held)


def version_of(data: Path) -> str:
    return status(str(data)).version


def test_migration_up_and_down(stopped: Path) -> None:
    log = NullLogger()
    assert version_of(stopped) == ""
    migrate.migrate(str(stopped), "", (3, 6), False, 1, log)
    assert version_of(stopped) == "3.6.0"
    migrate.migrate(str(stopped), "", (3, 7), False, 1, log)
    assert version_of(stopped) == "3.7.0"
    migrate.migrate(str(stopped), "", (3, 5), False, 1, log)
    assert version_of(stopped) == ""
    for target, refusal in (((4, 0), "changing major"), ((3, 8), 'version "3.8.0" is not supp')):
        with pytest.raises(OfflineError, match=f"cannot create migration plan: {refusal}"):
            migrate.migrate(str(stopped), "", target, False, 1, log)
    migrate.migrate(str(stopped), "", (4, 0), True, 1, log)
    assert version_of(stopped) == "4.0.0"


def test_migration_wants_a_log_that_the_target_understands(stopped: Path) -> None:
    from keyraft.raft.types import Entry
    from keyraft.storage.wal import WAL

    mark = valid_snapshots(OsFiles(), str(stopped / "member" / "wal"))[-1]
    wal, _ = WAL.open(OsFiles(), str(stopped / "member" / "wal"), mark)
    wal.append([Entry(1, 4, bytes.fromhex("e2ea04070a05") + b"3.6.0")], HardState(1, 1, 4))
    wal.close()
    log = NullLogger()
    migrate.migrate(str(stopped), "", (3, 6), False, 1, log)
    with pytest.raises(OfflineError, match=r"WAL contains newer entries"):
        migrate.migrate(str(stopped), "", (3, 5), False, 1, log)
    migrate.migrate(str(stopped), "", (3, 5), True, 1, log)
    assert version_of(stopped) == ""


def test_target_versions() -> None:
    assert migrate.parse_target("3.6") == (3, 6)
    for text, message in (
        ("3", 'wrong target version format, expected "X.Y", got "3"'),
        ("3.4", 'target version "3.4" not supported. Minimal "3.5"'),
        ("a.b", 'failed to parse target version: strconv.ParseInt: parsing "a": invalid syntax'),
        ("3.-6", "failed to parse target version: 3. is not in dotted-tri format"),
        ("3.99999999999999999999", "value out of range"),
    ):
        with pytest.raises(OfflineError, match=message):
            migrate.parse_target(text)


def test_a_database_without_a_term_has_no_version(tmp_path: Path) -> None:
    path = tmp_path / "data" / "member" / "snap" / "db"
    path.parent.mkdir(parents=True)
    shutil.copy(GOLDEN, path)
    update = Update()
    update.change(META, {b"term": None, META_STORAGE_VERSION: None})
    update.commit(str(path))
    with pytest.raises(OfflineError, match="missing term information"):
        migrate.migrate(str(tmp_path / "data"), "", (3, 6), False, 1, NullLogger())
