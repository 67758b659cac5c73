"""Databases on their way between simulated members, as `app.snapshot_transfers` moves real ones."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Final

from keyraft.mvcc import MemoryBackend
from keyraft.mvcc.backend import META, META_CONF_STATE, OWN
from keyraft.raft import Message
from keyraft.raft.errors import StorageError
from keyraft.server import Member
from keyraft.shell.database_reception import sent_snapshot
from keyraft.storage.backend.memory import Disk
from sim.databases import consistent_index, copied

if TYPE_CHECKING:
    from sim.node import Node

OVERHEARD: Final = 0.3  # of the messages that come with a database
LOOK_S: Final = 1.0  # between two looks whether the receiver still lives


class SimTransfers:
    """Of one machine, both directions."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._taking_in: Member | None = None  # the life that takes in a leader's database

    def send(self, message: Message) -> None:
        """Commits, copies, sends; Raft is told what became of it."""
        member, backend = self._node.member, self._node.backend
        assert member is not None and backend is not None

        def committed() -> None:
            content = copied(self._node.databases.own)
            content[OWN] = {}
            conf_state = content[META][META_CONF_STATE]
            try:
                index = consistent_index(content)
                message.snapshot = sent_snapshot(member, index, conf_state, content)
            except StorageError:
                self._report(message.to, False)
                return
            self._node.loop.call_later(
                0.01 + self._node.chance.random() * 0.2, self._arrive, message, content
            )

        backend.flush(committed)

    def _arrive(self, message: Message, content: Disk) -> None:
        target = self._node.nodes.get(message.to)
        if (
            target is None
            or not target.running
            or not self._node.network.reachable(self._node.id, message.to)
            or not self._node.network.reachable(message.to, self._node.id)
        ):
            self._report(message.to, False)
            return
        if self._node.chance.random() < OVERHEARD:
            target.transfers.overhear(message)
        target.transfers.take_in(message, content, lambda ok: self._report(message.to, ok))

    def overhear(self, message: Message) -> None:
        """The message comes without its database, as nobody but a liar sends it."""

        def process() -> None:
            if self._node.inbox is not None:
                self._node.inbox.process([copy(message)])

        self._node._loop.call_soon(process)

    def take_in(self, message: Message, content: Disk, told: Callable[[bool], None]) -> None:
        """Builds and reads a database that has come, then tells Raft, as `app.peer_port` does."""
        member, inbox, reception = self._node.member, self._node.inbox, self._node.reception
        if member is None or inbox is None or member.stopped:
            told(False)
            return
        if self._taking_in is member:  # one after the other
            self._node.loop.call_later(LOOK_S, self.take_in, message, content, told)
            return
        assert message.snapshot is not None, "it came with a database"
        index = message.snapshot.meta.index
        open_calls = [told]  # the sender's call, which ends with the member at the latest

        def done(ok: bool) -> None:
            if open_calls:
                if self._taking_in is member:
                    self._taking_in = None
                open_calls.pop()(ok)

        def build() -> None:
            content = self._node.databases.build(index)
            reception.check_built(index, consistent_index(content))
            member.received.read(index, MemoryBackend(content), read)

        def read(problem: Exception | None) -> None:
            if problem is None and open_calls and self._node.member is member:
                reception.ready(index)
                self._node.step([message])
                if not member.raft.takes_snapshot:
                    member.received.forget()
                done(True)

        def look() -> None:
            if self._node.member is not member:
                done(False)
            elif open_calls:
                self._node.loop.call_later(LOOK_S, look)

        inbox.check_snapshot(message)
        self._node.databases.save(index, content)
        try:
            reception.begin(index, member.raft.takes_snapshot)
        except ValueError:
            told(False)
            return
        self._taking_in = member
        self._node.loop.call_later(LOOK_S, look)
        self._node._loop.call_later(self._node.sync_s(), build)

    def _report(self, member_id: int, ok: bool) -> None:
        def report() -> None:
            if self._node.inbox is not None:
                self._node.inbox.report_snapshot(member_id, ok)

        self._node._loop.call_soon(report)
