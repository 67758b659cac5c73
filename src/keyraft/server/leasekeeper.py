"""The lessor as the store sees it."""

from __future__ import annotations

from keyraft.lease import Lessor


class LeaseKeeper:
    """Passes the store's attachments on. A key whose lease is not there is left without one, as in
    a database of an older etcd."""

    __slots__ = ("_lessor",)

    def __init__(self, lessor: Lessor) -> None:
        self._lessor = lessor

    def exists(self, lease_id: int) -> bool:
        """Whether the lease is granted and not yet revoked."""
        return lease_id in self._lessor

    def attach(self, lease_id: int, key: bytes) -> None:
        """`key` now lives under the lease."""
        if lease_id in self._lessor:
            self._lessor.attach(lease_id, key)

    def detach(self, lease_id: int, key: bytes) -> None:
        """`key` no longer lives under the lease."""
        if self._lessor.lease_of(key) == lease_id:
            self._lessor.detach(key)
