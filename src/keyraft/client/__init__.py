"""The client library: keys, watches, leases, transactions, operators' calls (docs/CLIENT.md).

    from keyraft.client import Client, put, value

    async with Client("127.0.0.1:2379") as client:
        await client.put("greeting", "hello")
        async with client.watch("greeting") as watch:
            async for event in watch: ...

Recipes (lock, election, session, software transactional memory, queues, barriers) are in
`keyraft.client.recipes`; the same client without coroutines is `keyraft.client.sync`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.base.lazy import names_in
from keyraft.client import errors
from keyraft.client.client import Client, Space
from keyraft.client.dial import TLS, Dialer
from keyraft.client.lease import KeepAlive, Lease
from keyraft.client.namespace import Namespace
from keyraft.client.requests import prefix_end
from keyraft.client.transport import DirectConnection, Headers
from keyraft.client.txn import (
    Txn,
    create_revision,
    delete,
    exists,
    get,
    lease_of,
    missing,
    mod_revision,
    nested,
    put,
    value,
    version,
)
from keyraft.client.watch import Watch

if TYPE_CHECKING:
    from keyraft.client.discovery import discover
    from keyraft.client.watch import DELETE, PUT, Event

__all__ = [
    "DELETE",
    "PUT",
    "TLS",
    "Client",
    "Dialer",
    "DirectConnection",
    "Event",
    "Headers",
    "KeepAlive",
    "Lease",
    "Namespace",
    "Space",
    "Txn",
    "Watch",
    "create_revision",
    "delete",
    "discover",
    "errors",
    "exists",
    "get",
    "lease_of",
    "missing",
    "mod_revision",
    "nested",
    "prefix_end",
    "put",
    "value",
    "version",
]


__getattr__ = names_in(
    __name__,
    {
        ".discovery": ("discover",),
        ".watch": ("DELETE", "Event", "PUT"),
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
