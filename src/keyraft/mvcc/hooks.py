"""What the store tells others, and what it asks them: leases and watches."""

from __future__ import annotations

from typing import Protocol

Event = tuple[bytes, bytes, bool]
"""(key, KeyValue bytes as an event carries them, is a delete). A delete's KeyValue holds only key
and mod_revision; a put's is what is stored, byte for byte."""


class Listener(Protocol):
    """Whoever wants to know what transactions change. It must not write to the store."""

    def __call__(self, revision: int, events: list[Event], more: bool = False) -> None:
        """The events of a transaction in order of sub revision, its own to keep.

        `more`: those of the same revision go on in the next call; a transaction with many events
        tells them in portions, and nothing of a later revision comes in between.
        """


class Lessor(Protocol):
    """The owner of leases, as the store sees it."""

    def exists(self, lease_id: int) -> bool:
        """Whether the lease is granted and not yet revoked."""

    def attach(self, lease_id: int, key: bytes) -> None:
        """`key` now lives under the lease. At start this may name a lease that is not there (a
        database of an older etcd): then it is ignored, as etcd does."""

    def detach(self, lease_id: int, key: bytes) -> None:
        """`key` no longer lives under the lease; harmless if the lease is already gone."""


class NoLeases:
    """A lessor without leases, for tools and tests."""

    def exists(self, lease_id: int) -> bool:
        return False

    def attach(self, lease_id: int, key: bytes) -> None:
        return None

    def detach(self, lease_id: int, key: bytes) -> None:
        return None
