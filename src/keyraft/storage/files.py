"""Files as the log sees them, so that a simulated disk can stand in for the real one.

Everything in `storage/` that must survive a crash goes through `Files`, never through `os` itself.
The contract is the weak one that real disks keep:

- what `pwrite` wrote may be lost, or torn at any 512-byte boundary, until `fdatasync` (or a
  `pwrite` with `durable`) returns;
- a created, renamed or removed name may be forgotten until `sync_dir` of its directory returns;
- after a failed sync nothing is known about what was written since the last good one, and trying
  again proves nothing: the caller must give up, or write all of that again.

All of it blocks; who calls decides on which thread. Errors are `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Final, Protocol

NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""Errors of a write that may succeed later: no space, no quota, a file as large as files may be."""

SECTOR_BYTES: Final = 512  # the largest write that is never torn
_WIPE_BYTES: Final = 1 << 20
PRIVATE_FILE_MODE: Final = 0o600
PRIVATE_DIR_MODE: Final = 0o700


class FileLockedError(OSError):
    """Another process holds the file's lock."""


class File(Protocol):
    """One open file; offsets and sizes in bytes."""

    @property
    def path(self) -> str:
        """The name it was opened by."""

    def size(self) -> int:
        """Its length."""

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""

    def pwrite(self, data: bytes, offset: int, durable: bool = False) -> None:
        """Writes all of `data`; with `durable`, these bytes are on the disk when it returns."""

    def fdatasync(self) -> None:
        """What was written, and the size, are on the disk when it returns."""

    def truncate(self, size: int) -> None:
        """Cuts, or extends with zeros."""

    def wipe(self, offset: int) -> None:
        """Makes zeros of everything from `offset` on; the size and its room stay."""

    def allocate(self, size: int) -> None:
        """Extends to `size` with zeros whose room is reserved; never shortens."""

    def close(self) -> None:
        """Releases the file and its lock."""


class Files(Protocol):
    """One file system."""

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        """Opens; `create` makes a file of mode 0600 where there is none."""

    def open_locked(self, path: str, *, create: bool = False) -> File:
        """Opens for writing with an exclusive lock (flock); raises FileLockedError at once."""

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted; FileNotFoundError when there is none."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of this name."""

    def make_dirs(self, path: str) -> None:
        """Makes a directory of mode 0700 and those above it; harmless when it exists."""

    def rename(self, old: str, new: str) -> None:
        """Renames a file or directory, replacing a file."""

    def remove(self, path: str) -> None:
        """Removes a file."""

    def remove_tree(self, path: str) -> None:
        """Removes a directory and all in it; harmless when there is none."""

    def sync_dir(self, path: str) -> None:
        """The directory's names are on the disk when it returns."""


def make_private_dirs(path: str) -> None:
    """Makes a directory and those above it, each of mode 0700; harmless when it exists.

    (`os.makedirs` gives the mode to the last one only.) Raises OSError.
    """
    missing: list[str] = []
    level = os.path.abspath(path)
    while not os.path.isdir(level):
        missing.append(level)
        above = os.path.dirname(level)
        if above == level:
            break
        level = above
    for level in reversed(missing):
        try:
            os.mkdir(level, PRIVATE_DIR_MODE)
        except FileExistsError:
            if os.path.isdir(level):
                continue
            if not os.path.exists(level):
                raise  # a link to nowhere
            reason = os.strerror(errno.ENOTDIR)
            raise NotADirectoryError(errno.ENOTDIR, reason, level) from None


def create_private(path: str, access: int = os.O_WRONLY) -> int:
    """A new file for its owner alone, in place of what has its name; the descriptor.

    What others put there before, a file that they may read or a link, is removed and not written
    to. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    flags = access | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, PRIVATE_FILE_MODE)


class OsFile:
    """A file of the operating system."""

    __slots__ = ("_fd", "_path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    @property
    def path(self) -> str:
        return self._path

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self._fd

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size and (data := os.pread(self._fd, size - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pwrite(self, data: bytes, offset: int, durable: bool = False) -> None:
        # One system call writes and syncs. Each call releases the interpreter lock and must get it
        # back, which costs more than the call itself when the loop is busy.
        flags = os.RWF_DSYNC if durable else 0
        written = os.pwritev(self._fd, (data,), offset, flags)
        while written < len(data):
            rest = memoryview(data)[written:]
            more = os.pwritev(self._fd, (rest,), offset + written, flags)
            if not more:
                raise OSError(errno.EIO, os.strerror(errno.EIO), self._path)
            written += more

    def fdatasync(self) -> None:
        os.fdatasync(self._fd)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def wipe(self, offset: int) -> None:
        # Only what was written: a segment that is reserved and not yet used holds nothing.
        end = self.size()
        while offset < end:
            try:
                begin = os.lseek(self._fd, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # nothing is behind
                begin = offset
            stop = min(begin + _WIPE_BYTES, end)
            if self.pread(stop - begin, begin).strip(b"\0"):
                self.pwrite(bytes(stop - begin), begin)
            offset = stop

    def allocate(self, size: int) -> None:
        self._look_for_room(size)
        try:
            os.posix_fallocate(self._fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            if self.size() < size:
                os.ftruncate(self._fd, size)

    def _look_for_room(self, size: int) -> None:
        """Raises ENOSPC where an attempt would fail, and until then take from all others what is
        left."""
        wanted = size - os.fstat(self._fd).st_blocks * 512
        if wanted > 0:
            disk = os.fstatvfs(self._fd)
            free = disk.f_bavail if os.geteuid() else disk.f_bfree
            if disk.f_blocks and free * disk.f_frsize < wanted:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class UnsyncedFile(OsFile):
    """A file whose content the kernel writes when it likes."""

    __slots__ = ()

    def pwrite(self, data: bytes, offset: int, durable: bool = False) -> None:
        super().pwrite(data, offset)

    def fdatasync(self) -> None:
        """Nothing."""


class OsFiles:
    """The operating system's file system."""

    __slots__ = ()
    file: type[OsFile] = OsFile

    def open(self, path: str, *, write: bool = False, create: bool = False) -> OsFile:
        flags = os.O_CLOEXEC | (os.O_RDWR if write or create else os.O_RDONLY)
        if create:
            flags |= os.O_CREAT
        return self.file(os.open(path, flags, PRIVATE_FILE_MODE), path)

    def open_locked(self, path: str, *, create: bool = False) -> OsFile:
        file = self.open(path, write=True, create=create)
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise FileLockedError(error.errno, "file is locked by another process", path) from error
        except OSError:
            file.close()
            raise
        return file

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def make_dirs(self, path: str) -> None:
        make_private_dirs(path)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_tree(self, path: str) -> None:
        if os.path.exists(path):
            import shutil  # a start does without

            shutil.rmtree(path)

    def sync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class UnsyncedFiles(OsFiles):
    """The same, never synced (`--unsafe-no-fsync`): a machine that loses power loses what was
    acknowledged, or the whole directory; a process that is killed loses nothing."""

    __slots__ = ()
    file = UnsyncedFile

    def sync_dir(self, path: str) -> None:
        """Nothing."""
