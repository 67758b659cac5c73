"""Clusters of processes on 127.0.0.1, asked by the original etcdctl."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.server import Server, etcdctl

TRIES = 500  # of a question whose answer takes an election or five healthy seconds


class LocalCluster:
    """Members m1 ... mN on 127.0.0.1; `commands` says which program each of them runs."""

    def __init__(
        self, folder: Path, *commands: tuple[str, ...], flags: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.flags = flags
        self.servers: dict[str, Server] = {}
        ports = free_ports(2 * len(commands))
        for number, command in enumerate(commands, 1):
            name = f"m{number}"
            self.servers[name] = Server(
                command, folder / name, name, (), ports[2 * number - 2], ports[2 * number - 1]
            )
        for server in self.servers.values():
            server.flags = (f"--initial-cluster={self.initial}", *flags)

    @property
    def initial(self) -> str:
        """The value of --initial-cluster."""
        return ",".join(
            f"{name}=http://127.0.0.1:{server.peer_port}" for name, server in self.servers.items()
        )

    def start(self) -> LocalCluster:
        """All at once, and waits until all serve."""
        for server in self.servers.values():
            server.spawn()
        for server in self.servers.values():
            assert server.wait_ready(), server.log[-4000:]
        return self

    def stop(self) -> None:
        """Ends what runs."""
        for server in self.servers.values():
            if server.process is not None and server.process.poll() is None:
                server.process.kill()
                server.wait()

    def running(self) -> list[Server]:
        """Those with a live process."""
        return [s for s in self.servers.values() if s.process and s.process.poll() is None]

    def ask(self, server: Server, *words: str) -> str:
        """etcdctl's answer; asked again while the cluster has no leader or is busy."""
        last = ""
        for _ in range(TRIES):
            done = etcdctl(server.endpoint, *words)
            if done.returncode == 0:
                return done.stdout.decode()
            last = done.stderr.decode()
        raise AssertionError(f"{words}: {last}")

    def status(self, server: Server) -> dict[str, int]:
        """What `endpoint status` says."""
        answer = json.loads(self.ask(server, "endpoint", "status", "-w", "json"))[0]["Status"]
        return {
            "member": answer["header"]["member_id"],
            "leader": answer.get("leader", 0),
            "applied": answer.get("raftAppliedIndex", 0),
            "term": answer["raftTerm"],
        }

    def leader(self) -> Server:
        """Who leads; all running members must say the same."""
        for _ in range(TRIES):
            told = {server.name: self.status(server) for server in self.running()}
            leaders = {each["leader"] for each in told.values()}
            if len(leaders) == 1 and 0 not in leaders:
                for name, each in told.items():
                    if each["member"] == each["leader"]:
                        return self.servers[name]
        raise AssertionError(f"no leader: {told}")

    def hashes(self) -> set[str]:
        """Every running member's hash of the keys, once all have applied the same."""
        for _ in range(TRIES):
            if len({self.status(server)["applied"] for server in self.running()}) == 1:
                break
        return {
            self.ask(server, "endpoint", "hashkv").rsplit(", ", 1)[-1].strip()
            for server in self.running()
        }
