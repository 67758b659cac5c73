"""Users, roles and their revision as they are stored: etcd's buckets, etcd's bytes.

| bucket | key | value |
|---|---|---|
| `auth` | `authEnabled` | one byte, 0 or 1 |
| | `authRevision` | u64, big endian; 1 at creation |
| `authUsers` | the name | authpb.User: name 1, password 2 (bcrypt text), roles 3, options 4 |
| `authRoles` | the name | authpb.Role: name 1, keyPermission 2 (permType 1, key 2, range_end 3) |

Source: etcd `server/storage/schema/auth*.go`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from keyraft.mvcc import Backend, BackendError
from keyraft.mvcc.backend import AUTH, AUTH_ROLES, AUTH_USERS
from keyraft.proto import auth_pb2

PAGE: Final = 500  # users or roles that one step looks at

_ENABLED: Final = b"authEnabled"
_REVISION: Final = b"authRevision"
M = TypeVar("M", bound=Message)


class Records:
    """The three buckets. Raises BackendError when what they hold is no record."""

    __slots__ = ("_backend",)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def enabled(self) -> bool:
        """Whether authentication is on."""
        return self._backend.get(AUTH, _ENABLED) == b"\1"

    def set_enabled(self, enabled: bool) -> None:
        """Turns authentication on or off."""
        self._backend.put(AUTH, _ENABLED, b"\1" if enabled else b"\0")

    def revision(self) -> int:
        """How often users and roles have changed; 0 in a database that never had any."""
        stored = self._backend.get(AUTH, _REVISION)
        return int.from_bytes(stored, "big") if stored else 0

    def set_revision(self, revision: int) -> None:
        """Stores the revision."""
        self._backend.put(AUTH, _REVISION, revision.to_bytes(8, "big"))

    def user(self, name: str | bytes) -> auth_pb2.User | None:
        """One user."""
        key = name if isinstance(name, bytes) else name.encode()
        stored = self._backend.get(AUTH_USERS, key) if key else None
        return None if stored is None else _parse(auth_pb2.User(), stored)

    def users(self) -> Iterator[list[auth_pb2.User]]:
        """All users, by name, `PAGE` at a time; those behind a page may be changed meanwhile."""
        for page in self._pages(AUTH_USERS):
            yield [_parse(auth_pb2.User(), value) for _, value in page]

    def names(self, bucket: bytes) -> Iterator[list[bytes]]:
        """The names in AUTH_USERS or AUTH_ROLES, in order, `PAGE` at a time."""
        for page in self._pages(bucket):
            yield [name for name, _ in page]

    def _pages(self, bucket: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
        start = b""
        while page := list(self._backend.range(bucket, start, limit=PAGE)):
            yield page
            if len(page) < PAGE:
                return
            start = page[-1][0] + b"\0"

    def put_user(self, user: auth_pb2.User) -> None:
        """Writes one."""
        self._backend.put(AUTH_USERS, user.name, user.SerializeToString())

    def delete_user(self, name: str) -> None:
        """Deletes one."""
        self._backend.delete(AUTH_USERS, name.encode())

    def role(self, name: str) -> auth_pb2.Role | None:
        """One role."""
        stored = self._backend.get(AUTH_ROLES, name.encode()) if name else None
        return None if stored is None else _parse(auth_pb2.Role(), stored)

    def put_role(self, role: auth_pb2.Role) -> None:
        """Writes one."""
        self._backend.put(AUTH_ROLES, role.name, role.SerializeToString())

    def delete_role(self, name: str) -> None:
        """Deletes one."""
        self._backend.delete(AUTH_ROLES, name.encode())


def _parse(record: M, stored: bytes) -> M:
    try:
        record.ParseFromString(stored)
    except DecodeError as error:
        raise BackendError(f"a record of users or roles is damaged: {error}") from None
    return record
