"""The databases of a simulated member: its own, and a leader's that it is sent.

A database is a dictionary: it keeps what was committed and loses what was not, as LMDB does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from keyraft.mvcc.backend import META, META_CONSISTENT_INDEX
from keyraft.storage.backend import MemoryEngine
from keyraft.storage.backend.memory import Disk
from sim.disk import SimDisk
from sim.loop import MemberLoop

ROOM_RETRY_S: Final = 0.5  # between two attempts to commit on a full disk


class SimEngine(MemoryEngine):
    """A database in dictionaries, on a disk that may be full."""

    __slots__ = ("_files",)

    def __init__(self, disk: Disk, loop: MemberLoop, latency_s: float, files: SimDisk) -> None:
        super().__init__(disk, loop, latency_s)
        self._files = files

    def settle(self) -> None:
        """The commit under way reaches the disk, if there is room."""
        try:
            self._files.need_room()
        except OSError as error:
            if self._files.failing:
                self.fail(str(error))
            elif self._commit is not None and self._loop is not None:
                self.starved = str(error)
                self._loop.call_later(ROOM_RETRY_S, self.settle)
        else:
            self.starved = ""
            super().settle()


class SimDatabases:
    """What a machine keeps of databases, whatever its member does; a `DatabaseFiles`."""

    def __init__(self) -> None:
        self.own = MemoryEngine().disk
        self._received: dict[int, Disk] = {}  # files, by index
        self.wrong: list[Disk] = []  # what it once was
        self._built: Disk = {}  # from a file, beside the own one
        self.exchange: Callable[[], None] = lambda: None  # has the member open its own anew

    @property
    def own_index(self) -> int:
        """Up to which entry the member's own goes."""
        return consistent_index(self.own)

    def indexes(self) -> list[int]:
        """Of the databases that have come."""
        return list(self._received)

    def save(self, index: int, content: Disk) -> None:
        """A database has come whole."""
        self._received[index] = content

    def remove(self, index: int) -> None:
        """One is needed no more."""
        self._received.pop(index, None)

    def build(self, index: int) -> Disk:
        """The database from its file, beside the one in use."""
        self._built = copied(self._received[index])
        return self._built

    def put_in_place(self) -> None:
        """What was built last is the member's own."""
        self.own = self._built
        self.exchange()

    def keep_wrong(self, index: int) -> None:
        """What was built last takes the place of the member's own, which was wrong."""
        self.wrong.append(self.own)
        self.own = self._built
        self.remove(index)

    def install(self, index: int) -> None:
        """The same from the file, while no member lives here."""
        self.own = self.build(index)


def consistent_index(content: Disk) -> int:
    """Up to which entry a database goes."""
    return int.from_bytes(content[META].get(META_CONSISTENT_INDEX, b""), "big")


def copied(content: Disk) -> Disk:
    """A database of its own with the same rows."""
    return {name: dict(bucket) for name, bucket in content.items()}
