"""One member in virtual time: a log that syncs after a while and survives a crash."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from keyraft.auth import SimpleTokens
from keyraft.base.log import Logger, NullLogger
from keyraft.base.waiters import Result
from keyraft.cluster import RaftCluster, cluster_id, new_member
from keyraft.mvcc import MemoryBackend
from keyraft.mvcc.backend import META, META_CONF_STATE, META_CONSISTENT_INDEX
from keyraft.mvcc.memory import Disk, empty_disk
from keyraft.proto import rpc_pb2
from keyraft.raft import (
    ConfChange,
    Entry,
    EntryType,
    HardState,
    Snapshot,
    SnapshotMeta,
    SoftState,
    StateType,
    codec,
)
from keyraft.server import Boot, Member, MemberSettings, NoNetwork, decode_conf_state
from keyraft.server.apply import internal_request
from keyraft.server.verification import check_member
from sim.loop import SimLoop
from sim.passwords import SimPasswords

SYNC_S = 0.002

RUNNING: dict[int, OneMember] = {}
"""Those that ran in the present test; at its end everything that must hold of them does."""


def check_running() -> None:
    """Raises InvariantError. Those whose test has planted a fault are `unsound` and passed over."""
    running = list(RUNNING.values())
    RUNNING.clear()
    for one in running:
        if not one.unsound and not one.member.stopped:
            check_member(one.member)


class SimLog:
    """What is synced survives; `entries` and `state` are what a restart finds."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.entries: list[Entry] = []
        self.state = HardState()
        self.snapshot = SnapshotMeta()
        self.syncs = 0
        self.stuck = False
        self.crashed = False

    def append(
        self,
        entries: Sequence[Entry],
        hard_state: HardState | None,
        must_sync: bool,
        done: Callable[[], None],
        alone: bool = False,
    ) -> None:
        if not must_sync:
            self._keep(entries, hard_state)
            done()
            return
        if not self.stuck:
            self.loop.call_later(SYNC_S, self._synced, list(entries), hard_state, done)

    def _synced(
        self, entries: list[Entry], hard_state: HardState | None, done: Callable[[], None]
    ) -> None:
        if self.crashed:
            return
        self.syncs += 1
        self._keep(entries, hard_state)
        done()

    def _keep(self, entries: Sequence[Entry], hard_state: HardState | None) -> None:
        if entries:
            self.entries = [e for e in self.entries if e.index < entries[0].index]
            self.entries += entries
        if hard_state is not None:
            self.state = hard_state

    def save_snapshot(
        self,
        meta: SnapshotMeta,
        data: bytes,
        done: Callable[[], None],
        no_room: Callable[[], None] | None = None,
    ) -> None:
        self.snapshot = meta
        self.loop.call_later(SYNC_S, done)

    room_bytes = 1 << 30
    short = ""

    def short_of_room(self) -> str:
        return self.short

    def install(
        self, snapshot: Snapshot, hard_state: HardState | None, done: Callable[[], None]
    ) -> None:
        raise AssertionError("nobody sends snapshots to a cluster of one")


class Answers:
    """Collects the results of calls."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    def __call__(self, result: Result) -> None:
        self.results.append(result)


class OneMember:
    """A cluster of one with its disk; `crash` and `start` as often as wanted."""

    unsound = False
    """Its test has made it contradict itself."""

    def __init__(
        self,
        snapshot_count: int = 10_000,
        *,
        nospace_auto_disarm: bool = True,
        logger: Logger | None = None,
        **settings: Any,
    ) -> None:
        self.loop = SimLoop()
        self.logger = logger if logger is not None else NullLogger()
        self.log = SimLog(self.loop)
        self.disk: Disk = empty_disk()
        founder = new_member("m1", ["http://127.0.0.1:2380"], "token")
        self.settings = MemberSettings(
            member_id=founder.id,
            cluster_id=cluster_id([founder.id]),
            name="m1",
            client_urls=("http://127.0.0.1:2379",),
            snapshot_count=snapshot_count,
            snapshot_catchup_entries=50,
            nospace_auto_disarm=nospace_auto_disarm,
            **settings,
        )
        change = ConfChange(0, founder.id, founder.to_json())
        self.log.entries = [
            Entry(1, 1, codec.encode_conf_change(change), EntryType.CONF_CHANGE.value)
        ]
        self.log.state = HardState(1, 0, 1)
        self.start()

    def start(self) -> None:
        """A new life on the same disk."""
        backend = MemoryBackend(self.disk)
        self.backend = backend
        index = backend.get(META, META_CONSISTENT_INDEX)
        conf_state = backend.get(META, META_CONF_STATE)
        boot = Boot(
            hard_state=self.log.state,
            entries=[e for e in self.log.entries if e.index > self.log.snapshot.index],
            snapshot=self.log.snapshot,
            consistent_index=int.from_bytes(index, "big") if index else 0,
        )
        if conf_state:
            boot.conf_state = decode_conf_state(conf_state)
        cluster = RaftCluster(self.settings.cluster_id, self.settings.member_id, backend)  # type: ignore[arg-type]
        cluster.load()
        self.member = Member(
            self.settings,
            self.loop,
            lambda: 1_700_000_000.0 + self.loop.time(),
            random.Random(7),
            self.logger,
            backend,
            self.log,
            NoNetwork(),
            SimpleTokens(self.loop, random.Random(8)),
            SimPasswords(self.loop),
            cluster,
            boot,
        )
        self.member.start()

    def crash(self) -> None:
        """Everything not durable is gone; nothing of the old life does anything any more."""
        self.log.crashed = True
        log = SimLog(self.loop)
        log.entries, log.state, log.snapshot = self.log.entries, self.log.state, self.log.snapshot
        self.log = log
        self.disk = self.backend.crash()
        self.member.stop(lambda: None)

    def lose_leader(self) -> None:
        """The member is told that nobody leads; its Raft, alone as it is, would not do that."""
        self.unsound = True
        leadership = self.member.leadership
        leadership.follow(SoftState(0, StateType.FOLLOWER), leadership.term)

    def run(self, seconds: float = 1.0) -> None:
        """Lets virtual time pass."""
        RUNNING[id(self)] = self
        self.loop.run_until(self.loop.time() + seconds)

    def propose(self, kind: int, request: bytes) -> Answers:
        """Sends a request; its result is in the list once it is applied."""
        answers = Answers()
        self.member.propose(kind, request, answers)
        return answers

    def put(self, key: bytes, value: bytes) -> Answers:
        """A plain put."""
        request = rpc_pb2.PutRequest(key=key, value=value).SerializeToString()
        return self.propose(internal_request.KIND_PUT, request)

    def get(self, key: bytes) -> bytes | None:
        """The value now, read locally."""
        request = rpc_pb2.RangeRequest(key=key).SerializeToString()
        answer = rpc_pb2.RangeResponse.FromString(self.member.store.range(request))
        return answer.kvs[0].value if answer.kvs else None
