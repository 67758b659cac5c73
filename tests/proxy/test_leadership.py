"""Streams that require a leader: the change of one ends none of them, the want of one ends all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keyraft.base.errors import NoLeaderError
from keyraft.grpc import ClientReceiver
from keyraft.proxy.grpcproxy.leadership import LOST_S, RETRY_S, LeaderWatch


class Timer:
    def __init__(self, due_s: float, call: Callable[[], None]) -> None:
        self.due_s, self.call = due_s, call

    def cancel(self) -> None:
        self.call = lambda: None


class Cluster:
    """Stands for the upstream, its loop and its connections."""

    def __init__(self) -> None:
        self.loop = self
        self.now_s = 0.0
        self.timers: list[Timer] = []
        self.probes: list[ClientReceiver] = []
        self.over = False

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now_s + delay_s, call))
        return self.timers[-1]

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        due = [timer for timer in self.timers if timer.due_s <= self.now_s]
        self.timers = [timer for timer in self.timers if timer.due_s > self.now_s]
        for timer in due:
            timer.call()

    def when_ready(self, begin: Callable[[Any], None]) -> None:
        begin(self)

    def with_credentials(self, credentials: object, leader: bool) -> object:
        assert leader
        return ()

    def open(self, method: bytes, headers: object, receiver: ClientReceiver) -> Cluster:
        self.probes.append(receiver)
        return self

    def send(self, message: bytes) -> None: ...


class Client:
    def __init__(self) -> None:
        self.ended: tuple[int, str] | None = None
        self.metadata: Mapping[bytes, bytes] = {}

    def abort(self, code: int, text: str) -> None:
        self.ended = (code, text)


def scene() -> tuple[Cluster, LeaderWatch, Client]:
    cluster, client = Cluster(), Client()
    leader = LeaderWatch(cluster)  # type: ignore[arg-type]  # stands in
    leader.join(client)  # type: ignore[arg-type]  # stands in
    cluster.probes[-1].on_message(b"")
    return cluster, leader, client


def test_a_new_leader_in_time_ends_no_stream() -> None:
    cluster, leader, client = scene()
    cluster.probes[-1].on_end(14, NoLeaderError.text, {})
    while cluster.now_s < LOST_S - 2 * RETRY_S:
        cluster.pass_s(RETRY_S)
        cluster.probes[-1].on_end(14, NoLeaderError.text, {})
    cluster.pass_s(RETRY_S)
    cluster.probes[-1].on_message(b"")
    cluster.pass_s(10 * LOST_S)
    assert client.ended is None and not leader.lost


def test_without_a_leader_streams_end_and_none_begins_until_there_is_one() -> None:
    cluster, leader, client = scene()
    cluster.probes[-1].on_end(14, NoLeaderError.text, {})
    while cluster.now_s <= LOST_S:
        cluster.pass_s(RETRY_S)
        cluster.probes[-1].on_end(14, NoLeaderError.text, {})
    assert client.ended == (NoLeaderError.code, NoLeaderError.text) and leader.lost
    cluster.pass_s(RETRY_S)
    cluster.probes[-1].on_message(b"")
    assert not leader.lost


def test_nobody_is_asked_for_when_nobody_requires_a_leader() -> None:
    cluster, leader, client = scene()
    leader.leave(client)  # type: ignore[arg-type]  # stands in
    cluster.probes[-1].on_end(1, "", {})
    cluster.pass_s(10 * LOST_S)
    assert len(cluster.probes) == 1 and not leader.lost
