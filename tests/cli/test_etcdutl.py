"""Our etcdutl beside the original: what it prints, and data directories for each other's servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyraft.storage.bolt import BoltFile
from tests.support.server import (
    ORACLE,
    ORACLE_DIRECTORY,
    Server,
    environment,
    etcdctl,
    needs_oracle,
)
from tests.support.server import (
    OURS as OURS_SERVER,
)

pytestmark = [pytest.mark.real, needs_oracle()]
GOLDEN = Path(__file__).parents[1] / "storage" / "data" / "etcd-3.5.1.snapshot.db"
THEIRS = [str(ORACLE_DIRECTORY / "etcdutl")]
OURS = [sys.executable, "-m", "keyraft.cli.etcdutl"]
TOOLS = {"theirs": THEIRS, "ours": OURS}


def run(tool: list[str], *words: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*tool, *words], capture_output=True, cwd=cwd, timeout=120, check=False, env=environment()
    )


SAME = [
    "snapshot status {golden} -w json",
    "snapshot status {golden} -w fields",
    "snapshot status {golden}",
    "snapshot status {golden} -w protobuf",
    "snapshot status {golden} -w bogus",
    "snapshot status",
    "snapshot status a b",
    "snapshot status nosuch",
    "snapshot restore --data-dir out",
    "snapshot restore nosuch --data-dir out",
    "snapshot restore {nodigest} --data-dir out",
    "snapshot restore {flipped} --data-dir out",
    "snapshot restore {golden} --data-dir {full}",
    "snapshot restore {golden} --data-dir out --name zz",
    "snapshot restore {golden} --data-dir out --wal-dir {full}",
    "bogus",
    "snap status {golden} -w fields",
    "defrag",
    "version --bogus",
    "snapshot status --bogus",
]


@pytest.mark.parametrize("line", SAME)
def test_the_original_says_the_same(tmp_path: Path, line: str) -> None:
    content = GOLDEN.read_bytes()
    (tmp_path / "nodigest").write_bytes(content[:-32])
    (tmp_path / "flipped").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_bytes(b"")
    names = {name: name for name in ("nodigest", "flipped", "full")}
    words = line.format(golden=GOLDEN, **names).split()
    theirs = run(THEIRS, *words, cwd=tmp_path)
    subprocess.run(["rm", "-rf", str(tmp_path / "out")], check=True)
    ours = run(OURS, *words, cwd=tmp_path)
    assert ours.returncode == theirs.returncode
    assert stdout(ours) == stdout(theirs)
    assert errors(ours) == errors(theirs)
    if ours.returncode:
        assert not (tmp_path / "out").exists()


def stdout(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """Without the version of 3.6, and with keys counted as 3.6 counts them (live ones only)."""
    text = done.stdout.decode().replace('"totalKey":20,', '"totalKey":11,')
    text = text.replace(',"version":""', "").replace('"Version" : \n', "")
    text = text.replace('"Keys" : 20', '"Keys" : 11').replace(", 14, 20, 20 kB", ", 14, 11, 20 kB")
    return [line.removesuffix(", ") for line in text.splitlines()]


def errors(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """The first error; the original prints some of them twice, and logs beside them."""
    found = [line for line in done.stderr.decode().splitlines() if line.startswith("Error:")]
    return found[:1]


SERVERS = {"etcd": ORACLE, "keyraft": OURS_SERVER}


def hash_kv(server: Server, revision: int = 0) -> dict[str, int]:
    done = etcdctl(server.endpoint, "endpoint", "hashkv", f"--rev={revision}", "-w", "json")
    found = json.loads(done.stdout)[0]["HashKV"]
    return {name: found[name] for name in ("hash", "compact_revision")}


def hash_kv_text(server: Server, revision: int) -> str:
    """Asked again until the member has the revision."""
    for _ in range(100):
        done = etcdctl(server.endpoint, "endpoint", "hashkv", f"--rev={revision}")
        if done.returncode == 0:
            return done.stdout.decode().split(", ", 1)[1]
    raise AssertionError(done.stderr)


def restored(tool: list[str], snapshot: str, kind: str, path: Path) -> Server:
    server = Server(SERVERS[kind], path / "data")
    peer = f"http://127.0.0.1:{server.peer_port}"
    path.mkdir()
    done = run(
        tool,
        "snapshot",
        "restore",
        snapshot,
        f"--data-dir={server.data_dir}",
        f"--initial-cluster=default={peer}",
        f"--initial-advertise-peer-urls={peer}",
        cwd=path,
    )
    assert done.returncode == 0, done.stderr
    return server


@pytest.mark.parametrize("saver", SERVERS)
def test_any_snapshot_passes_any_tool_and_starts_any_server(tmp_path: Path, saver: str) -> None:
    first = Server(SERVERS[saver], tmp_path / "first").start()
    snapshot = str(tmp_path / "s.db")
    try:
        for number in range(12):
            etcdctl(first.endpoint, "put", f"key-{number % 8:02d}", f"value {number}")
        etcdctl(first.endpoint, "compaction", "5")
        etcdctl(first.endpoint, "del", "key-03")
        etcdctl(first.endpoint, "lease", "grant", "1000")
        done = etcdctl(first.endpoint, "snapshot", "save", snapshot)
        assert done.returncode == 0, done.stderr
        assert os.listdir(tmp_path).count("s.db.part") == 0
        wanted = hash_kv(first)
    finally:
        first.stop()
    theirs, ours = (
        json.loads(run(each, "snapshot", "status", "s.db", "-w", "json", cwd=tmp_path).stdout)
        for each in (THEIRS, OURS)
    )
    assert theirs["hash"] == ours["hash"]
    assert theirs["revision"] == ours["revision"] == 14
    assert theirs["totalSize"] == ours["totalSize"]
    assert ours["totalKey"] == 7
    # Up to 3.5 all rows of all buckets are counted; since 3.6 the keys alive, and a version told.
    with BoltFile(snapshot) as db:
        rows = sum(1 for _, bucket in db.buckets() for _ in bucket.items())
    assert rows > 7
    assert theirs["totalKey"] == (7 if "version" in theirs else rows)
    for tool_name, tool in TOOLS.items():
        for kind in SERVERS:
            server = restored(tool, snapshot, kind, tmp_path / f"{tool_name}-{kind}").start()
            try:
                assert hash_kv(server, 14) == wanted, (tool_name, kind)
                assert etcdctl(server.endpoint, "get", "key-02").stdout == b"key-02\nvalue 10\n"
                assert etcdctl(server.endpoint, "put", "more", "x").returncode == 0
                members = etcdctl(server.endpoint, "member", "list").stdout
                assert members.count(b"\n") == 1 and str(server.peer_port).encode() in members
                assert etcdctl(server.endpoint, "lease", "list").stdout.startswith(b"found 1")
            finally:
                server.stop()
            path = str(server.data_dir)
            hashed = run(OURS, "hashkv", path, "--rev=14", "-w", "json", cwd=tmp_path)
            assert json.loads(hashed.stdout)["hash"] == wanted["hash"], hashed.stderr
            if tool is THEIRS:
                continue
            assert run(OURS, "defrag", f"--data-dir={path}", cwd=tmp_path).returncode == 0
            server.start()
            try:
                assert etcdctl(server.endpoint, "get", "more").stdout == b"more\nx\n"
            finally:
                server.stop()


def test_our_member_takes_over_a_directory_of_the_original(tmp_path: Path) -> None:
    server = Server(ORACLE, tmp_path / "data").start()
    try:
        for number in range(10):
            etcdctl(server.endpoint, "put", f"key-{number}", "x" * number)
        etcdctl(server.endpoint, "del", "key-3")
        wanted = hash_kv(server)
    finally:
        server.kill()
    database = server.data_dir / "member" / "snap" / "db"
    original = database.read_bytes()
    server.command = OURS_SERVER
    for _ in range(2):
        server.start()
        try:
            assert hash_kv(server) == wanted
            assert etcdctl(server.endpoint, "get", "key-7").stdout == b"key-7\nxxxxxxx\n"
        finally:
            server.stop()
    assert server.log.count("took over the database of etcd; the original is kept") == 1
    assert database.read_bytes() == original


def test_three_members_of_both_kinds_start_on_what_ours_restored(tmp_path: Path) -> None:
    commands = {"m1": ORACLE, "m2": OURS_SERVER, "m3": OURS_SERVER}
    servers = [Server(command, tmp_path / name, name) for name, command in commands.items()]
    urls = {server.name: f"http://127.0.0.1:{server.peer_port}" for server in servers}
    cluster = ",".join(f"{name}={url}" for name, url in urls.items())
    for server in servers:
        done = run(
            OURS,
            "snapshot",
            "restore",
            str(GOLDEN),
            f"--name={server.name}",
            f"--data-dir={server.data_dir}",
            f"--initial-cluster={cluster}",
            f"--initial-advertise-peer-urls={urls[server.name]}",
            "--initial-cluster-token=again",
            "--bump-revision=1000",
            "--mark-compacted",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        server.flags = [f"--initial-cluster={cluster}"]
        server.spawn()
    try:
        for server in servers:
            assert server.wait_ready(), server.log[-2000:]
        endpoint = servers[0].endpoint
        assert etcdctl(endpoint, "member", "list").stdout.count(b", started, ") == 3
        assert etcdctl(endpoint, "get", "k5").stdout == b"k5\nv5\n"
        status = json.loads(etcdctl(endpoint, "endpoint", "status", "-w", "json").stdout)
        assert status[0]["Status"]["header"]["revision"] == 1014
        assert b"compacted" in etcdctl(endpoint, "get", "k5", "--rev=14").stderr
        for turn in range(2):
            # The row that the bump left is hashed by all of them, before a compaction and after.
            done = etcdctl(endpoint, "put", "new", "1")
            assert done.returncode == 0
            newest = 1015 + turn
            assert len({hash_kv_text(server, newest) for server in servers}) == 1
            assert etcdctl(endpoint, "compaction", "--physical", str(newest)).returncode == 0
        for server in servers:
            server.stop()
        for server in servers:
            server.spawn()
        for server in servers:
            assert server.wait_ready(), server.log[-2000:]
        assert etcdctl(servers[1].endpoint, "put", "new", "2").returncode == 0
        assert len({hash_kv_text(server, 1017) for server in servers}) == 1
    finally:
        for server in servers:
            server.kill()


def test_a_version_takes_no_time(tmp_path: Path) -> None:
    done = run(OURS, "version", cwd=tmp_path)
    assert done.stdout.splitlines()[0].startswith(b"etcdutl version: 3.7.")
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "keyraft.cli.etcdutl", "version"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    ).stderr
    for heavy in ("lmdb", "google.protobuf", "asyncio", "httptools"):
        assert f" {heavy}\n" not in loaded


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_a_completion_script_names_etcdutls_commands(tmp_path: Path, shell: str) -> None:
    done = run(OURS, "completion", shell, cwd=tmp_path)
    assert done.returncode == 0
    assert b"snapshot" in done.stdout and b"etcdctl" not in done.stdout


def test_our_tool_reads_a_database_that_the_original_has_open_for_reading(tmp_path: Path) -> None:
    server = Server(ORACLE, tmp_path / "data").start()
    try:
        done = run(OURS, "--timeout=50ms", "snapshot", "status", "data", cwd=tmp_path)
        assert done.returncode == 1
        assert b"timeout" in done.stderr
        done = run(OURS, "--timeout=50ms", "defrag", "--data-dir=data", cwd=tmp_path)
        assert done.returncode == 1
        assert b"Failed to defragment etcd data[data] (timeout" in done.stderr
    finally:
        server.stop()
    assert run(OURS, "snapshot", "status", "data", cwd=tmp_path).returncode == 0
    assert os.path.isdir(tmp_path / "data" / "member")


def test_a_restore_names_the_members_and_the_new_revision(tmp_path: Path) -> None:
    words = "snapshot restore {} --data-dir d --initial-cluster m1=http://h1:2380,m2=http://h2:2380"
    words += " --name m1 --initial-advertise-peer-urls http://h1:2380"
    words += " --bump-revision 10 --mark-compacted"
    done = run(OURS, *words.format(GOLDEN).split(), cwd=tmp_path)
    assert done.returncode == 0
    lines = [line.split("\t", 3)[3].split("\t") for line in done.stderr.decode().splitlines()]
    said = [(message, json.loads(fields[0]) if fields else {}) for message, *fields in lines]
    added = {"cluster-id": "d4b6e55402d4facc", "local-member-id": "0"}
    assert said[1:-1] == [
        ("Trimming membership information from the backend...", {}),
        (
            "bumping latest revision",
            {"latest-revision": 14, "bump-amount": 10, "new-latest-revision": 24},
        ),
        ("marking revision compacted", {"revision": 24}),
        *(
            (
                "added member",
                added
                | {
                    "added-peer-id": ident,
                    "added-peer-peer-urls": [url],
                    "added-peer-is-learner": False,
                },
            )
            for ident, url in (
                ("483f495cacb3c389", "http://h1:2380"),
                ("f83640c8f4af7f9e", "http://h2:2380"),
            )
        ),
    ]


def test_on_a_terminal_json_comes_alone(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    words = [*OURS, "snapshot", "status", str(GOLDEN), "-w", "json"]
    with os.fdopen(ours, "rb", buffering=0) as reader:
        done = subprocess.run(
            words, stdout=theirs, stderr=theirs, cwd=tmp_path, check=True, env=environment()
        )
        os.close(theirs)
        assert done.returncode == 0
        assert json.loads(reader.read(4096))["revision"] == 14


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", 'required flag(s) "data-dir", "target-version" not set'),
        ("--data-dir nosuch --target-version 3.6", "stat nosuch/member/snap/db: no such file"),
        ("--data-dir nosuch --target-version 3", "wrong target version format"),
        ("--to-original", 'required flag(s) "data-dir" not set'),
        ("--data-dir nosuch --to-original", "there is no database of Keyraft in 'nosuch'"),
    ],
)
def test_a_migration_that_cannot_be(tmp_path: Path, words: str, message: str) -> None:
    done = run(OURS, "migrate", *words.split(), cwd=tmp_path)
    assert done.returncode in (1, 128)
    assert errors(done) and message in errors(done)[0]
