"""A cluster of processes whose network can be cut, and what is asked of its single members.

Everything is asked of one member at a time and answered by it alone, so the two sides of a cut can
be told apart. Waiting is asking again until the answer is the wanted one.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from keyraft.client import Client
from keyraft.client.sync import Portal
from keyraft.proto import rpc_pb2
from tests.support.cluster import LocalCluster
from tests.support.cutting import Cuts
from tests.support.history import FAILURE, PATIENCE_S, WAIT_S, Load
from tests.support.server import OURS

ASK_AGAIN_S = 0.02
REQUEST_TIMEOUT_S = 7.0  # of a member with etcd's default times


class Fleet(LocalCluster):
    """Members m1 ... mN behind proxies; a context manager that stops everything."""

    def __init__(
        self,
        folder: Path,
        size: int,
        flags: tuple[str, ...] = (),
        commands: Sequence[tuple[str, ...]] = (),
    ) -> None:
        super().__init__(folder, *(commands or [OURS] * size), flags=flags)
        self.portal = Portal()
        self.cuts = Cuts(self.portal, self._pids)
        self.peer_urls = {
            name: f"http://127.0.0.1:{self.cuts.guard(name, server.peer_port)}"
            for name, server in self.servers.items()
        }
        initial = ",".join(f"{name}={url}" for name, url in self.peer_urls.items())
        for name, server in self.servers.items():
            server.flags = (
                f"--initial-advertise-peer-urls={self.peer_urls[name]}",
                f"--initial-cluster={initial}",
                *flags,
            )
        self._clients: dict[str, Client] = {}
        self._loads: list[Load] = []

    def _pids(self) -> dict[int, str]:
        return {server.process.pid: name for name, server in self.servers.items() if server.process}

    def __enter__(self) -> Fleet:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.resume(*self.servers)
        for load in self._loads:
            load.abandon()
        for client in self._clients.values():
            self.portal.run(client.close())
        self.stop()
        self.cuts.close()
        self.portal.close()

    @property
    def names(self) -> list[str]:
        return list(self.servers)

    def load(self, seed: int = 1) -> Load:
        """Clients of all members, at work."""
        endpoints = {name: server.endpoint for name, server in self.servers.items()}
        self._loads.append(Load(self.portal, endpoints, seed).start())
        return self._loads[-1]

    # --- faults of single members -------------------------------------------------------------

    def pause(self, *names: str) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP, names)

    def resume(self, *names: str) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT, names)

    def _signal(self, number: signal.Signals, names: Iterable[str]) -> None:
        for name in names:
            process = self.servers[name].process
            if process is not None and process.poll() is None:
                process.send_signal(number)

    # --- questions ----------------------------------------------------------------------------

    def client(self, name: str) -> Client:
        """A client of one member only."""
        if name not in self._clients:
            self._clients[name] = Client(self.servers[name].endpoint, timeout_s=PATIENCE_S)
        return self._clients[name]

    def forget(self, name: str) -> None:
        """The member will be found elsewhere."""
        client = self._clients.pop(name, None)
        if client is not None:
            self.portal.run(client.close())

    def told(self, name: str) -> rpc_pb2.StatusResponse | None:
        """A member's own status; None while it does not answer."""
        try:
            return self.portal.run(self.client(name).maintenance.status())
        except FAILURE:
            return None

    def until(self, what: str, true: Callable[[], bool]) -> float:
        """Asks until it is so; how many seconds that took."""
        started_s = time.monotonic()
        while not true():
            took_s = time.monotonic() - started_s
            assert took_s < WAIT_S, f"not within {WAIT_S} s: {what}\n{self.last_words()}"
            threading.Event().wait(ASK_AGAIN_S)
        return time.monotonic() - started_s

    def last_words(self) -> str:
        """The end of every member's log."""
        return "\n".join(
            f"--- {name}\n{server.log[-2500:]}" for name, server in self.servers.items()
        )

    def leader_among(self, names: Collection[str]) -> str:
        """Whom all of these follow, once they do and it is one of them."""
        found = ""

        def agreed() -> bool:
            nonlocal found
            told = {name: self.told(name) for name in names}
            leaders = {each.leader if each is not None else 0 for each in told.values()}
            if len(leaders) != 1:
                return False
            for name, each in told.items():
                if each is not None and each.header.member_id == each.leader:
                    found = name
                    return True
            return False

        self.until(f"{sorted(names)} agree on a leader of their own", agreed)
        return found

    def followers(self) -> list[str]:
        """All but the leader, in order."""
        leader = self.leader_among(self.names)
        return [name for name in self.names if name != leader]

    def without_leader(self, names: Sequence[str]) -> None:
        """Waits until every one of these says that it has no leader."""

        def alone() -> bool:
            told = [self.told(name) for name in names]
            return all(each is not None and each.leader == 0 for each in told)

        self.until(f"{sorted(names)} have no leader", alone)

    def whole(self) -> None:
        """Waits until all members follow one leader, then demands equal hashes of their keys.

        Nor may any of them have met with a fault of its own.
        """
        self.leader_among(self.names)

        def level() -> bool:
            told = [self.told(name) for name in self.names]
            return len({each.raftAppliedIndex if each is not None else 0 for each in told}) == 1

        self.until("all members have applied the same", level)
        hashes = {
            name: self.portal.run(self.client(name).maintenance.hash_kv(timeout_s=WAIT_S))
            for name in self.names
        }
        told = {(each.hash, each.compact_revision) for each in hashes.values()}
        assert len(told) == 1, {name: (each.hash, each.header) for name, each in hashes.items()}
        for name, server in self.servers.items():
            _, trace, what = server.log.partition("Traceback")
            assert not trace, f"{name}: {what[:3000]}"
