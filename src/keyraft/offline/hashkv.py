"""HashKV of a database that no member has open, by the store's own algorithm."""

from __future__ import annotations

from collections.abc import Sequence

from keyraft.base.errors import EtcdError
from keyraft.mvcc import BackendError, KVHash, Store
from keyraft.mvcc.hash import hash_kv as start_hash
from keyraft.offline.source import OfflineError, Source


class _Frozen:
    """A read-only database for the store."""

    def __init__(self, source: Source) -> None:
        self.get = source.get
        self.range = source.range
        self.size_bytes = self.size_in_use_bytes = source.size_bytes

    def get_all(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(bucket, key) for key in keys]

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        raise OfflineError("a database at rest is not written")

    def delete(self, bucket: bytes, key: bytes) -> None:
        raise OfflineError("a database at rest is not written")

    def before_commit(self, hook: object) -> None:
        """There is no commit."""

    def flush(self, done: object = None) -> None:
        """There is nothing to flush."""


def hash_kv(path: str, revision: int = 0, timeout_s: float = 0) -> KVHash:
    """Hash, hash revision and compact revision of the database at `path`. Raises OfflineError."""
    with Source(path, timeout_s) as source:
        try:
            return start_hash(Store(_Frozen(source)), revision).run()
        except (EtcdError, BackendError) as error:
            raise OfflineError(str(error).removeprefix("etcdserver: ")) from error
