"""Clients of a real cluster, what they saw, and whether any order explains it.

Every client does one thing at a time at a member of its choice: put, delete, compare-and-swap,
linearizable get. A write that failed in whatever way has an unknown outcome, and its client goes
on under a new number. At the end the store itself settles most of them: a watch from the first
revision on lists everything that ever happened, each value is written by one operation only, so
an unknown write either got the revision under which its value is listed, or never happened
(etcd's robustness tests do the same). What other programs wrote enters the history as writes that
nobody waited for. One client watches all the time; it must have seen the same list.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from random import Random
from typing import Any

from keyraft.client import Client, errors, mod_revision, put
from keyraft.client.sync import Portal
from keyraft.proto import mvcc_pb2
from sim.linearizability import NEVER, Operation, linearizable
from sim.model import EMPTY, step
from sim.watches import Event, EventBatch, check_watch

KEYS = ("a", "b", "c", "d")
CLIENTS = 6
PATIENCE_S = 1.0  # a client waits so long for one answer
SHUN_S = 3.0  # and comes back so seldom to a member that did not give it
PAUSE_S = 0.04  # between two operations of a client, on average
WAIT_S = 120.0  # until something that must happen has not happened
ALL = "\0"  # the range from here on is every key
FOREIGN = 10_000_000  # the client number of writes by others

FAILURE = (errors.EtcdError, errors.RawError)


class Load:
    """Six clients and a watcher, at work from `start` to `stop`. Used from the test's thread."""

    def __init__(
        self,
        portal: Portal,
        endpoints: Mapping[str, str],
        seed: int = 1,
        connect: Callable[..., Client] = Client,
        numbers: Iterable[int] = range(CLIENTS),
    ) -> None:
        """`connect` makes a client of some endpoints: one that shows what they ask for.

        `numbers`: a client each; those of two loads must differ modulo CLIENTS.
        """
        self._portal = portal
        self._connect = connect
        self._numbers = tuple(numbers)
        self._endpoints = dict(endpoints)
        self._chance = Random(seed)
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []
        self._news = threading.Condition()
        self.history: list[Operation] = []
        self.seen: list[EventBatch] = []
        self.acknowledged: Counter[str] = Counter()
        self.ended = 0  # operations, whatever became of them

    # --- the test's side ----------------------------------------------------------------------

    def start(self) -> Load:
        """Sets the clients going."""
        self._portal.run(self._start())
        return self

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            chance = Random(self._chance.randrange(1 << 30))
            self._tasks.append(loop.create_task(self._work(number, chance)))
        self._watching = loop.create_task(self._watch())

    def stop(self) -> None:
        """Lets every client finish what it does."""
        self._ending = True
        self._portal.run(self._wait())

    async def _wait(self) -> None:
        await asyncio.gather(*self._tasks)

    def abandon(self) -> None:
        """Ends everything at once; harmless after the end."""
        self._ending = True
        self._portal.run(self._cancel())

    async def _cancel(self) -> None:
        tasks = [*self._tasks, self._watching]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __str__(self) -> str:
        unknown = sum(not operation.known for operation in self.history)
        return f"{len(self.history)} operations, {unknown} of unknown outcome"

    def wait_ended(self, count: int) -> None:
        """Until `count` operations more have been answered, refused or given up."""
        wanted = self.ended + count
        with self._news:
            assert self._news.wait_for(lambda: self.ended >= wanted or self._failed(), WAIT_S)
        assert not self._failed(), "a client has failed"

    def wait_acknowledged(self, count: int, *names: str) -> None:
        """Until the members called `names` (any of them) have answered `count` writes more."""
        wanted = sum(self.acknowledged[name] for name in names) + count

        def there() -> bool:
            return sum(self.acknowledged[name] for name in names) >= wanted or self._failed()

        with self._news:
            assert self._news.wait_for(there, WAIT_S), f"no more answers of {names}"
        assert not self._failed(), "a client has failed"

    def _failed(self) -> bool:
        return any(task.done() and not self._ending for task in self._tasks)

    def check(self, *others: Load) -> None:
        """Judges clients and watcher; the cluster must be whole, `stop` called.

        `others`: loads of the same cluster, whose clients belong to the same history.
        """
        truth, revision = self._portal.run(self._truth())
        for other in others:
            self.history += other.history
            self._portal.run(other._end_watch(revision))
            check_watch([told for told, _ in truth], other.seen, 2, revision)
        self._portal.run(self._end_watch(revision))
        check_watch([told for told, _ in truth], self.seen, 2, revision)
        history, model = settled(self.history, [told for told, _ in truth])
        assert linearizable(history, EMPTY, model), f"no order explains what they saw: {history}"

    # --- the loop's side ----------------------------------------------------------------------

    async def _truth(self) -> tuple[list[tuple[Event, mvcc_pb2.Event]], int]:
        async with self._connect(*self._endpoints.values(), timeout_s=WAIT_S) as client:
            revision = (await client.get("a")).header.revision
            events: list[tuple[Event, mvcc_pb2.Event]] = []
            if revision > 1:
                async with client.watch(ALL, from_key=True, start_revision=2) as watch:
                    async for event in watch:
                        events.append((event_of(event), event))
                        if event.kv.mod_revision == revision:
                            break
            return events, revision

    async def _watch(self) -> None:
        async with (
            self._connect(*self._endpoints.values()) as client,
            client.watch(ALL, from_key=True, start_revision=2) as watch,
        ):
            async for response in watch.responses():
                if response.events:
                    told = [event_of(event) for event in response.events]
                    self.seen.append(EventBatch(told, response.fragment))

    async def _end_watch(self, revision: int) -> None:
        """Once the watcher has been told of everything."""
        async with asyncio.timeout(WAIT_S):
            while revision > 1 and not (
                self.seen and self.seen[-1].events[-1].revision >= revision
            ):
                assert not self._watching.done(), "the watcher has failed"
                await asyncio.sleep(PAUSE_S)
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _work(self, number: int, chance: Random) -> None:
        clients = {
            name: self._connect(endpoint, timeout_s=PATIENCE_S)
            for name, endpoint in self._endpoints.items()
        }
        try:
            await self._operate(number, chance, clients)
        finally:
            for client in clients.values():
                await client.close()

    async def _operate(self, number: int, chance: Random, clients: dict[str, Client]) -> None:
        loop = asyncio.get_running_loop()
        identity, values = number, 0
        mods: dict[str, int] = {}
        shunned_s = dict.fromkeys(clients, float("-inf"))
        while not self._ending:
            await asyncio.sleep(chance.random() * 2 * PAUSE_S)
            now_s = loop.time()
            well = [name for name in clients if now_s - shunned_s[name] > SHUN_S]
            name = chance.choice(well or list(clients))
            key, kind = chance.choice(KEYS), chance.random()
            values += 1
            value = f"{identity}-{values}"
            call: tuple[Any, ...]
            if kind < 0.4:
                call = ("get", key)
            elif kind < 0.7:
                call = ("put", key, value)
            elif kind < 0.8:
                call = ("delete", key)
            else:
                call = ("cas", key, mods.get(key, 0), value)
            operation = Operation(identity, loop.time(), NEVER, call)
            self.history.append(operation)
            try:
                operation.output = await ask(clients[name], call)
            except FAILURE:
                shunned_s[name] = loop.time()
                identity += CLIENTS  # what is under way may still happen
                if call[0] == "get":
                    self.history.remove(operation)  # a read that nobody saw says nothing
            else:
                operation.return_s = loop.time()
                if call[0] == "get":
                    mods[key] = operation.output[3]
                else:
                    self.acknowledged[name] += 1
            with self._news:
                self.ended += 1
                self._news.notify_all()


async def ask(client: Client, call: tuple[Any, ...]) -> Any:
    """One operation of `sim.model`; its output."""
    key = call[1]
    if call[0] == "get":
        found = await client.get(key)
        revision = found.header.revision
        if not found.kvs:
            return ("kv", revision, None, 0, 0)
        kv = found.kvs[0]
        return ("kv", revision, kv.value.decode(), kv.mod_revision, kv.version)
    if call[0] == "put":
        return ("rev", (await client.put(key, call[2])).header.revision)
    if call[0] == "delete":
        gone = await client.delete(key)
        return ("rev", gone.header.revision, gone.deleted)
    done = await client.txn().when(mod_revision(key) == call[2]).then(put(key, call[3])).commit()
    return ("rev", done.header.revision, done.succeeded)


def event_of(event: mvcc_pb2.Event) -> Event:
    """An event as `sim.watches` has it."""
    gone = event.type == mvcc_pb2.Event.DELETE
    value = None if gone else event.kv.value.decode()
    return Event(event.kv.mod_revision, event.kv.key.decode(), value)


def settled(
    history: Iterable[Operation], truth: Iterable[Event]
) -> tuple[list[Operation], Callable[[Hashable, Any, Any], Iterable[Hashable]]]:
    """The history with its unknown writes settled by what happened, and the model to judge it by.

    Unknown deletions cannot be told apart; the model lets them happen only at revisions at which
    their key was deleted and that no known deletion claims.
    """
    told = list(truth)
    revisions = {(event.key, event.value): event.revision for event in told}
    claimed: set[int] = set()
    kept: list[Operation] = []
    for operation in history:
        call = operation.input
        if operation.known:
            if call[0] != "get" and operation.output[-1]:
                claimed.add(operation.output[1])
        elif call[0] in ("put", "cas"):
            found = revisions.get((call[1], call[-1]))
            if found is None:
                continue
            operation.output = ("rev", found) if call[0] == "put" else ("rev", found, True)
            claimed.add(found)
        kept.append(operation)
    for event in told:
        if event.value is not None and event.revision not in claimed:
            write = ("put", event.key, event.value)
            kept.append(Operation(FOREIGN, 0.0, NEVER, write, ("rev", event.revision)))
    free = {
        (event.key, event.revision)
        for event in told
        if event.value is None and event.revision not in claimed
    }

    def model(state: Hashable, call: Any, output: Any) -> Iterable[Hashable]:
        if output is not None or call[0] != "delete":
            return step(state, call, output)
        assert isinstance(state, tuple)
        after = [other for other in step(state, call, output) if other != state]
        return after if (call[1], state[0] + 1) in free else ()

    return kept, model
