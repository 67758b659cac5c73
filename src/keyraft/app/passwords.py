"""bcrypt in threads, so that a login of tens of milliseconds costs the loop nothing.

The library releases the interpreter's lock. Some threads are for honest callers; one has what
comes from where wrong passwords came from, and only the processors that nothing else wants, so that
a flood of wrong passwords keeps neither logins nor requests waiting (`password_queue`).

Source: golang.org/x/crypto/bcrypt. Passwords are compared by their first 72 bytes, longer ones are
not hashed; the prefix is "$2a$", which both sides write.

DEVIATION: in the original everybody's passwords are compared at the same time, so 200 connections
with wrong ones keep others out for most of a minute; and a name that is no user's is refused at
once, which tells who is one.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from keyraft.base import codes, errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.server import Asker

if TYPE_CHECKING:
    from keyraft.app.password_queue import PasswordJob, PasswordQueue

PASSWORD_BYTES_MAX: Final = 72
THREADS_MAX: Final = 4
SUSPECT_NICENESS: Final = 15
TOO_LONG: Final = "bcrypt: password length exceeds 72 bytes"


class BcryptPasswords:
    """A `server.ports.Passwords`. Owned by the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cost: int) -> None:
        """`cost`: the binary logarithm of the rounds, 4 to 31."""
        self._loop = loop
        self._cost = cost
        count = min(THREADS_MAX, os.cpu_count() or 1)
        self._honest = _Threads("bcrypt", count, 0)
        self._suspect = _Threads("bcrypt-suspect", 1, SUSPECT_NICENESS)
        self.nobody = b"$2a$%02d$" % cost + b"." * 53

    def hash(
        self,
        password: bytes,
        done: Callable[[bytes | EtcdError | RawError], None],
        asker: Asker,
    ) -> None:
        """The bcrypt text of a password of at most 72 bytes."""
        if len(password) > PASSWORD_BYTES_MAX:
            done(RawError(codes.UNKNOWN, TOO_LONG))
            return
        work = lambda: self.hash_now(password)  # noqa: E731
        self._add(work, done, asker)

    def verify(
        self,
        password: bytes,
        hashed: bytes,
        done: Callable[[bool | EtcdError], None],
        asker: Asker,
    ) -> None:
        """Whether it is the password that was hashed."""
        work = lambda: _is_same(password, hashed)  # noqa: E731
        self._add(work, done, asker, password, hashed)

    def hash_now(self, password: bytes) -> bytes:
        """`hash` in this thread; a longer password is cut, as etcd 3.4 did."""
        import bcrypt  # in the thread, because a start does not need it

        return bcrypt.hashpw(password[:PASSWORD_BYTES_MAX], bcrypt.gensalt(self._cost, b"2a"))

    @cached_property
    def queue(self) -> PasswordQueue:
        """Who is next; loaded with the first password, because a start does not need it."""
        from keyraft.app.password_queue import PasswordQueue

        return PasswordQueue(os.urandom)

    def close(self) -> None:
        """Drops waiting passwords."""
        for threads in (self._honest, self._suspect):
            threads.close()

    def _add(
        self,
        work: Callable[[], Any],
        done: Callable[[Any], None],
        asker: Asker,
        password: bytes = b"",
        hashed: bytes | None = None,
    ) -> None:
        job = self.queue.job(work, done, asker.waiter, asker.peer, asker.user, password, hashed)
        refused = self.queue.add(job, self._loop.time())
        if refused is not None:
            refused.done(errors.TooManyRequestsError())
        self._start()

    def _start(self) -> None:
        """Gives idle threads work."""
        for threads in (self._honest, self._suspect):
            while threads.idle and not threads.closed:
                job = self.queue.take(threads is self._honest)
                if job is None:
                    break
                if job.wanted is not None and job.wanted.cancelled:
                    job.done(errors.TooManyRequestsError())
                else:
                    self._run(threads, job)

    def _run(self, threads: _Threads, job: PasswordJob) -> None:
        threads.idle -= 1

        def worked(outcome: asyncio.Future[Any]) -> None:
            threads.idle += 1
            if outcome.cancelled():
                return
            answer = outcome.result()
            if job.hashed is not None:
                self.queue.compared(job, answer, self._loop.time())
            self._start()
            job.done(answer)

        self._loop.run_in_executor(threads.executor(), job.work).add_done_callback(worked)


class _Threads:
    """Some threads of one priority, made when first needed."""

    def __init__(self, name: str, count: int, niceness: int) -> None:
        self._name = name
        self._count = count
        self._niceness = niceness
        self._executor: ThreadPoolExecutor | None = None
        self.idle = count
        self.closed = False

    def executor(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._count, self._name, self._begin)
        return self._executor

    def _begin(self) -> None:
        """In the thread: on Linux the priority is a thread's own."""
        if self._niceness:
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
            except OSError:
                pass  # it is only fair play

    def close(self) -> None:
        self.closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def _is_same(password: bytes, hashed: bytes) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password[:PASSWORD_BYTES_MAX], hashed)
    except ValueError:  # the stored text is no bcrypt hash: no password matches
        return False
