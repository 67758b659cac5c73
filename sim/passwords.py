"""Passwords in virtual time: no bcrypt, but as late as bcrypt is."""

from __future__ import annotations

from collections.abc import Callable

from keyraft.base.clock import Loop
from keyraft.base.errors import EtcdError, RawError
from keyraft.server import Asker

HASH_S = 0.05


class SimPasswords:
    """A `server.ports.Passwords` whose hashes anybody can read."""

    nobody = b"$sim"

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def hash(
        self,
        password: bytes,
        done: Callable[[bytes | EtcdError | RawError], None],
        asker: Asker,
    ) -> None:
        self._loop.call_later(HASH_S, done, self.hash_now(password))

    def verify(
        self,
        password: bytes,
        hashed: bytes,
        done: Callable[[bool | EtcdError], None],
        asker: Asker,
    ) -> None:
        self._loop.call_later(HASH_S, done, hashed == self.hash_now(password))

    def hash_now(self, password: bytes) -> bytes:
        return b"$sim$" + password
