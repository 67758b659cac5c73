"""Takes over the leader's database on a member that fell behind.

It is read while it is beside the member's own, in slices as any long read. Only then Raft gets the
snapshot message. Meanwhile heartbeats, health checks and clients are served from the old state.
When it has replaced the member's own database, the new state is used at once, so no client sees a
half-built state. The old state is freed in slices.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from keyraft.base.errors import StoppedError
from keyraft.lease import Leases
from keyraft.mvcc import (
    Backend,
    BackendError,
    Restored,
    emptied,
    finished,
    free_steps,
    restore_steps,
)

if TYPE_CHECKING:
    from keyraft.server.member import Member

Reading = Generator[None, None, "tuple[Restored, Leases]"]


class ReceivedDatabase:
    """One at a time, the newest. Owned by the member's loop."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._reading: Reading | None = None
        self._index = 0
        self._read: tuple[Restored, Leases] | None = None  # of the snapshot at that index

    def read(self, index: int, database: Backend, done: Callable[[Exception | None], None]) -> None:
        """Reads the database of the snapshot at `index`; nobody may write it meanwhile.

        `done` gets None, BackendError for a damaged one, or StoppedError.
        """
        self.forget()
        member = self._member
        work = self._reading = self._steps(database)

        def step() -> bool:
            if self._reading is not work:
                return True
            if member.stopped:
                self.forget()
                done(StoppedError())
                return True
            try:
                next(work)
            except StopIteration as end:
                self._reading = None
                self._index, self._read = index, end.value
                done(None)
                return True
            except BackendError as error:
                self._reading = None
                done(error)
                return True
            return False

        member.slices.add(step)

    def forget(self) -> None:
        """Cancels a read under way, without calling its `done`, and drops what was read."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        if self._read is not None:
            restored, leases = self._read
            self._read = None
            self._free(free_steps(restored.index, restored.key_leases))
            self._free(emptied(leases))

    def take_over(self, index: int) -> None:
        """Uses the state of the snapshot at `index` from now on: its database is installed."""
        member = self._member
        store = member.store
        if self._read is None or self._index != index:
            self.forget()
            self._read = finished(self._steps(member.backend))
        restored, leases = self._read
        self._read = None
        self._free(free_steps(store.index, store.key_leases))
        self._free(emptied(member.lessor.take(member.backend, leases)))
        store.reset(member.backend, restored)

    def _steps(self, database: Backend) -> Reading:
        restored = yield from restore_steps(database)
        leases = yield from self._member.lessor.load_steps(database, restored.key_leases)
        return restored, leases

    def _free(self, work: Generator[None, None, None]) -> None:
        def step() -> bool:
            return next(work, True) is True

        self._member.slices.add(step)
