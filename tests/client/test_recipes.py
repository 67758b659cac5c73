"""Locks, elections and barriers when the session ends, or an answer is lost, at each of their steps.

A recipe runs once undisturbed, to count its calls; then once for each side of each call with the
lease revoked at that moment. The client does not hear of it. Whoever then believes to hold or to
lead must have the oldest key on the server, in the life of it that it made itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from keyraft.client import errors
from keyraft.client.recipes import Barrier, DoubleBarrier, Election, Lock, Session, claim
from keyraft.client.recipes.election import NotLeaderError
from keyraft.client.recipes.lock import LockedError
from keyraft.client.transport import CallFailed
from keyraft.proto import rpc_pb2
from tests.client.simulated import SimulatedConnection, SimulatedServer

T = TypeVar("T")
LIMIT_S = 60.0
SESSION_S = 600  # no lease ends by itself here
LOST = (errors.LeaseLostError, errors.LeaseNotFoundError, NotLeaderError)
TXN = "/etcdserverpb.KV/Txn"


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, LIMIT_S))


async def settle() -> None:
    """Every task goes on as far as it can."""
    for _ in range(100):
        await asyncio.sleep(0)


class Moments:
    """Calls `act` at one side of one call on a connection, and counts the sides."""

    def __init__(self, connection: SimulatedConnection, at: int, act: Callable[[], None]) -> None:
        self.seen = 0
        self._at = at
        self._act = act
        connection.before = connection.after = self._pass

    async def _pass(self, method: str, request: bytes) -> None:
        if self._at == self.seen:
            self._act()
        self.seen += 1


class LockContender:
    """A lock as the scenes below see it."""

    def __init__(self, session: Session) -> None:
        self._lock = Lock(session, "x")

    async def contend(self) -> None:
        await self._lock.acquire()
        assert self._lock.held

    async def leave(self) -> None:
        await self._lock.release()

    @property
    def revision(self) -> int:
        return self._lock.revision


class Candidate:
    """An election as the scenes below see it."""

    def __init__(self, session: Session) -> None:
        self._election = Election(session, "x")

    async def contend(self) -> None:
        await self._election.campaign("me")

    async def leave(self) -> None:
        await self._election.resign()

    @property
    def revision(self) -> int:
        return self._election.revision


Contender = type[LockContender] | type[Candidate]


async def wait_in_line(kind: Contender, at: int) -> tuple[bool, int]:
    """A session waits behind a holder that goes; its lease is revoked at moment `at`.

    Whether it believes to be first afterwards, and how many moments there were.
    """
    server = SimulatedServer()
    own = SimulatedConnection(server)
    async with (
        SimulatedConnection(server).client() as others,
        own.client() as client,
        Session(others, SESSION_S) as first,
        Session(client, SESSION_S) as session,
    ):
        holder, contender = kind(first), kind(session)
        await holder.contend()
        lease_id = session.lease.id
        moments = Moments(own, at, lambda: server.revoke(lease_id))
        waiting = asyncio.ensure_future(contender.contend())
        await settle()
        assert not waiting.done() or at >= 0
        await holder.leave()
        await settle()
        seen = moments.seen
        try:
            await waiting
        except LOST:
            assert not contender.revision
            return False, seen
        oldest = server.keys(b"x/")[0]
        assert (oldest.lease, oldest.create_revision) == (lease_id, contender.revision)
        return True, seen


@pytest.mark.parametrize("kind", [LockContender, Candidate])
def test_who_lost_its_session_while_it_waited_is_not_first(kind: Contender) -> None:
    async def work() -> None:
        believed, moments = await wait_in_line(kind, -1)
        assert believed and moments >= 8, moments
        # Revoked behind the last look at its own key, nobody can know.
        outcomes = [(await wait_in_line(kind, at))[0] for at in range(moments - 1)]
        assert not any(outcomes), outcomes

    run(work())


@pytest.mark.parametrize("kind", [LockContender, Candidate])
def test_a_key_made_by_another_life_of_the_session_is_not_believed(kind: Contender) -> None:
    """Behind a waiter's back its key is deleted, and made anew by the same lease."""

    async def work() -> None:
        server = SimulatedServer()
        own, again = SimulatedConnection(server), SimulatedConnection(server)
        async with (
            SimulatedConnection(server).client() as others,
            own.client() as client,
            again.client() as clone,
            Session(others, SESSION_S) as first,
            Session(client, SESSION_S) as session,
        ):
            holder, contender = kind(first), kind(session)
            await holder.contend()
            waiting = asyncio.ensure_future(contender.contend())
            await settle()
            key = b"x/%x" % session.lease.id
            server.delete(key)
            await clone.put(key, lease=session.lease.id)
            await holder.leave()
            with pytest.raises(errors.LeaseLostError):
                await waiting
            assert server.keys(b"x/"), "the later key is not the waiter's to delete"

    run(work())


class Losing:
    """Loses the answers of transactions that delete, which are carried out, or held back."""

    def __init__(self, connection: SimulatedConnection, *, late: bool) -> None:
        self.heard = asyncio.Event()
        self.late: list[bytes] = []
        self._late = late
        self._gone = 0
        connection.before = self._before
        connection.after = self._after
        self.losing = False

    @staticmethod
    def _deletes(request: bytes) -> bool:
        operations = rpc_pb2.TxnRequest.FromString(request).success
        return any(one.HasField("request_delete_range") for one in operations)

    async def _before(self, method: str, request: bytes) -> None:
        if self.losing and self._late and method == TXN and self._deletes(request):
            self.late.append(request)
            raise CallFailed(errors.UNAVAILABLE, "held back on the way")

    async def _after(self, method: str, request: bytes) -> None:
        if self.losing and not self._late and method == TXN and self._deletes(request):
            raise CallFailed(errors.UNAVAILABLE, "the answer was lost")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", [LockContender, Candidate])
def test_a_late_release_does_not_take_the_next_life_of_the_key(
    kind: Contender, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "RETRY_S", 0.0)

    async def work() -> None:
        server = SimulatedServer()
        own = SimulatedConnection(server)
        async with own.client() as client, Session(client, SESSION_S) as session:
            old, new = kind(session), kind(session)
            await old.contend()
            losing = Losing(own, late=late)
            losing.losing = True
            await old.leave()
            contending = asyncio.ensure_future(new.contend())
            await settle()
            assert not contending.done(), "the old key's end is not known yet"
            losing.losing = False
            await contending
            await settle()
            for request in losing.late:
                server.begin(TXN, request)
                server.step()
            key = server.keys(b"x/")[0]
            assert key.create_revision == new.revision
            await new.leave()
            assert not server.keys(b"x/")

    run(work())


def test_two_users_of_a_session_share_its_key_until_both_have_left() -> None:
    async def work() -> None:
        server = SimulatedServer()
        async with (
            SimulatedConnection(server).client() as client,
            Session(client, SESSION_S) as session,
            Lock(session, "x") as one,
        ):
            async with Lock(session, "x") as two:
                assert one.revision == two.revision
            assert one.held and server.keys(b"x/")
            await one.release()
            assert not server.keys(b"x/") and not one.held

    run(work())


@pytest.mark.parametrize("at", [0, 1])
def test_a_cancelled_contender_leaves_no_key_whatever_it_had_heard(at: int) -> None:
    """Cancelled before its first call is carried out, and behind it without the answer."""

    async def work() -> None:
        server = SimulatedServer()
        own = SimulatedConnection(server)
        async with own.client() as client, Session(client, SESSION_S) as session:
            lock = Lock(session, "x")
            contending = asyncio.ensure_future(lock.acquire())
            moments = Moments(own, at, contending.cancel)
            with pytest.raises(asyncio.CancelledError):
                await contending
            assert moments.seen > at
            assert not server.keys(b"x/")

    run(work())


def test_acquiring_twice_by_mistake_keeps_the_lock() -> None:
    async def work() -> None:
        server = SimulatedServer()
        async with (
            SimulatedConnection(server).client() as client,
            Session(client, SESSION_S) as session,
            Lock(session, "x") as lock,
        ):
            with pytest.raises(RuntimeError):
                await lock.acquire()
            assert lock.held and server.keys(b"x/")

    run(work())


def test_nothing_is_held_after_the_session_or_with_no_key() -> None:
    async def work() -> None:
        server = SimulatedServer()
        async with SimulatedConnection(server).client() as client:
            async with Session(client, SESSION_S) as session:
                lock = Lock(session, "x")
                never = await client.txn().when(lock.is_owner()).commit()
                assert not never.succeeded
                await lock.acquire()
                other = Session(client, SESSION_S)
                async with other:
                    waiting = asyncio.ensure_future(Lock(other, "x").acquire())
                    await settle()
                with pytest.raises(errors.ClosedError):
                    await waiting
                with pytest.raises(LockedError):
                    async with Session(client, SESSION_S) as third:
                        await Lock(third, "x").try_acquire()
            assert session.lost and not lock.held
            with pytest.raises(errors.ClosedError):
                await lock.acquire()

    run(work())


def test_a_barrier_released_late_leaves_the_next_one_closed() -> None:
    async def work() -> None:
        server = SimulatedServer()
        async with SimulatedConnection(server).client() as client:
            one, two = Barrier(client, "x/b"), Barrier(client, "x/b")
            await one.hold()
            await Barrier(client, "x/b").release()  # by somebody who holds nothing: opens it
            await two.hold()
            await one.release()
            assert server.keys(b"x/"), "the second hold is not the first one's to end"
            await two.release()
            assert not server.keys(b"x/")

    run(work())


async def meet(at: int) -> tuple[bool, int]:
    """Two meet at a barrier; the first one's lease is revoked at moment `at`, and a third comes."""
    server = SimulatedServer()
    own = SimulatedConnection(server)
    async with (
        SimulatedConnection(server).client() as others,
        own.client() as client,
        Session(client, SESSION_S) as session,
        Session(others, SESSION_S) as second,
        Session(others, SESSION_S) as third,
    ):
        lease_id = session.lease.id
        first = DoubleBarrier(session, "x", 2)
        moments = Moments(own, at, lambda: server.revoke(lease_id))
        entering = [asyncio.ensure_future(first.enter())]
        await settle()
        for one in (second, third)[: 1 if at < 0 else 2]:
            entering.append(asyncio.ensure_future(DoubleBarrier(one, "x", 2).enter()))
            await settle()
        seen = moments.seen
        try:
            await entering[0]
            entered = True
        except LOST:
            entered = False
        for task in entering:
            task.cancel()
        await asyncio.gather(*entering, return_exceptions=True)
        return entered, seen


def test_who_lost_its_session_has_not_entered() -> None:
    async def work() -> None:
        entered, moments = await meet(-1)
        assert entered and moments >= 4, moments
        # Revoked behind the last look at its own key, nobody can know.
        outcomes = [(await meet(at))[0] for at in range(moments - 1)]
        assert not any(outcomes), outcomes

    run(work())


def test_a_round_s_end_does_not_end_the_next() -> None:
    """A party that leaves late deletes the `ready` that let it in and no later one."""

    async def work() -> None:
        server = SimulatedServer()
        slow = SimulatedConnection(server)
        async with (
            SimulatedConnection(server).client() as others,
            slow.client() as client,
            Session(client, SESSION_S) as one,
            Session(others, SESSION_S) as two,
        ):
            first, second = DoubleBarrier(one, "x", 2), DoubleBarrier(two, "x", 2)
            await asyncio.gather(first.enter(), second.enter())
            server.delete(b"x/ready")
            await others.put("x/ready", "of the next round")
            leaving = asyncio.gather(first.leave(), second.leave())
            await leaving
            assert [kv.key for kv in server.keys(b"x/")] == [b"x/ready"]

    run(work())


class SleepyLoop(asyncio.SelectorEventLoop):
    """A loop whose program stands still at times: the clock goes on without it."""

    asleep_s = 0.0

    def time(self) -> float:
        return super().time() + self.asleep_s


def test_an_answer_that_lay_in_a_buffer_too_long_does_not_prolong_a_lease() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SleepyLoop)
        server = SimulatedServer()
        own = SimulatedConnection(server)
        async with own.client() as client:
            lease = await client.leases.open(10)
            while not own.streams:
                await asyncio.sleep(0)
            stream = own.streams[0]
            await settle()  # renewed, and the answer read
            assert not lease.lost
            stream.hold()
            loop.asleep_s += 4.0  # a third of its time: it is renewed
            while not stream.held:
                await asyncio.sleep(0.01)
            loop.asleep_s += 10.5
            stream.flow()
            await settle()
            assert lease.lost
            await asyncio.wait_for(lease.wait_lost(), 5)

    with asyncio.Runner(loop_factory=SleepyLoop) as runner:
        runner.run(asyncio.wait_for(work(), LIMIT_S))


def test_a_lease_is_lost_in_the_moment_in_which_its_time_is_over() -> None:
    """Nobody has to run first to find out."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SleepyLoop)
        server = SimulatedServer()
        async with (
            SimulatedConnection(server).client() as client,
            Session(client, 10) as session,
            Lock(session, "x") as lock,
        ):
            assert lock.held
            loop.asleep_s += 11.0
            assert session.lost and not lock.held

    with asyncio.Runner(loop_factory=SleepyLoop) as runner:
        runner.run(asyncio.wait_for(work(), LIMIT_S))


def test_progress_asked_for_before_there_is_a_stream_is_told() -> None:
    """Also when the watch has to catch up first: the question waits until it was created."""

    async def work() -> None:
        server = SimulatedServer()
        async with SimulatedConnection(server).client() as client:
            await client.put("k", "1")
            for start_revision in (0, 1):
                watch = client.watch("k", start_revision=start_revision)
                await watch.request_progress()
                async with watch:
                    while (response := await watch.next_response()) is not None:
                        if not response.events:
                            break
                assert response is not None and response.header.revision == 2

    run(work())
