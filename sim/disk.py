"""A disk that keeps only its promises: what was not synced may be lost or torn in a crash.

Satisfies `keyraft.storage.files.Files`. Contents live in inodes with a durable image and the
writes since the last sync; names live in a table with a durable image and the changes since.
`crash` throws the dice: of the unsynced writes each 512-byte sector arrives or does not, of the
unsynced name changes a prefix arrives (a journalling file system keeps their order). Power may also
go amid a write: then it raises PowerLost, which nobody in the member catches.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from typing import Final

from keyraft.storage.files import FileLockedError

SECTOR_BYTES: Final = 512


class PowerLost(BaseException):
    """The machine is off; whoever runs the member's code lets it crash."""


class Inode:
    """The contents of one file."""

    __slots__ = ("data", "durable", "locked", "reserved", "writes")

    def __init__(self) -> None:
        self.reserved = 0  # so many bytes have their room, full disk or not
        self.data = bytearray()
        self.durable = bytearray()
        self.writes: list[tuple[int, bytes]] = []
        self.locked = False

    def write(self, offset: int, data: bytes) -> None:
        """A write into the page cache."""
        _put(self.data, offset, data)
        self.writes.append((offset, data))

    def sync(self) -> None:
        """Everything written so far is on the disk."""
        self.durable = bytearray(self.data)
        self.writes.clear()

    def crash(self, chance: Random) -> None:
        """Keeps what was synced and, of the rest, whatever chance lets through."""
        survive = chance.choice((0.0, 0.5, 1.0))
        for offset, data in self.writes:
            end = offset + len(data)
            position = offset
            while position < end:
                stop = min(end, (position // SECTOR_BYTES + 1) * SECTOR_BYTES)
                if chance.random() < survive:
                    _put(self.durable, position, data[position - offset : stop - offset])
                position = stop
        self.data = bytearray(self.durable)
        self.writes.clear()
        self.locked = False


def _nothing() -> None:
    """Nobody is told."""


def no_room() -> OSError:
    """The error of a full disk."""
    return OSError(errno.ENOSPC, "No space left on device")


def _put(target: bytearray, offset: int, data: bytes) -> None:
    if len(target) < offset:
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


class SimFile:
    """One open file."""

    __slots__ = ("_disk", "_holds_lock", "_inode", "_path")

    def __init__(self, disk: SimDisk, path: str, inode: Inode, holds_lock: bool = False) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode
        self._holds_lock = holds_lock

    @property
    def path(self) -> str:
        """The name it was opened by."""
        return self._path

    def size(self) -> int:
        """Its length."""
        return len(self._inode.data)

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes."""
        return bytes(self._inode.data[offset : offset + size])

    def pwrite(self, data: bytes, offset: int, durable: bool = False) -> None:
        """Writes into the page cache; `durable` brings this file's bytes to the disk."""
        self._disk.fail_if_told()
        fits = self._disk.fitting(self._inode, offset, len(data))
        self._inode.write(offset, bytes(data[:fits]))
        self._disk.lose_power_if_due(names=False)
        if fits < len(data):
            raise no_room()
        if durable:
            self._disk.sync(self._inode)

    def fdatasync(self) -> None:
        """Brings everything written to the disk."""
        self._disk.fail_if_told()
        self._disk.sync(self._inode)

    def truncate(self, size: int) -> None:
        """Cuts or extends; durable with the next sync."""
        self._inode.reserved = min(self._inode.reserved, size)
        data = self._inode.data
        if size < len(data):
            del data[size:]
            self._inode.writes = [
                (offset, piece[: max(0, size - offset)])
                for offset, piece in self._inode.writes
                if offset < size
            ]
        else:
            data.extend(bytes(size - len(data)))

    def wipe(self, offset: int) -> None:
        """Zeros from there on; durable with the next sync."""
        size = self.size()
        reserved = self._inode.reserved
        self.truncate(offset)
        self.truncate(size)
        self._inode.reserved = reserved

    def allocate(self, size: int) -> None:
        """Reserves room."""
        if size > self._inode.reserved and self._disk.full:
            raise no_room()
        if size > self.size():
            self.truncate(size)
        self._inode.reserved = max(self._inode.reserved, size)

    def close(self) -> None:
        """Releases the lock."""
        if self._holds_lock:
            self._inode.locked = False
            self._holds_lock = False


class SimDisk:
    """One member's disk; lives on when the member crashes."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._names: dict[str, Inode | None] = {"/": None}  # None: a directory
        self._durable: dict[str, Inode | None] = {"/": None}
        self._changes: list[tuple[str, str, Inode | None]] = []
        self.failing = False  # it is broken
        self.full = False
        self.in_place = True  # what is reserved can be written on a full disk
        self.refused = False  # whether it has failed in this life of its member
        self.on_sync: Callable[[], None] = _nothing  # told of each sync: it takes time
        self._writes_left = 0  # before power is lost amid one; 0: it is not
        self._names_only = False  # and only where a name is changed

    def sync(self, inode: Inode) -> None:
        """Everything written to a file so far is on the disk."""
        inode.sync()
        self.on_sync()

    def fail_if_told(self) -> None:
        """Raises EIO while `failing`."""
        if self.failing:
            self.refused = True
            raise OSError(errno.EIO, "Input/output error")

    def fitting(self, inode: Inode, offset: int, size: int) -> int:
        """How much of a write has room."""
        if not self.full or (self.in_place and offset + size <= inode.reserved):
            return size
        return self._chance.randrange(size + 1) if self._chance.random() < 0.5 else 0

    def need_room(self) -> None:
        """For a name; raises ENOSPC."""
        self.fail_if_told()
        if self.full:
            raise no_room()

    def lose_power(self, writes: int, names_only: bool) -> None:
        """Power goes amid one of the next writes; `names_only`: before a name changes or is synced."""
        self._writes_left = writes
        self._names_only = names_only

    def lose_power_if_due(self, names: bool) -> None:
        """Raises PowerLost when the time has come; what was written and not synced may be lost."""
        if self._writes_left and (names or not self._names_only):
            self._writes_left -= 1
            if not self._writes_left:
                raise PowerLost

    def mend(self) -> None:
        """There is room, and power."""
        self.failing = self.full = False
        self._writes_left = 0

    def crash(self) -> None:
        """Power is gone: only what was synced is sure to be there."""
        self._writes_left = 0
        kept = self._chance.randrange(0, len(self._changes) + 1)
        self._commit(kept)
        self._changes.clear()
        self._names = dict(self._durable)
        for inode in {id(node): node for node in self._names.values() if node is not None}.values():
            inode.crash(self._chance)

    def release_locks(self) -> None:
        """The process that held them is gone."""
        for inode in self._names.values():
            if inode is not None:
                inode.locked = False

    # --- Files --------------------------------------------------------------------------------

    def open(self, path: str, *, write: bool = False, create: bool = False) -> SimFile:
        """Opens; FileNotFoundError when there is nothing and `create` is false."""
        path = _clean(path)
        node = self._names.get(path)
        if node is None:
            if path in self._names:
                raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
            if not create:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
            self._need_dir(_parent(path))
            self.need_room()
            node = Inode()
            self._change("link", path, node)
        return SimFile(self, path, node)

    def open_locked(self, path: str, *, create: bool = False) -> SimFile:
        """Opens with the lock; BlockingIOError's text as the real one."""
        file = self.open(path, write=True, create=create)
        inode = self._names[_clean(path)]
        assert inode is not None, f"{path} is open but has no inode"
        if inode.locked:
            raise FileLockedError(errno.EAGAIN, "file is locked by another process", path)
        inode.locked = True
        return SimFile(self, file.path, inode, holds_lock=True)

    def list(self, path: str) -> list[str]:
        """The names in a directory."""
        path = _clean(path)
        self._need_dir(path)
        prefix = path.rstrip("/") + "/"
        return sorted(
            name[len(prefix) :]
            for name in self._names
            if name.startswith(prefix) and name != prefix and "/" not in name[len(prefix) :]
        )

    def exists(self, path: str) -> bool:
        """Whether the name is there."""
        return _clean(path) in self._names

    def make_dirs(self, path: str) -> None:
        """Makes a directory and those above."""
        path = _clean(path)
        parts = path.strip("/").split("/")
        for number in range(1, len(parts) + 1):
            name = "/" + "/".join(parts[:number])
            if name not in self._names:
                self.need_room()
                self._change("link", name, None)

    def rename(self, old: str, new: str) -> None:
        """Renames a file or a directory with all below it."""
        old, new = _clean(old), _clean(new)
        if old not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", old)
        self._need_dir(_parent(new))
        self.lose_power_if_due(names=True)
        _rename(self._names, old, new)
        self._changes.append(("rename:" + new, old, None))

    def remove(self, path: str) -> None:
        """Removes a file."""
        path = _clean(path)
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        self._change("unlink", path, None)

    def remove_tree(self, path: str) -> None:
        """Removes a directory and all in it."""
        path = _clean(path)
        for name in sorted(self._names, reverse=True):
            if name == path or name.startswith(path + "/"):
                self._change("unlink", name, None)

    def sync_dir(self, path: str) -> None:
        """The directory's names, and every change before them, are on the disk."""
        self._need_dir(_clean(path))
        self.fail_if_told()
        self.lose_power_if_due(names=True)
        self._commit(len(self._changes))
        self._changes.clear()

    # --- inside -------------------------------------------------------------------------------

    def _need_dir(self, path: str) -> None:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    def _change(self, kind: str, path: str, inode: Inode | None) -> None:
        _apply(self._names, kind, path, inode)
        self._changes.append((kind, path, inode))

    def _commit(self, count: int) -> None:
        for kind, path, inode in self._changes[:count]:
            _apply(self._durable, kind, path, inode)


def _apply(names: dict[str, Inode | None], kind: str, path: str, inode: Inode | None) -> None:
    if kind == "link":
        names[path] = inode
    elif kind == "unlink":
        names.pop(path, None)
    else:
        _rename(names, path, kind.removeprefix("rename:"))


def _rename(names: dict[str, Inode | None], old: str, new: str) -> None:
    for name in [name for name in names if name == old or name.startswith(old + "/")]:
        names[new + name[len(old) :]] = names.pop(name)


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
