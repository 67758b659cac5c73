"""Whose password is compared next.

A comparison takes tens of milliseconds of a processor, on purpose. So whoever sends many wrong
passwords would keep all others waiting, if all stood in one line. There are three lines:

| line | who | compared by |
|---|---|---|
| known | the password looks like the one that was right for this user when last compared; and whoever has shown a token and wants a password hashed | the threads for honest callers |
| clean | all others whose address has sent no wrong password lately | the same, when nobody known waits |
| suspect | whose address has sent one | threads of their own, with what processors the others leave |

In a line the addresses have their turns one after the other, and so have the users of an address.
IPv6 addresses count by their first 64 bits, which one customer commonly has all of.

To look like the right one is to have the same fingerprint: 16 bits under a random key that is drawn
anew with every right password. That says too little to check guesses by, should memory be read; and
it only decides the order, the comparison decides the rest. A wrong password that had the right
fingerprint takes the fingerprint away.

What waits is bounded: in all, and for each address of a line. If all is full, who is suspect makes
room for who is not.

Invariants (`check`): an address and a user are in a line only while something of theirs waits;
`waiting` counts all; nothing clean is waiting at an address that is suspect.
"""

from __future__ import annotations

import hashlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from keyraft.base.invariants import hold

WAITING_MAX: Final = 1_000  # jobs; at 60 ms each and two threads they take half a minute
ADDRESS_WAITING_MAX: Final = 250  # of one address in one line
SUSPECT_S: Final = 60.0  # since the last wrong password of an address
SUSPECTS_MAX: Final = 10_000  # addresses, about 150 bytes each; the oldest are forgotten
KNOWN_MAX: Final = 10_000  # users with a fingerprint, about 400 bytes each; likewise

KNOWN: Final = 0
CLEAN: Final = 1
SUSPECT: Final = 2
_FINGERPRINT_BYTES: Final = 2
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"  # an IPv4 address in IPv6


class Wanted(Protocol):
    """Who waits for the answer."""

    cancelled: bool


class PasswordJob:
    """One password to hash, or to compare with what is stored (`hashed`)."""

    __slots__ = ("address", "done", "hashed", "line", "password", "user", "wanted", "work")

    def __init__(
        self,
        work: Callable[[], Any],
        done: Callable[[Any], None],
        wanted: Wanted | None,
        peer: str,
        user: str = "",
        password: bytes = b"",
        hashed: bytes | None = None,
    ) -> None:
        self.work = work
        self.done = done
        self.wanted = wanted
        self.address = address_of(peer)
        self.user = user
        self.password = password
        self.hashed = hashed
        self.line = KNOWN


class _Line:
    """Jobs by address and user, each of which has its turn."""

    __slots__ = ("by_address", "counts")

    def __init__(self) -> None:
        self.by_address: dict[bytes, dict[str, deque[PasswordJob]]] = {}
        self.counts: dict[bytes, int] = {}

    def add(self, job: PasswordJob) -> None:
        users = self.by_address.setdefault(job.address, {})
        users.setdefault(job.user, deque()).append(job)
        self.counts[job.address] = self.counts.get(job.address, 0) + 1

    def take(self) -> PasswordJob | None:
        """The next one; its address and its user go to the end."""
        address = next(iter(self.by_address), None)
        if address is None:
            return None
        users = self.by_address.pop(address)
        user = next(iter(users))
        jobs = users.pop(user)
        job = jobs.popleft()
        if jobs:
            users[user] = jobs
        self._put_back(address, users)
        return job

    def drop_newest(self, address: bytes) -> PasswordJob:
        """The last one in the longest queue of an address."""
        users = self.by_address[address]
        user = max(users, key=lambda each: len(users[each]))
        job = users[user].pop()
        if not users[user]:
            del users[user]
        if not users:
            del self.by_address[address]
        self._count_down(address)
        return job

    def take_all(self, address: bytes) -> list[PasswordJob]:
        self.counts.pop(address, None)
        return [job for jobs in self.by_address.pop(address, {}).values() for job in jobs]

    def _put_back(self, address: bytes, users: dict[str, deque[PasswordJob]]) -> None:
        if users:
            self.by_address[address] = users
        self._count_down(address)

    def _count_down(self, address: bytes) -> None:
        self.counts[address] -= 1
        if not self.counts[address]:
            del self.counts[address]


class PasswordQueue:
    """Owned by the loop. Times are seconds of the loop's clock."""

    job = PasswordJob

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._lines = (_Line(), _Line(), _Line())
        self._known: dict[str, tuple[bytes, bytes, bytes]] = {}  # hash, key, fingerprint
        self._suspects: dict[bytes, float] = {}  # until when
        self.waiting = 0

    def add(self, job: PasswordJob, now_s: float) -> PasswordJob | None:
        """Queues a job; returns the one that finds no room: the same, or another for it."""
        job.line = self._line_of(job, now_s)
        line = self._lines[job.line]
        if line.counts.get(job.address, 0) >= ADDRESS_WAITING_MAX:
            return job
        refused = None
        if self.waiting >= WAITING_MAX:
            refused = self._make_room(job.line)
            if refused is None:
                return job
        line.add(job)
        self.waiting += 1
        return refused

    def take(self, honest: bool) -> PasswordJob | None:
        """The next job for a thread of that kind."""
        for line in self._lines[:SUSPECT] if honest else self._lines[SUSPECT:]:
            job = line.take()
            if job is not None:
                self.waiting -= 1
                return job
        return None

    def compared(self, job: PasswordJob, right: bool, now_s: float) -> None:
        """A comparison has ended."""
        assert job.hashed is not None, "nothing was compared"
        if right:
            key = self._random_bytes(16)
            self._known.pop(job.user, None)
            self._known[job.user] = job.hashed, key, _fingerprint(key, job.password)
            if len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]
            return
        if job.line == KNOWN:
            self._known.pop(job.user, None)
        self._suspects.pop(job.address, None)
        self._suspects[job.address] = now_s + SUSPECT_S
        if len(self._suspects) > SUSPECTS_MAX:
            del self._suspects[next(iter(self._suspects))]
        for line in self._lines[:SUSPECT]:
            if job.address in line.by_address:
                for other in line.take_all(job.address):
                    other.line = self._line_of(other, now_s)
                    self._lines[other.line].add(other)

    # --- inside ---------------------------------------------------------------------------------

    def _line_of(self, job: PasswordJob, now_s: float) -> int:
        if job.hashed is None:
            return KNOWN
        known = self._known.get(job.user)
        if known is not None and known[0] == job.hashed:
            if _fingerprint(known[1], job.password) == known[2]:
                return KNOWN
        return SUSPECT if self._suspects.get(job.address, 0.0) > now_s else CLEAN

    def _make_room(self, line: int) -> PasswordJob | None:
        """Takes out one that has less right to wait than who comes to `line`."""
        for other in range(SUSPECT, line, -1):
            counts = self._lines[other].counts
            if counts:
                self.waiting -= 1
                return self._lines[other].drop_newest(max(counts, key=lambda each: counts[each]))
        return None

    def check(self) -> None:
        """The invariants at the head of this module; raises InvariantError."""
        total = 0
        for number, line in enumerate(self._lines):
            hold(set(line.counts) == set(line.by_address), "an address is counted")
            for address, users in line.by_address.items():
                jobs = [job for queue in users.values() for job in queue]
                hold(bool(users) and all(users.values()), "somebody waits at an address")
                hold(len(jobs) == line.counts[address], "the jobs of an address are counted")
                hold(all(job.line == number for job in jobs), "a job knows its line")
                total += len(jobs)
        hold(total == self.waiting <= WAITING_MAX, "all are counted", total, self.waiting)


def _fingerprint(key: bytes, password: bytes) -> bytes:
    return hashlib.blake2b(password, digest_size=_FINGERPRINT_BYTES, key=key).digest()


def address_of(peer: str) -> bytes:
    """From where a client is, without its port: an IPv4 address, a /64 of IPv6, else as told."""
    if not peer.startswith("["):
        return (peer.rpartition(":")[0] or peer).encode("utf-8", "surrogateescape")
    host = peer[1:].partition("]")[0]
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return host.encode("utf-8", "surrogateescape")
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:]).encode()
    return packed[:8]
