"""The storage process: carries out one batch after the other in the database.

Started as `python -S -E -s writer.py SITE CONTROL` with the batches on standard input and the
answers on standard output. It imports next to nothing (starts in 20 ms) and ends when its input
ends, that is, when the member is gone.

What to open comes in one packet over the socket CONTROL, as soon as the member knows it: a
marshalled tuple (path, size of the map in bytes, [bucket, ...], whether commits are synced, the
flags of `mlockall` or 0). With it comes the descriptor of the member's lock on the
directory, so the lock is held until a commit under way has ended. When the member could not start,
no packet comes and this process has touched nothing.

    to it:    pieces of a batch: 8 bytes length (little endian), then that many bytes, a
              marshalled tuple (bucket, {key -> value, or None to delete}); length 0 ends the batch;
              length 2^64 - 1, between batches, asks for a defragmentation
    from it:  1 byte status (0 done, 1 failed and over, 2 not done, 3 no room on the disk), 4 bytes
              length, that many bytes of text

A batch that the disk has no room for is kept, and length 0 has it tried again. LMDB writes beside
the pages in use, so a transaction that fails has changed nothing.

A defragmentation copies the database without its free pages into a folder of its own, makes the
copy durable, and renames it over the database. LMDB's lock file, which belongs to the old file, is
removed first; processes that have the old pair open go on with it, and none can open one of each
(`gate.py`). Killed at any step, it leaves the old database or the new one, with the same content.

The first answer comes before any batch and says that the database is open and has its buckets.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import marshal
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lmdb

    Piece = tuple[bytes, dict[bytes, bytes | None]]

DEFRAGMENT = (1 << 64) - 1  # in place of a length
DATA_NAME = "data.mdb"
LMDB_LOCK_NAME = "lock.mdb"
GATE_NAME = "GATE"
COPY_NAME = "copy"  # a folder inside the database's
GROWTH = 2  # a map that is full becomes so many times as large
READER_CHECK_COMMITS = 64
ORDER_BYTES_MAX = 65_536
DESCRIPTOR_BYTES = 4
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROBE_BYTES = 1 << 18  # more than LMDB writes at once
LOCK_FILE_BYTES = 8192  # as long as LMDB makes it, for 126 readers


def read_exactly(fd: int, size: int) -> bytearray | None:
    """`size` bytes, or None when the input ended."""
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        count = os.readv(fd, [view[got:]])
        if not count:
            return None
        got += count
    return data


def receive_order(control: int) -> tuple[str, int, list[bytes], bool, int] | None:
    """What to open, with the lock's descriptor, which stays open; None when nothing comes."""
    channel = _socket.socket(fileno=control)
    try:
        packet, *_ = channel.recvmsg(ORDER_BYTES_MAX, _socket.CMSG_SPACE(DESCRIPTOR_BYTES))
    except ConnectionError:
        return None
    finally:
        channel.close()
    return marshal.loads(packet) if packet else None


def write_batch(
    env: lmdb.Environment, databases: dict[bytes, lmdb._Database], batch: list[Piece]
) -> None:
    """One transaction with everything in `batch`."""
    with env.begin(write=True) as txn:
        for bucket, changes in batch:
            database = databases[bucket]
            puts = sorted((key, value) for key, value in changes.items() if value is not None)
            with txn.cursor(db=database) as cursor:
                # Appending keys in ascending order fills pages completely.
                behind = bool(puts) and (not cursor.last() or cursor.key() < puts[0][0])
                cursor.putmulti(puts, append=behind)
            if len(puts) < len(changes):
                for key, value in changes.items():
                    if value is None:
                        txn.delete(key, db=database)


def commit(
    env: lmdb.Environment, databases: dict[bytes, lmdb._Database], batch: list[Piece]
) -> None:
    """The same, letting the map grow when it is full."""
    import lmdb  # can be imported only after `main` has set the path

    while True:
        try:
            write_batch(env, databases, batch)
            return
        except lmdb.MapFullError:
            env.set_mapsize(env.info()["map_size"] * GROWTH)


def lacks_room(path: str, error: Exception) -> bool:
    """Whether a commit failed because the disk is full."""
    text = str(error)
    if any(os.strerror(number) in text for number in NO_ROOM):
        return True
    if os.strerror(errno.EIO) not in text:
        return False
    # LMDB says so, too, of a write that was cut short where the room ended.
    fd = os.open(os.path.join(path, DATA_NAME), os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        os.posix_fallocate(fd, size, PROBE_BYTES)
        os.ftruncate(fd, size)
    except OSError as refusal:
        return refusal.errno in NO_ROOM
    finally:
        os.close(fd)
    return False


def reserve_lock_file(path: str) -> None:
    """LMDB maps its lock file, and where the disk has no room for a page of it, a process dies.

    To be called before the database is opened: closing any descriptor of the file gives up the
    locks that this process has on it.
    """
    name = os.path.join(path, LMDB_LOCK_NAME)
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size <= LOCK_FILE_BYTES:
            os.posix_fallocate(fd, 0, LOCK_FILE_BYTES)
    finally:
        os.close(fd)


def clear_copy(path: str) -> None:
    """Removes what a defragmentation has left."""
    folder = os.path.join(path, COPY_NAME)
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except FileNotFoundError:
        pass


def copy_compactly(env: lmdb.Environment, path: str) -> None:
    """Makes a durable copy without free pages in the folder for it."""
    clear_copy(path)
    folder = os.path.join(path, COPY_NAME)
    os.mkdir(folder, 0o700)
    env.copy(folder, compact=True)
    fd = os.open(os.path.join(folder, DATA_NAME), os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        os.fsync(fd)
    finally:
        os.close(fd)


def exchange(path: str) -> None:
    """Puts the copy in the database's place; nobody here has the database open."""
    gate = os.open(os.path.join(path, GATE_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        os.unlink(os.path.join(path, LMDB_LOCK_NAME))
        os.rename(os.path.join(path, COPY_NAME, DATA_NAME), os.path.join(path, DATA_NAME))
        folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        os.close(gate)
    clear_copy(path)


def main(arguments: list[str]) -> None:
    """Serves until the input ends."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # These signals stop the member, which then still needs this process. This process ends when
        # its input ends.
        signal.signal(name, signal.SIG_IGN)
    site, control = arguments
    sys.path.insert(0, site)
    import lmdb

    order = receive_order(int(control))
    if order is None:
        return
    path, map_bytes, buckets, synced, locked = order

    def answer(status: int, text: str) -> None:
        data = text.encode()
        os.write(1, bytes([status]) + len(data).to_bytes(4, "little") + data)

    def open_database() -> tuple[lmdb.Environment, dict[bytes, lmdb._Database]]:
        reserve_lock_file(path)
        opened = lmdb.open(
            path, map_size=map_bytes, max_dbs=len(buckets) + 4, mode=0o600, sync=synced
        )
        opened.reader_check()
        with opened.begin(write=True) as txn:  # one commit, however many are made
            return opened, {name: opened.open_db(name, txn=txn) for name in buckets}

    try:
        if locked:
            import ctypes

            if ctypes.CDLL(None, use_errno=True).mlockall(locked):
                raise OSError(ctypes.get_errno(), "mlockall")
        clear_copy(path)
        env, databases = open_database()
        answer(0, "")
        batch: list[Piece] = []
        commits = 0
        while True:
            head = read_exactly(0, 8)
            if head is None:
                break
            size = int.from_bytes(head, "little")
            if size == DEFRAGMENT:
                assert not batch, "a defragmentation comes between batches"
                try:
                    copy_compactly(env, path)
                except (lmdb.Error, OSError) as error:
                    clear_copy(path)
                    answer(2, f"{error}")
                    continue
                env.close()
                exchange(path)
                env, databases = open_database()
                answer(0, "")
            elif size:
                data = read_exactly(0, size)
                if data is None:
                    break
                batch.append(marshal.loads(data))
                del data
            else:
                try:
                    commit(env, databases, batch)
                except (lmdb.Error, OSError) as error:
                    if not lacks_room(path, error):
                        raise
                    answer(3, f"{error}")
                    continue
                batch.clear()
                commits += 1
                if not commits % READER_CHECK_COMMITS:
                    env.reader_check()  # forgets killed readers, which keep pages in use
                answer(0, "")
        env.close()
    except BrokenPipeError:
        os._exit(0)  # the member was killed; its log has what this commit did not report
    except (lmdb.Error, OSError) as error:
        answer(1, f"{type(error).__name__}: {error}")
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
