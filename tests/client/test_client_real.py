"""The client against the original server and ours: the calls, and what breaks in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from keyraft.client import (
    DELETE,
    PUT,
    Client,
    Space,
    delete,
    errors,
    exists,
    get,
    missing,
    nested,
    put,
    value,
    version,
)
from keyraft.client.recipes import (
    Barrier,
    DoubleBarrier,
    Election,
    Isolation,
    Lock,
    PriorityQueue,
    Queue,
    Session,
    Transaction,
    atomically,
)
from keyraft.client.recipes.election import leader, observe
from keyraft.client.recipes.lock import LockedError
from keyraft.client.sync import Client as SyncClient
from tests.client.proxy import Proxy
from tests.support.server import ORACLE, OURS, Server, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]

T = TypeVar("T")
LIMIT_S = 60.0  # a test that takes longer hangs
PatientClient = partial(Client, timeout_s=LIMIT_S)  # a busy machine may start a server for longer


@pytest.fixture(scope="module", params=["original", "ours"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server for tests that leave it standing; each uses a prefix of its own."""
    command = ORACLE if request.param == "original" else OURS
    server = Server(command, tmp_path_factory.mktemp("client") / "data")
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["original", "ours"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed and started."""
    command = ORACLE if request.param == "original" else OURS
    made = Server(command, tmp_path / "data", flags=["--bcrypt-cost=4"])
    made.start()
    yield made
    made.kill()


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, LIMIT_S))


async def surely(call: Callable[[], Awaitable[T]]) -> T:
    """Repeats what is cut off; for writes that may be done twice."""
    while True:
        try:
            return await call()
        except (errors.UnavailableError, errors.DeadlineError, errors.EtcdError):
            continue


async def restart(server: Server) -> None:
    """kill -9, and up again."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def space_of(server: Server, name: str):
    """An empty part of the shared server's keys."""
    async with PatientClient(server.endpoint) as client:
        yield client.namespace(f"{name}/")


# --- the calls ---------------------------------------------------------------------------------


def test_what_is_put_is_read_scanned_and_deleted(shared: Server) -> None:
    async def work() -> None:
        async with space_of(shared, "kv") as space:
            first = await space.put("a", "1")
            assert not first.HasField("prev_kv")
            second = await space.put("a", b"\xff\x00", prev_kv=True)
            assert second.prev_kv.key == b"a" and second.prev_kv.value == b"1"
            assert await space.value("a") == b"\xff\x00"
            assert await space.value("nosuch") is None
            old = await space.get("a", revision=first.header.revision)
            assert old.kvs[0].value == b"1"
            for name in "bcde":
                await space.put(name, name * 3)
            found = await space.get("b", "d")
            assert [kv.key for kv in found.kvs] == [b"b", b"c"]
            found = await space.get("", prefix=True, limit=2, order="descend", sort_by="key")
            assert [kv.key for kv in found.kvs] == [b"e", b"d"] and found.more
            assert found.count == 5
            found = await space.get("c", from_key=True, keys_only=True)
            assert [kv.key for kv in found.kvs] == [b"c", b"d", b"e"]
            assert not found.kvs[0].value
            found = await space.get("", prefix=True, count_only=True, serializable=True)
            assert found.count == 5 and not found.kvs
            assert [kv.key async for kv in space.scan("", prefix=True, page=2)] == [
                b"a",
                b"b",
                b"c",
                b"d",
                b"e",
            ]
            gone = await space.delete("b", "d", prev_kv=True)
            assert gone.deleted == 2 and gone.prev_kvs[1].value == b"ccc"
            assert (await space.delete("", prefix=True)).deleted == 3

    run(work())


def test_errors_have_kinds(shared: Server) -> None:
    async def work() -> None:
        async with PatientClient(shared.endpoint) as client:
            with pytest.raises(errors.EmptyKeyError):
                await client.put("", "v")
            with pytest.raises(errors.FutureRevisionError):
                await client.get("a", revision=1 << 40)
            with pytest.raises(errors.LeaseNotFoundError):
                await client.put("a", "v", lease=12345)
            with pytest.raises(errors.KeyNotFoundError):
                await client.put("nosuch", ignore_value=True)
            with pytest.raises(errors.RequestTooLargeError):
                await client.put("big", b"x" * 1_800_000)
            with pytest.raises(errors.DuplicateKeyError):
                await client.txn().then(put("a"), put("a")).commit()
            with pytest.raises(errors.MemberNotFoundError):
                await client.cluster.remove(1)

    run(work())


def test_transactions_take_the_branch_of_their_comparisons(shared: Server) -> None:
    async def work() -> None:
        async with space_of(shared, "txn") as space:
            made = space.txn().when(missing("n")).then(put("n", "1")).otherwise(get("n"))
            assert (await made.commit()).succeeded
            again = await made.commit()
            assert not again.succeeded
            assert again.responses[0].response_range.kvs[0].key == b"n"
            inner = space.txn().when(value("n") == "1").then(put("m", "2"), delete("n"))
            outer = await space.txn().when(exists("n")).then(nested(inner), get("m")).commit()
            assert outer.responses[0].response_txn.succeeded
            assert outer.responses[1].response_range.kvs[0].value == b"2"
            assert await space.value("n") is None
            both = await space.txn().when(version("m") > 0, value("m") != "3").commit()
            assert both.succeeded

    run(work())


def test_watches_tell_every_change_in_order(shared: Server) -> None:
    async def work() -> None:
        async with space_of(shared, "watch") as space:
            began = (await space.put("k0", "before")).header.revision
            async with (
                space.watch("", prefix=True, start_revision=began, prev_kv=True) as all_of_them,
                space.watch("k1") as one,
                space.watch("", prefix=True, no_put=True) as deletions,
            ):
                await space.put("k1", "a")
                await space.put("k1", "b")
                await space.delete("", prefix=True)
                seen = [await anext(all_of_them) for _ in range(5)]
                assert [event.type for event in seen] == [PUT, PUT, PUT, DELETE, DELETE]
                assert seen[2].prev_kv.value == b"a" and seen[2].kv.value == b"b"
                assert [(await anext(one)).kv.value for _ in range(3)] == [b"a", b"b", b""]
                assert {(await anext(deletions)).kv.key for _ in range(2)} == {b"k0", b"k1"}
                one.cancel()
                with pytest.raises(StopAsyncIteration):
                    await anext(one)

    run(work())


def test_a_watch_over_what_is_compacted_says_so(shared: Server) -> None:
    async def work() -> None:
        async with space_of(shared, "compacted") as space:
            for number in range(5):
                revision = (await space.put("k", str(number))).header.revision
            await space.compact(revision)
            with pytest.raises(errors.WatchCompactedError) as told:
                async with space.watch("k", start_revision=1) as watch:
                    await anext(watch)
            assert told.value.compact_revision == revision
            with pytest.raises(errors.CompactedError):
                await space.compact(revision)

    run(work())


def test_a_slow_reader_misses_nothing(shared: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyraft.client.watch.BUFFERED_EVENTS_MAX", 50)

    async def work() -> None:
        async with (
            space_of(shared, "slow") as space,
            space.watch("", prefix=True) as slow,
            space.watch("end") as quick,
        ):
            for number in range(400):
                await space.put("k", str(number))
            await space.put("end", "")
            await anext(quick)
            assert slow.paused
            seen = [int((await anext(slow)).kv.value) for _ in range(400)]
            assert seen == list(range(400))

    run(work())


def test_progress_is_told_on_request(shared: Server) -> None:
    async def work() -> None:
        async with PatientClient(shared.endpoint) as client, client.watch("progress") as watch:
            revision = (await client.put("progress", "")).header.revision
            await anext(watch)
            await watch.request_progress()
            told = await watch.next_response()
            assert told is not None and not told.events
            assert told.header.revision >= revision

    run(work())


def test_leases_are_granted_listed_renewed_and_revoked(shared: Server) -> None:
    async def work() -> None:
        async with space_of(shared, "lease") as space:
            granted = await space.leases.grant(500)
            await space.put("k", "v", lease=granted.ID)
            left = await space.leases.time_to_live(granted.ID, keys=True)
            assert left.grantedTTL == 500 and list(left.keys) == [b"k"]
            assert granted.ID in [lease.ID for lease in (await space.leases.list()).leases]
            assert (await space.leases.keep_alive_once(granted.ID)).TTL == 500
            await space.leases.revoke(granted.ID)
            assert await space.value("k") is None
            with pytest.raises(errors.LeaseNotFoundError):
                await space.leases.keep_alive_once(granted.ID)
            assert (await space.leases.time_to_live(granted.ID)).TTL == -1

    run(work())


def test_a_kept_lease_outlives_its_time_and_its_loss_is_told(shared: Server) -> None:
    async def work() -> None:
        async with PatientClient(shared.endpoint) as client, await client.leases.open(1) as lease:
            renewals = lease.keep_alive.responses()
            for _ in range(4):  # more than its time
                assert (await anext(renewals)).TTL >= 1
            await client.leases.revoke(lease.id)
            await lease.wait_lost()

    run(work())


def test_cluster_and_maintenance(shared: Server) -> None:
    async def work() -> None:
        async with PatientClient(shared.endpoint) as client:
            members = (await client.cluster.members()).members
            assert [member.name for member in members] == ["default"]
            status = await client.maintenance.status(shared.endpoint)
            assert status.leader == members[0].ID
            assert not (await client.maintenance.alarms()).alarms
            one = await client.maintenance.hash_kv()
            assert one.hash == (await client.maintenance.hash_kv(shared.endpoint)).hash
            size, left = 0, -1
            async for piece in client.maintenance.snapshot():
                size += len(piece.blob)
                left = piece.remaining_bytes
            assert left == 0 and size % 512 == 32
            assert await client.sync_endpoints() == [f"http://{shared.endpoint}"]
            assert await client.value("nosuch") is None

    run(work())


def test_the_face_without_coroutines(shared: Server) -> None:
    with SyncClient(shared.endpoint) as client:
        space = client.namespace("sync/")
        with space.watch("", prefix=True) as watch:
            assert space.put("a", "1").header.revision
            assert space.value("a") == b"1"
            assert space.txn().when(exists("a")).then(put("b", "2")).commit().succeeded
            assert [kv.key for kv in space.scan("", prefix=True)] == [b"a", b"b"]
            events = iter(watch)
            assert [next(events).kv.key for _ in range(2)] == [b"a", b"b"]
        with space.leases.open(30) as lease:
            space.put("c", "3", lease=lease.id)
        assert space.value("c") is None
        with pytest.raises(errors.EmptyKeyError):
            client.put("", "")
        assert len(client.cluster.members().members) == 1


# --- recipes -----------------------------------------------------------------------------------


def test_one_holds_the_lock_and_the_next_gets_it(shared: Server) -> None:
    async def work() -> None:
        async with space_of(shared, "lock") as space:
            held: list[str] = []

            async def contend(name: str, space: Space) -> None:
                async with Session(space, 30) as session, Lock(session, "l") as lock:
                    assert lock.held and not held
                    held.append(name)
                    answer = await space.txn().when(lock.is_owner()).then(get("x")).commit()
                    assert answer.succeeded
                    held.remove(name)

            await asyncio.gather(*(contend(str(number), space) for number in range(8)))
            assert (await space.get("l/", prefix=True)).count == 0
            async with Session(space, 30) as one, Session(space, 30) as two:
                async with Lock(one, "l"):
                    with pytest.raises(LockedError):
                        await Lock(two, "l").try_acquire()
                await Lock(two, "l").try_acquire()

    run(work())


def test_giving_up_a_wait_leaves_no_key(shared: Server) -> None:
    async def work() -> None:
        async with (
            space_of(shared, "giveup") as space,
            Session(space, 30) as first,
            Lock(first, "l"),
            Session(space, 30) as second,
        ):
            waiting = asyncio.ensure_future(Lock(second, "l").acquire())
            while (await space.get("l/", prefix=True)).count < 2:
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (await space.get("l/", prefix=True)).count == 1

    run(work())


def test_an_election_has_one_leader_at_a_time(shared: Server) -> None:
    async def work() -> None:
        async with space_of(shared, "elect") as space:
            seen = observe(space, "e")
            async with Session(space, 30) as one, Session(space, 30) as two:
                first, second = Election(one, "e"), Election(two, "e")
                await first.campaign("one")
                assert (await anext(seen)).value == b"one"
                standing = asyncio.ensure_future(second.campaign("two"))
                await first.proclaim("uno")
                assert (await anext(seen)).value == b"uno"
                await first.resign()
                await standing
                assert (await anext(seen)).value == b"two"
                found = await leader(space, "e")
                assert found is not None and found.value == b"two"
            assert await leader(space, "e") is None
            await seen.aclose()  # type: ignore[attr-defined]  # a generator, as an iterator

    run(work())


@pytest.mark.parametrize("isolation", [Isolation.SERIALIZABLE_SNAPSHOT, Isolation.SERIALIZABLE])
def test_money_is_neither_made_nor_lost(shared: Server, isolation: Isolation) -> None:
    async def work() -> None:
        async with space_of(shared, f"stm-{isolation.name}") as space:
            for name in "abc":
                await space.put(name, "100")

            async def move(source: str, target: str) -> None:
                async def step(memory: Transaction) -> None:
                    have = int(await memory.get(source) or b"0")
                    memory.put(source, str(have - 1))
                    memory.put(target, str(int(await memory.get(target) or b"0") + 1))

                for _ in range(5):
                    await atomically(space, step, isolation)

            await asyncio.gather(*(move(a, b) for a, b in ("ab", "bc", "ca", "ba", "cb", "ac")))
            kvs = (await space.get("", prefix=True)).kvs
            assert [int(kv.value) for kv in kvs] == [100, 100, 100]

    run(work())


def test_queues_give_each_element_once(shared: Server) -> None:
    async def work() -> None:
        async with space_of(shared, "queue") as space:
            queue = Queue(space, "q")
            takers = [asyncio.ensure_future(queue.get()) for _ in range(20)]
            for number in range(20):
                await queue.put(f"{number:02}")
            taken = await asyncio.gather(*takers)
            assert sorted(taken) == [b"%02d" % number for number in range(20)]
            for number in range(5):
                await queue.put(str(number))
            assert [await queue.get() for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
            assert await queue.get_nowait() is None
            ranked = PriorityQueue(space, "p")
            for priority in (5, 1, 3, 1):
                await ranked.put(f"p{priority}", priority)
            assert [await ranked.get() for _ in range(4)] == [b"p1", b"p1", b"p3", b"p5"]

    run(work())


def test_barriers_hold_until_all_may_go(shared: Server) -> None:
    async def work() -> None:
        async with space_of(shared, "barrier") as space:
            barrier = Barrier(space, "b")
            await barrier.hold()
            waiting = [asyncio.ensure_future(barrier.wait()) for _ in range(3)]
            await space.put("other", "")
            assert not any(task.done() for task in waiting)
            await barrier.release()
            await asyncio.gather(*waiting)

            async def part(number: int) -> None:
                async with Session(space, 30) as session:
                    double = DoubleBarrier(session, "d", 3)
                    await double.enter()
                    entered.append(number)
                    await double.leave()
                    assert len(entered) == 3

            entered: list[int] = []
            await asyncio.gather(*(part(number) for number in range(3)))

    run(work())


# --- what breaks -------------------------------------------------------------------------------


def test_a_watch_goes_on_after_the_server_was_killed(server: Server) -> None:
    async def work() -> None:
        async with PatientClient(server.endpoint) as client, client.watch("k") as watch:
            for number in range(30):
                if number in (10, 20):
                    await restart(server)
                await surely(partial(client.put, "k", str(number)))
            seen: list[int] = []
            revisions: list[int] = []
            while not seen or seen[-1] < 29:
                event = await anext(watch)
                seen.append(int(event.kv.value))
                revisions.append(event.kv.mod_revision)
            assert sorted(set(revisions)) == revisions, "repeated or out of order"
            assert list(dict.fromkeys(seen)) == list(range(30)), "lost"

    run(work())


def test_watches_locks_and_leases_outlive_cut_connections(server: Server) -> None:
    async def work() -> None:
        async with (
            Proxy(server.client_port) as proxy,
            PatientClient(proxy.endpoint) as client,
            PatientClient(server.endpoint) as direct,
            client.watch("k") as watch,
            Session(client, 5) as session,
            Lock(session, "l") as lock,
        ):
            seen: list[int] = []
            for number in range(40):
                if number % 8 == 4:
                    proxy.cut()
                await direct.put("k", str(number))
                if number % 8 == 7:
                    while not seen or seen[-1] < number:
                        seen.append(int((await anext(watch)).kv.value))
            assert seen == list(range(40))
            assert lock.held and not session.lost
            assert proxy.connections >= 5
            left = await direct.leases.time_to_live(session.lease.id)
            assert left.TTL > 0
        async with PatientClient(server.endpoint) as direct:
            assert (await direct.get("l/", prefix=True)).count == 0

    run(work())


def test_a_silent_connection_is_given_up(server: Server) -> None:
    async def work() -> None:
        async with (
            Proxy(server.client_port) as proxy,
            PatientClient(
                proxy.endpoint, server.endpoint, keepalive_s=0.3, keepalive_timeout_s=0.3
            ) as client,
            PatientClient(server.endpoint) as direct,
        ):
            for _ in range(2):
                await client.get("k")  # both endpoints are connected
            watches = [client.watch("k", start_revision=1) for _ in range(2)]
            async with watches[0], watches[1]:
                proxy.hold()
                await direct.put("k", "through")
                for watch in watches:
                    assert (await anext(watch)).kv.value == b"through"
            proxy.flow()

    run(work())


def test_a_cancelled_wait_releases_the_lock_though_the_server_is_away(server: Server) -> None:
    async def work() -> None:
        async with (
            Proxy(server.client_port) as proxy,
            PatientClient(proxy.endpoint, timeout_s=0.5) as client,
            PatientClient(server.endpoint) as direct,
            Session(direct, 60) as holder,
            Lock(holder, "l"),
            Session(client, 60) as session,
        ):
            waiting = asyncio.ensure_future(Lock(session, "l").acquire())
            while (await direct.get("l/", prefix=True)).count < 2:
                await asyncio.sleep(0)
            proxy.hold()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            proxy.cut()
            proxy.flow()
            while (await direct.get("l/", prefix=True)).count > 1:
                await asyncio.sleep(0.01)

    run(work())


def test_calls_go_to_the_endpoint_that_answers(server: Server) -> None:
    async def work() -> None:
        async with (
            Proxy(server.client_port) as one,
            Proxy(server.client_port) as two,
            PatientClient("127.0.0.1:1", one.endpoint, two.endpoint) as client,
        ):
            for number in range(20):
                if number % 5 == 0:
                    (one if number % 2 else two).cut()
                await client.get("k")
            assert one.connections and two.connections

    run(work())


def test_writes_are_not_repeated_unless_surely_not_sent(server: Server) -> None:
    async def work() -> None:
        async with (
            Proxy(server.client_port) as proxy,
            PatientClient(proxy.endpoint, timeout_s=3) as client,
            PatientClient(server.endpoint) as direct,
        ):
            await client.put("k", "")
            before = (await direct.get("k")).kvs[0].version
            failed = 0
            for _ in range(20):
                work = asyncio.ensure_future(client.put("k", ""))
                await asyncio.sleep(0)
                proxy.cut()
                try:
                    await work
                except errors.UnavailableError:
                    failed += 1
            after = (await direct.get("k")).kvs[0].version
            assert 20 - failed <= after - before <= 20

    run(work())


def test_deadlines_end_calls(server: Server) -> None:
    async def work() -> None:
        async with Proxy(server.client_port) as proxy, PatientClient(proxy.endpoint) as client:
            await client.get("k")
            proxy.hold()
            for call in (client.get("k", timeout_s=0.2), client.put("k", timeout_s=0.2)):
                with pytest.raises(errors.DeadlineError):
                    await call
            proxy.flow()
            assert await client.value("nosuch") is None
        async with PatientClient("127.0.0.1:1", timeout_s=0.2) as client:
            with pytest.raises(errors.DeadlineError):
                await client.put("k", "")

    run(work())


def test_users_and_their_tokens(server: Server) -> None:
    async def work() -> None:
        async with PatientClient(server.endpoint) as client:
            assert not (await client.auth.status()).enabled
            await client.auth.role_add("reader")
            await client.auth.role_grant("reader", "read", "open/", prefix=True)
            for user in ("root", "guest"):
                await client.auth.user_add(user, "secret")
            await client.auth.role_add("root")
            await client.auth.user_grant_role("root", "root")
            await client.auth.user_grant_role("guest", "reader")
            await client.auth.enable()
            with pytest.raises(errors.UserEmptyError):
                await client.get("open/a")
        with pytest.raises(errors.AuthFailedError):
            async with PatientClient(server.endpoint, user="guest", password="wrong") as wrong:
                await wrong.get("open/a")
        async with (
            PatientClient(server.endpoint, user="root", password="secret") as root,
            PatientClient(server.endpoint, user="guest", password="secret") as guest,
        ):
            await root.put("open/a", "1")
            async with guest.watch("open/", prefix=True) as watch:
                assert await guest.value("open/a") == b"1"
                with pytest.raises(errors.PermissionDeniedError):
                    await guest.put("open/a", "2")
                with pytest.raises(errors.PermissionDeniedError):
                    async with guest.watch("closed") as refused:
                        await anext(refused)
                await restart(server)  # which forgets all simple tokens
                assert await guest.value("open/a") == b"1"
                await root.put("open/a", "3")
                assert (await anext(watch)).kv.value == b"3"
            token = (await root.auth.authenticate("guest", "secret")).token
            async with PatientClient(server.endpoint, token=token) as bearer:
                assert await bearer.value("open/a") == b"3"
            assert list((await root.auth.user_get("guest")).roles) == ["reader"]
            await root.auth.disable()

    run(work())
