"""The store's listeners (watches), and its interface to leases."""

from __future__ import annotations

from typing import Protocol

Event = tuple[bytes, bytes, bool]
"""(key, KeyValue bytes as an event carries them, is a delete). A delete's KeyValue holds only key
and mod_revision; a put's is what is stored, byte for byte."""


class Listener(Protocol):
    """Is called with the changes of transactions. It must not write to the store."""

    def __call__(self, revision: int, events: list[Event], more: bool = False) -> None:
        """The events of a transaction in order of sub revision; the list belongs to the listener.

        `more`: the same revision continues in the next call. A transaction with many events
        delivers them in portions, without events of a later revision in between.
        """


class Listeners:
    """Several listeners as one; each is given a list of its own."""

    __slots__ = ("all",)

    def __init__(self, *listeners: Listener) -> None:
        self.all = listeners

    def __call__(self, revision: int, events: list[Event], more: bool = False) -> None:
        for listener in self.all:
            listener(revision, list(events), more)


def _each(heard: Listener | None) -> tuple[Listener, ...]:
    if isinstance(heard, Listeners):
        return heard.all
    return () if heard is None else (heard,)


def _as_one(listeners: tuple[Listener, ...]) -> Listener | None:
    """A single listener is used directly, which saves a call."""
    if len(listeners) > 1:
        return Listeners(*listeners)
    return listeners[0] if listeners else None


def joined(heard: Listener | None, listener: Listener) -> Listener | None:
    """`heard` with one more listener, at the end."""
    before = _each(heard)
    assert listener not in before, "it listens already"
    return _as_one((*before, listener))


def parted(heard: Listener | None, listener: Listener) -> Listener | None:
    """`heard` without one listener."""
    before = _each(heard)
    assert listener in before, "it does not listen"
    return _as_one(tuple(one for one in before if one != listener))


class StoreLessor(Protocol):
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
