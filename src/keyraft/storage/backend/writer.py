"""The storage process: carries out one batch after the other in the database.

Started as `python -S -E -s writer.py SITE CONTROL` with the batches on standard input and the
answers on standard output. It imports next to nothing (starts in 20 ms) and ends when its input
ends, that is, when the member is gone.

What to open comes in one packet over the socket CONTROL, as soon as the member knows it: a
marshalled tuple (path, size of the map in bytes, [bucket, ...]), and with it the descriptor of the
member's lock on the directory, so that it is held until a commit under way has ended, too. Nothing
comes, and nothing was touched, when the member could not start.

    to it:    pieces of a batch: 8 bytes length (little endian), then that many bytes, a
              marshalled tuple (bucket, {key -> value, or None to delete}); length 0 ends the batch
    from it:  1 byte status (0 done, 1 failed), 4 bytes length, that many bytes of text

The first answer comes before any batch and says that the database is open and has its buckets.
"""

from __future__ import annotations

import _socket
import marshal
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lmdb

    Piece = tuple[bytes, dict[bytes, bytes | None]]

GROWTH = 2  # what a full map is multiplied with
READER_CHECK_COMMITS = 64
ORDER_BYTES_MAX = 65_536
DESCRIPTOR_BYTES = 4


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


def receive_order(control: int) -> tuple[str, int, list[bytes]] | None:
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
                # Ascending keys behind the last one fill pages to the brim.
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
    import lmdb  # found only after `main` has set the path

    while True:
        try:
            write_batch(env, databases, batch)
            return
        except lmdb.MapFullError:
            env.set_mapsize(env.info()["map_size"] * GROWTH)


def main(arguments: list[str]) -> None:
    """Serves until the input ends."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The member stops on these and then still needs this process; it ends with its input.
        signal.signal(name, signal.SIG_IGN)
    site, control = arguments
    sys.path.insert(0, site)
    import lmdb

    order = receive_order(int(control))
    if order is None:
        return
    path, map_bytes, buckets = order

    def answer(status: int, text: str) -> None:
        data = text.encode()
        os.write(1, bytes([status]) + len(data).to_bytes(4, "little") + data)

    try:
        env = lmdb.open(path, map_size=map_bytes, max_dbs=len(buckets) + 4, mode=0o600)
        env.reader_check()
        with env.begin(write=True) as txn:  # one commit, however many are made
            databases = {name: env.open_db(name, txn=txn) for name in buckets}
        answer(0, "")
        batch: list[Piece] = []
        commits = 0
        while True:
            head = read_exactly(0, 8)
            if head is None:
                break
            size = int.from_bytes(head, "little")
            if size:
                data = read_exactly(0, size)
                if data is None:
                    break
                batch.append(marshal.loads(data))
                del data
            else:
                commit(env, databases, batch)
                batch.clear()
                commits += 1
                if not commits % READER_CHECK_COMMITS:
                    env.reader_check()  # those of killed processes would hold back free pages
                answer(0, "")
        env.close()
    except BrokenPipeError:
        os._exit(0)  # the member was killed; what it is not told of, its log has
    except (lmdb.Error, OSError) as error:
        answer(1, f"{type(error).__name__}: {error}")
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
