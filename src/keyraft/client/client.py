"""The client: one object per program and cluster.

    async with Client("10.0.0.1:2379", "10.0.0.2:2379") as client:
        await client.put("greeting", "hello")
        print(await client.value("greeting"))

A `Space` is the part of it that speaks of keys; `client.namespace("app/")` is another, whose keys
all begin with `app/`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

from keyraft.base.log import Logger
from keyraft.client import endpoint as endpoints
from keyraft.client.auth import Auth
from keyraft.client.calls import SILENT, Calls, TokenSource
from keyraft.client.cluster import Cluster
from keyraft.client.dial import DIAL_TIMEOUT_S, KEEPALIVE_S, KEEPALIVE_TIMEOUT_S, TLS, Dialer
from keyraft.client.kv import KV
from keyraft.client.lease import Keeper, Leases
from keyraft.client.maintenance import Maintenance
from keyraft.client.pool import Pool
from keyraft.client.requests import Bytes, to_bytes
from keyraft.client.transport import Dial, Headers
from keyraft.client.watch import SharedWatchStream, Watch

ENDPOINT_DEFAULT: Final = "127.0.0.1:2379"
TIMEOUT_S: Final = 5.0  # what etcdctl gives a command


class Space(KV):
    """Keys, watches and leases under one prefix."""

    def __init__(
        self,
        calls: Calls,
        hubs: tuple[SharedWatchStream, SharedWatchStream],
        keeper: Keeper,
        prefix: bytes = b"",
    ) -> None:
        super().__init__(calls, prefix)
        self.prefix = prefix
        self._hubs = hubs
        self._keeper = keeper
        self.leases = Leases(calls, keeper, self._space)

    def namespace(self, prefix: Bytes) -> Space:
        """The keys below `prefix`, seen without it; it shares this client's connections."""
        return Space(self._calls, self._hubs, self._keeper, self.prefix + to_bytes(prefix))

    def watch(
        self,
        key: Bytes,
        range_end: Bytes | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        start_revision: int = 0,
        prev_kv: bool = False,
        progress_notify: bool = False,
        no_put: bool = False,
        no_delete: bool = False,
        fragment: bool = True,
        require_leader: bool = False,
    ) -> Watch:
        """A watch from `start_revision` on (0: from now on), to be used with `async with`.

        `progress_notify` makes the server send its revision while nothing happens; `no_put`,
        `no_delete` leave changes out; `require_leader` ends the watch with NoLeaderError when its
        member has lost the majority.
        """
        hub = self._hubs[1 if require_leader else 0]
        return hub.watch(
            key,
            range_end,
            self._space,
            prefix=prefix,
            from_key=from_key,
            start_revision=start_revision,
            prev_kv=prev_kv,
            progress_notify=progress_notify,
            no_put=no_put,
            no_delete=no_delete,
            fragment=fragment,
        )


class Client(Space):
    """A client of one cluster.

    `endpoints` are tried by turns. `timeout_s` is the default for every call, 0 for none.
    `token` is a fixed token or a coroutine function that fetches one; it and `user` exclude each
    other. A connection that is silent for `keepalive_s` while calls are open gets a ping, and is
    given up if no answer comes in `keepalive_timeout_s`. `receive_bytes_max` limits one answer (0:
    2 GiB). `dial` replaces how connections are made (for tests). `log` is told of failed calls and
    connections. Belongs to the event loop that it is first used on; not for threads (see
    `client.sync`).
    """

    def __init__(
        self,
        *endpoint: str,
        tls: TLS | None = None,
        user: str = "",
        password: str = "",
        token: str | TokenSource = "",
        timeout_s: float = TIMEOUT_S,
        require_leader: bool = False,
        dial_timeout_s: float = DIAL_TIMEOUT_S,
        keepalive_s: float = KEEPALIVE_S,
        keepalive_timeout_s: float = KEEPALIVE_TIMEOUT_S,
        receive_bytes_max: int = 0,
        dial: Dial | None = None,
        log: Logger = SILENT,
    ) -> None:
        if user and token:
            raise ValueError("user and token exclude each other")
        parsed = [endpoints.parse(text) for text in endpoint or (ENDPOINT_DEFAULT,)]
        if dial is None:
            dial = Dialer(
                tls,
                timeout_s=dial_timeout_s,
                keepalive_s=keepalive_s,
                keepalive_timeout_s=keepalive_timeout_s,
                receive_bytes_max=receive_bytes_max,
            )
        calls = Calls(
            parsed,
            dial,
            timeout_s=timeout_s,
            user=user,
            password=password,
            token=token,
            require_leader=require_leader,
            log=log,
        )
        hubs = (SharedWatchStream(calls, leader=False), SharedWatchStream(calls, leader=True))
        super().__init__(calls, hubs, Keeper(calls))
        self.cluster = Cluster(calls)
        self.maintenance = Maintenance(calls)
        self.auth = Auth(calls)

    @property
    def pool(self) -> Pool:
        """The connections, for a proxy that makes its own calls on them."""
        return self._calls.pool

    @property
    def headers(self) -> Headers:
        """What each call carries."""
        return self._calls.headers

    @property
    def endpoints(self) -> list[str]:
        """The endpoints in use."""
        return [endpoint.text for endpoint in self._calls.pool.endpoints]

    def set_endpoints(self, *endpoint: str) -> None:
        """Replaces the endpoints; connections to those that stay are kept."""
        if not endpoint:
            raise ValueError("a client needs an endpoint")
        self._calls.pool.set_endpoints([endpoints.parse(text) for text in endpoint])

    async def sync_endpoints(self) -> list[str]:
        """Takes the client URLs of the cluster's voters as endpoints, and returns them."""
        members = (await self.cluster.members()).members
        found = [url for member in members if not member.isLearner for url in member.clientURLs]
        if found:
            self.set_endpoints(*found)
        return self.endpoints

    async def connect(self, timeout_s: float | None = None) -> None:
        """Waits for a first connection and, with a user, for a token.

        Optional: the first call connects, too. Raises DeadlineError, AuthFailedError.
        """
        await self._calls.connect(timeout_s)

    async def close(self) -> None:
        """Ends watches and renewals, closes the connections; leases expire by themselves."""
        for hub in self._hubs:
            await hub.close()
        await self._keeper.close()
        await self._calls.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
