"""bcrypt in threads, so that a login of tens of milliseconds costs the loop nothing.

The library releases the interpreter's lock. Above WAITING_MAX a login is refused at once. So a
flood of logins uses no more processors than there are threads.

Source: golang.org/x/crypto/bcrypt. Passwords are compared by their first 72 bytes, longer ones are
not hashed; the prefix is "$2a$", which both sides write.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from keyraft.base import codes, errors
from keyraft.base.errors import EtcdError, RawError

PASSWORD_BYTES_MAX: Final = 72
WAITING_MAX: Final = 1_000  # passwords; at 60 ms each and two threads they take half a minute
THREADS_MAX: Final = 4
TOO_LONG: Final = "bcrypt: password length exceeds 72 bytes"

_T = TypeVar("_T")


class BcryptPasswords:
    """A `server.ports.Passwords`. Owned by the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cost: int) -> None:
        """`cost`: the binary logarithm of the rounds, 4 to 31."""
        self._loop = loop
        self._cost = cost
        self._threads: ThreadPoolExecutor | None = None
        self._waiting = 0

    def hash(self, password: bytes, done: Callable[[bytes | EtcdError | RawError], None]) -> None:
        """The bcrypt text of a password of at most 72 bytes."""
        if len(password) > PASSWORD_BYTES_MAX:
            done(RawError(codes.UNKNOWN, TOO_LONG))
        elif not self._run(lambda: self.hash_now(password), done):
            done(errors.TooManyRequestsError())

    def verify(
        self, password: bytes, hashed: bytes, done: Callable[[bool | EtcdError], None]
    ) -> None:
        """Whether it is the password that was hashed."""
        if not self._run(lambda: _is_same(password, hashed), done):
            done(errors.TooManyRequestsError())

    def hash_now(self, password: bytes) -> bytes:
        """`hash` in this thread; a longer password is cut, as etcd 3.4 did."""
        import bcrypt  # in the thread, because a start does not need it

        return bcrypt.hashpw(password[:PASSWORD_BYTES_MAX], bcrypt.gensalt(self._cost, b"2a"))

    def close(self) -> None:
        """Drops waiting passwords."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, work: Callable[[], _T], done: Callable[[_T], None]) -> bool:
        if self._waiting >= WAITING_MAX:
            return False
        if self._threads is None:
            count = min(THREADS_MAX, os.cpu_count() or 1)
            self._threads = ThreadPoolExecutor(count, thread_name_prefix="bcrypt")
        self._waiting += 1

        def worked(outcome: asyncio.Future[_T]) -> None:
            self._waiting -= 1
            if not outcome.cancelled():
                done(outcome.result())

        self._loop.run_in_executor(self._threads, work).add_done_callback(worked)
        return True


def _is_same(password: bytes, hashed: bytes) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password[:PASSWORD_BYTES_MAX], hashed)
    except ValueError:  # the stored text is no bcrypt hash: no password matches
        return False
