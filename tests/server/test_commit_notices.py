"""A leader's bare commit news waits for entries to carry it, but never long and never for anyone."""

from __future__ import annotations

from collections.abc import Sequence

from keyraft.raft import Entry, Message, MessageType
from keyraft.server import NoNetwork
from keyraft.server.consensus.commit_notices import HOLD_S, CommitNotices
from sim.loop import SimLoop


class Wire(NoNetwork):
    """Remembers what was sent, and when."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.sent: list[tuple[float, Message]] = []

    def send(self, messages: Sequence[Message]) -> None:
        self.sent += [(self.loop.time(), message) for message in messages]


def make() -> tuple[SimLoop, Wire, CommitNotices]:
    loop = SimLoop()
    wire = Wire(loop)
    return loop, wire, CommitNotices(loop, wire)


def news(to: int, commit: int) -> Message:
    return Message(MessageType.APP, to=to, from_=1, term=1, index=commit, commit=commit)


def entries(to: int, index: int, commit: int) -> Message:
    return Message(
        MessageType.APP,
        to=to,
        from_=1,
        term=1,
        index=index,
        entries=[Entry(1, index + 1, b"x")],
        commit=commit,
    )


def test_news_alone_is_sent_after_a_short_while_the_last_for_each_follower() -> None:
    loop, wire, notices = make()
    notices.send([news(2, 5), news(3, 5)])
    notices.send([news(2, 6)])
    assert wire.sent == []
    loop.run_until(HOLD_S * 2)
    assert [(message.to, message.commit) for _, message in wire.sent] == [(2, 6), (3, 5)]
    assert all(sent_s <= HOLD_S * 1.2 for sent_s, _ in wire.sent)


def test_entries_carry_the_news_of_their_own_follower_only() -> None:
    loop, wire, notices = make()
    notices.send([news(2, 5), news(3, 5)])
    carrier = entries(2, 5, 5)
    notices.send([carrier])
    assert [message for _, message in wire.sent] == [carrier]
    loop.run_until(HOLD_S * 2)
    assert [message.to for _, message in wire.sent] == [2, 3]


def test_each_news_waits_its_own_while_however_old_the_timer_is() -> None:
    loop, wire, notices = make()
    notices.send([news(2, 5)])
    loop.run_until(HOLD_S * 0.75)
    notices.send([entries(2, 5, 5)])
    notices.send([news(2, 6)])
    loop.run_until(HOLD_S * 1.5)
    assert len(wire.sent) == 1, "the timer of the first news must not send the second"
    loop.run_until(HOLD_S * 3)
    sent_s, last = wire.sent[-1]
    assert last.commit == 6 and HOLD_S * 1.7 <= sent_s <= HOLD_S * 1.9


def test_what_a_follower_waits_for_is_told_at_once() -> None:
    loop, wire, notices = make()
    notices.awaited(6)
    notices.send([news(2, 5)])
    assert wire.sent == [], "the commit of what came before is not awaited"
    notices.awaited(9)
    notices.send([news(2, 7), news(3, 7)])
    assert [message.commit for _, message in wire.sent] == [7, 7]
    notices.send([news(2, 9)])
    assert wire.sent[-1][1].commit == 9
    notices.send([news(2, 10)])
    assert wire.sent[-1][1].commit == 9, "nobody waits any more"
    loop.run_until(HOLD_S * 3)
    assert wire.sent[-1][1].commit == 10


def test_everything_else_passes_at_once_and_nothing_after_a_stop() -> None:
    loop, wire, notices = make()
    heartbeat = Message(MessageType.HEARTBEAT, to=2, from_=1, term=1, commit=4)
    notices.send([news(2, 5), heartbeat])
    assert [message for _, message in wire.sent] == [heartbeat]
    notices.stop()
    loop.run_until(HOLD_S * 2)
    assert len(wire.sent) == 1
