"""`python -m bench.backup`: saving, checking and restoring a large database, by turns.

Each side works with its own tools on its own server: the original's etcdctl and etcdutl beside
ours. Both servers hold the same rows, restored from one snapshot. A row of the table is the median
of the turns. Memory is the peak of a process's own pages (anonymous memory): the database file,
which every reader maps, belongs to the page cache and is there for all. Then puts go on at full
speed while a snapshot is saved, and the rate during the save is set against the mean of the rates
before and after it; nothing is sampled meanwhile, for that would take from the puts, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from bench.loads import PUT, keyraft_bench, put_request
from bench.servers import ORIGINAL, OURS, SOURCE, Server, original_name
from keyraft.proto import rpc_pb2

KEYS: Final = 1_000_000
VALUE_BYTES: Final = 256
TURNS: Final = 3
TXN_OPS: Final = 100
SAMPLE_S: Final = 0.01
LOAD_S: Final = 6.0  # of puts before a save, and after it
LOAD_S_MAX: Final = 600
LOAD_CONNECTIONS: Final = 20
LOAD_STREAMS: Final = 50

_BINARIES: Final = Path(ORIGINAL[0]).parent
TOOLS: Final = {
    "etcd": {name: [str(_BINARIES / name)] for name in ("etcdctl", "etcdutl")},
    "keyraft": {
        name: [sys.executable, "-m", f"keyraft.cli.{name}"] for name in ("etcdctl", "etcdutl")
    },
}
SERVERS: Final = {"etcd": ORIGINAL, "keyraft": OURS}


@dataclass
class Work:
    """One run of a command."""

    seconds: float
    cpu_s: float
    memory_mb: float  # peak of anonymous memory, of the command and of the watched server
    server_mb: float
    out: str


def anonymous_mb(pid: int) -> float:
    """Own pages of a process and of its children."""
    total_kb = 0
    pids = [pid]
    while pids:
        one = pids.pop()
        try:
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total_kb += int(line.split()[1])
            for task in Path(f"/proc/{one}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total_kb / 1024


def cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def run(command: list[str], server_pid: int | None = None, *, watched: bool = True) -> Work:
    """Runs a command to its end and, unless that would disturb, watches its memory."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    } | {"PYTHONPATH": SOURCE}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    peaks = [0.0, 0.0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_S):
            peaks[0] = max(peaks[0], anonymous_mb(process.pid))
            if server_pid is not None:
                peaks[1] = max(peaks[1], anonymous_mb(server_pid))

    watcher = threading.Thread(target=watch)
    if watched:
        watcher.start()
    before = os.times()
    out, err = process.communicate()
    seconds = time.perf_counter() - began
    after = os.times()
    over.set()
    if watched:
        watcher.join()
    assert process.returncode == 0, (command, out, err)
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return Work(seconds, used, peaks[0], peaks[1], out.decode())


@dataclass
class Table:
    """What was measured: row -> side -> values."""

    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, side: str, row: str, value: float) -> None:
        """One value."""
        self.rows.setdefault(row, {}).setdefault(side, []).append(value)
        print(f"  {side:8} {row}: {value:,.2f}", file=sys.stderr, flush=True)

    def work(self, side: str, name: str, work: Work) -> None:
        """One run's values."""
        self.add(side, f"{name}, s", work.seconds)
        self.add(side, f"{name}, processor s", work.cpu_s)
        self.add(side, f"{name}, own memory MiB", work.memory_mb)

    def __str__(self) -> str:
        lines = [f"{'':40} {original_name():>12} {'Keyraft':>12} {'Keyraft/etcd':>13}"]
        for name, sides in self.rows.items():
            if len(sides) < 2:  # --only
                (alone,) = sides.values()
                lines.append(f"{name:40} {statistics.median(alone):>12,.2f}")
                continue
            first, second = (statistics.median(sides[side]) for side in ("etcd", "keyraft"))
            lines.append(f"{name:40} {first:>12,.2f} {second:>12,.2f} {second / first:>13.2f}")
        return "\n".join(lines)


def revision(server: Server) -> int:
    """The server's revision now."""
    with grpc.insecure_channel(server.endpoint) as channel:
        answer = channel.unary_unary("/etcdserverpb.KV/Range")(
            rpc_pb2.RangeRequest(key=b"none", serializable=True).SerializeToString()
        )
    return int(rpc_pb2.RangeResponse.FromString(answer).header.revision)


def filled(place: Path, keys: int) -> Path:
    """A snapshot of an original server with so many keys."""
    path = place / "base.db"
    with Server("etcd", ORIGINAL, str(place)) as server:
        server.start()
        keyraft_bench(
            server.endpoint,
            "--conns=4",
            "--clients=16",
            "txn",
            f"--txn-ops={TXN_OPS}",
            f"--total={keys // TXN_OPS}",
            "--key-size=16",
            f"--val-size={VALUE_BYTES}",
            f"--key-space-size={keys}",
        )
        run(
            [
                *TOOLS["etcd"]["etcdctl"],
                f"--endpoints={server.endpoint}",
                "snapshot",
                "save",
                str(path),
            ]
        )
        server.stop()
    return path


def started(stack: contextlib.ExitStack, side: str, base: Path, directory: str) -> Server:
    """A server of its own with the rows of a snapshot."""
    server = stack.enter_context(Server(side, SERVERS[side], directory))
    run([*TOOLS["etcd"]["etcdutl"], *restore_words(server, base, server.data)])
    server.start()
    return server


def restore_words(server: Server, snapshot: Path, target: Path) -> list[str]:
    """The arguments of `snapshot restore` for a server."""
    peer = f"http://127.0.0.1:{server.peer_port}"
    return [
        "snapshot",
        "restore",
        str(snapshot),
        f"--data-dir={target}",
        f"--initial-cluster=default={peer}",
        f"--initial-advertise-peer-urls={peer}",
    ]


def at_rest(table: Table, servers: dict[str, Server], place: Path, turns: int) -> None:
    """Save, status and restore with nothing else going on."""
    hashes = set()
    for _ in range(turns):
        for side, server in servers.items():
            tools, saved = TOOLS[side], place / f"{side}.db"
            assert server.pid is not None
            idle_mb = anonymous_mb(server.pid)
            endpoint = f"--endpoints={server.endpoint}"
            server_cpu_s = cpu_s(server.pid)
            work = run([*tools["etcdctl"], endpoint, "snapshot", "save", str(saved)], server.pid)
            table.work(side, "save", work)
            used_s = cpu_s(server.pid) - server_cpu_s
            table.add(side, "save, server's processor s", used_s)
            table.add(side, "save, server's further memory MiB", work.server_mb - idle_mb)
            work = run([*tools["etcdutl"], "snapshot", "status", str(saved), "-w=json"])
            table.work(side, "status", work)
            hashes.add(json.loads(work.out)["hash"])
            target = place / f"{side}.restored"
            work = run([*tools["etcdutl"], *restore_words(server, saved, target)])
            table.work(side, "restore", work)
            shutil.rmtree(target)
    assert len(hashes) == len(servers), "one database, one hash"


def under_load(table: Table, side: str, server: Server, place: Path) -> None:
    """Puts at full speed, and a save in their midst."""
    words = [f"--endpoints={server.endpoint}", "snapshot", "save", str(place / "load.db")]
    with tempfile.NamedTemporaryFile() as body:
        request = put_request(VALUE_BYTES)
        body.write(b"\0" + len(request).to_bytes(4, "big") + request)
        body.flush()
        load = subprocess.Popen(
            [
                "h2load",
                f"-D{LOAD_S_MAX}",
                f"-c{LOAD_CONNECTIONS}",
                f"-m{LOAD_STREAMS}",
                "-t1",
                f"-d{body.name}",
                "-Hcontent-type: application/grpc",
                "-Hte: trailers",
                f"http://{server.endpoint}{PUT}",
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            time.sleep(1)
            before = rate_while(server, lambda: time.sleep(LOAD_S))
            began = time.perf_counter()
            during = rate_while(
                server, lambda: run([*TOOLS[side]["etcdctl"], *words], watched=False)
            )
            table.add(side, "save under puts, s", time.perf_counter() - began)
            after = rate_while(server, lambda: time.sleep(LOAD_S))
        finally:
            load.terminate()
            load.wait()
    table.add(side, "puts before and after, /s", (before + after) / 2)
    table.add(side, "puts during the save, /s", during)
    table.add(side, "puts during the save, share", 2 * during / (before + after))


def rate_while(server: Server, work: object) -> float:
    """Puts a second while `work` runs."""
    first, began = revision(server), time.perf_counter()
    work()  # type: ignore[operator]
    return (revision(server) - first) / (time.perf_counter() - began)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.backup")
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--base", type=Path, help="a snapshot to begin with; made when absent")
    parser.add_argument("--only", choices=("etcd", "keyraft"))
    parser.add_argument("--skip", choices=("rest", "load"))
    options = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory(prefix="keyraft-bench-") as directory:
        place = Path(directory)
        base = options.base or place / "base.db"
        if not base.exists():
            shutil.move(filled(place, options.keys), base)
        sides = [options.only] if options.only else list(SERVERS)
        if options.skip != "rest":
            with contextlib.ExitStack() as stack:
                servers = {side: started(stack, side, base, directory) for side in sides}
                at_rest(table, servers, place, options.turns)
        for _ in range(options.turns if options.skip != "load" else 0):
            for side in sides:  # from the same database each time, for puts make it grow
                with contextlib.ExitStack() as stack:
                    under_load(table, side, started(stack, side, base, directory), place)
    print(table)


if __name__ == "__main__":
    main()
