"""How a call reaches a server: its connection, its headers, and when it is repeated.

The rules are those of etcd's own client (`client/v3/retry.go`, `retry_interceptor.go`):

    failure                                   read          write
    surely not sent                           again         again
    Unavailable                               again         fails
    asked a learner, and there are others     again         again
    old auth revision                         new token or none, again
    invalid token, user name missing          new token, again (only when the client has a user)
    anything else                             fails         fails

A call that was sent is tried up to 100 times, with 25 ms +- 10 % between rounds over a quorum of
the endpoints. All tries end at the call's deadline. Every failure is logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from keyraft.base.errors import (
    AuthNotEnabledError,
    AuthOldRevisionError,
    LearnerNotSupportedError,
)
from keyraft.base.log import Logger, NullLogger
from keyraft.client import errors
from keyraft.client.endpoint import Endpoint
from keyraft.client.pool import Pool
from keyraft.client.transport import CallFailed, Dial, EndpointConnection, EndpointStream, Headers
from keyraft.grpc import status
from keyraft.proto.lazy import rpc_pb2

READ_TRIES_MAX: Final = 100
BACKOFF_S: Final = 0.025
BACKOFF_JITTER: Final = 0.1
API_VERSION: Final = b"3.7"

AUTHENTICATE: Final = b"/etcdserverpb.Auth/Authenticate"
TOKEN_ERRORS: Final = frozenset(
    {
        "etcdserver: invalid auth token",
        "etcdserver: revision of auth store is old",
        "etcdserver: user name is empty",
    }
)

NOBODY: Final = "Peer{Addr: <nil>, LocalAddr: <nil>, AuthInfo: <nil>}"
NOT_READY: Final = "context deadline exceeded while waiting for connections to become ready"
SILENT: Final = NullLogger()

TokenSource = Callable[[], Awaitable[str]]


class Calls:
    """Calls of one client over its pool.

    `timeout_s` of a call: None takes the client's default, `errors`' DeadlineError ends it; 0 or
    less means no deadline.
    """

    def __init__(
        self,
        endpoints: list[Endpoint],
        dial: Dial,
        *,
        timeout_s: float,
        user: str = "",
        password: str = "",
        token: str | TokenSource = "",
        require_leader: bool = False,
        log: Logger = SILENT,
    ) -> None:
        self.log = log
        self.pool = Pool(endpoints, dial, log)
        self.dial = dial
        self.timeout_s = timeout_s
        self._user = user
        self._password = password
        self._token_source = token
        self._token = ""
        self._token_known = not (user or token)
        self._renewal: asyncio.Task[None] | None = None
        self._require_leader = require_leader
        self.headers: Headers = ()
        self.leader_headers: Headers = ()
        self._set_token("")

    # --- headers -------------------------------------------------------------------------

    def _set_token(self, token: str) -> None:
        self._token = token
        base: Headers = ((b"client-api-version", API_VERSION),)
        if token:
            base += ((b"token", token.encode()),)
        self.leader_headers = (*base, (b"hasleader", b"true"))
        self.headers = self.leader_headers if self._require_leader else base

    @property
    def has_user(self) -> bool:
        """Whether a new token can be fetched."""
        return bool(self._user) or callable(self._token_source)

    async def renew_token(self) -> None:
        """Fetches a token; callers that come meanwhile share the one fetch."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.ensure_future(self._renew())
        await asyncio.shield(self._renewal)

    async def _renew(self) -> None:
        source = self._token_source
        if callable(source):
            self._set_token(await source())
        elif source:
            self._set_token(source)
        else:
            request = rpc_pb2.AuthenticateRequest(name=self._user, password=self._password)
            self._set_token("")
            # Fetch the token by a call without a token: this method needs none.
            try:
                answer = await self._attempts(
                    AUTHENTICATE, request.SerializeToString(), True, self.timeout_s
                )
                self._set_token(rpc_pb2.AuthenticateResponse.FromString(answer).token)
            except AuthNotEnabledError:
                pass
        self._token_known = True

    # --- unary ---------------------------------------------------------------------------

    async def read(self, method: bytes, request: bytes, timeout_s: float | None = None) -> bytes:
        """Carries out a call that may be repeated."""
        return await self._call(method, request, True, timeout_s)

    async def write(self, method: bytes, request: bytes, timeout_s: float | None = None) -> bytes:
        """Carries out a call that must not be carried out twice."""
        return await self._call(method, request, False, timeout_s)

    async def _call(
        self, method: bytes, request: bytes, safe: bool, timeout_s: float | None
    ) -> bytes:
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        connection = self.pool.pick()
        if connection is None or not self._token_known:
            return await self._first(method, request, safe, limit_s)
        try:
            return await connection.unary(
                method, request, self.headers, limit_s if limit_s > 0 else None
            )
        except CallFailed as failure:
            self._say(method, 0, failure, connection)
            if not self._again(failure, safe):
                raise errors.from_status(failure.code, failure.text) from None
            return await self._attempts(method, request, safe, limit_s, failure)

    async def _first(self, method: bytes, request: bytes, safe: bool, limit_s: float) -> bytes:
        if not self._token_known:
            await self.renew_token()
        return await self._attempts(method, request, safe, limit_s)

    def _again(self, failure: CallFailed, safe: bool) -> bool:
        if not failure.sent:
            return True
        if failure.text in TOKEN_ERRORS and (self.has_user or self._without_token(failure)):
            return True
        if failure.text == LearnerNotSupportedError.text and len(self.pool.endpoints) > 1:
            return True
        return safe and failure.code == errors.UNAVAILABLE

    def _without_token(self, failure: CallFailed) -> bool:
        """Repeats a call of a user with a certificate and no token: users have changed."""
        return failure.text == AuthOldRevisionError.text and not self._token

    def _say(
        self,
        method: bytes,
        attempt: int,
        failure: CallFailed,
        connection: EndpointConnection | None,
    ) -> None:
        """A line about a failure, in the words of the original's interceptor."""
        if self.log is SILENT:
            return
        name = status.CODE_NAMES[failure.code] if failure.code < len(status.CODE_NAMES) else "?"
        self.log.warn(
            "retrying of unary invoker failed",
            target=f"etcd-endpoints://{id(self):#x}/{self.pool.endpoints[0].authority}",
            peer=getattr(connection, "ends", NOBODY),
            method=method.decode(),
            attempt=attempt,
            error=f"rpc error: code = {name} desc = {failure.text}",
        )

    async def _attempts(
        self,
        method: bytes,
        request: bytes,
        safe: bool,
        limit_s: float,
        failure: CallFailed | None = None,
    ) -> bytes:
        """The slow way: everything after a first failure or without a ready connection."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s if limit_s > 0 else None
        tried = 0 if failure is None else 1
        tokens = 0
        while True:
            if failure is not None:
                renewable = failure.text in TOKEN_ERRORS and not self._without_token(failure)
                if renewable and method != AUTHENTICATE:
                    tokens += 1
                    if tokens > 2:
                        raise errors.from_status(failure.code, failure.text)
                    await self.renew_token()
                elif failure.sent and tried >= READ_TRIES_MAX:
                    raise errors.from_status(failure.code, failure.text)
                await self._backoff(tried, deadline, failure)
            try:
                connection = await self._connection(deadline)
            except errors.DeadlineError as error:
                late = CallFailed(error.code, error.cause or NOT_READY, sent=False)
                self._say(method, tried, late, None)
                raise
            remaining_s = None if deadline is None else deadline - loop.time()
            try:
                return await connection.unary(method, request, self.headers, remaining_s)
            except CallFailed as error:
                self._say(method, tried, error, connection)
                if not self._again(error, safe):
                    raise errors.from_status(error.code, error.text) from None
                failure = error
                tried += 1

    async def _backoff(self, tried: int, deadline: float | None, failure: CallFailed) -> None:
        """Pauses after every round over a quorum of the endpoints."""
        quorum = len(self.pool.endpoints) // 2 + 1
        if tried % quorum:
            return
        import random  # importing it takes longer than all of this module

        pause_s = BACKOFF_S * (1 + BACKOFF_JITTER * (2 * random.random() - 1))
        if deadline is not None and asyncio.get_running_loop().time() + pause_s >= deadline:
            raise errors.DeadlineError(cause=failure.text) from failure
        await asyncio.sleep(pause_s)

    async def _connection(self, deadline: float | None) -> EndpointConnection:
        connection = self.pool.pick()
        if connection is not None:
            return connection
        now = asyncio.get_running_loop().time()
        try:
            return await self.pool.wait(None if deadline is None else deadline - now)
        except TimeoutError:
            raise self._late() from ConnectionError(self.pool.last_error)

    def _late(self) -> errors.DeadlineError:
        """The error of a call that found no server in time."""
        last = self.pool.last_error
        return errors.DeadlineError(cause=f"latest balancer error: {last}" if last else "")

    # --- streams -------------------------------------------------------------------------

    async def stream(
        self, method: bytes, *, leader: bool = False, fresh_token: bool = True
    ) -> EndpointStream:
        """A stream on the next ready connection, with a new token.

        A stream lives longer than a token, so a new one starts with a new token (as etcd's own
        client has it).
        """
        if not self._token_known or (fresh_token and self.has_user):
            await self.renew_token()
        connection = await self._connection(None)
        return connection.stream(method, self.leader_headers if leader else self.headers)

    async def server_stream(self, method: bytes, request: bytes) -> AsyncIterator[bytes]:
        """The answers to one request; the call is repeated only before the first answer."""
        renewed = False
        while True:
            stream = await self.stream(method, fresh_token=False)
            begun = False
            try:
                await stream.send(request)
                stream.half_close()
                while (message := await stream.receive()) is not None:
                    begun = True
                    yield message
                return
            except CallFailed as failure:
                token = failure.text in TOKEN_ERRORS and self.has_user and not renewed
                if begun or (failure.sent and not token):
                    raise errors.from_status(failure.code, failure.text) from None
            finally:
                stream.cancel()
            if token:
                renewed = True
                await self.renew_token()
            await asyncio.sleep(BACKOFF_S)

    async def on_endpoint(
        self, endpoint: Endpoint, method: bytes, request: bytes, timeout_s: float | None = None
    ) -> bytes:
        """One call on a connection of its own to `endpoint`; repeated only for a new token."""
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        if not self._token_known:
            await self.renew_token()
        connection: EndpointConnection | None = None
        try:
            async with asyncio.timeout(limit_s if limit_s > 0 else None):
                connection = await self._dial_until(endpoint)
                try:
                    return await connection.unary(method, request, self.headers, None)
                except CallFailed as failure:
                    self._say(method, 0, failure, connection)
                    if failure.text not in TOKEN_ERRORS or not self.has_user:
                        raise
                await self.renew_token()
                return await connection.unary(method, request, self.headers, None)
        except TimeoutError:
            error = errors.DeadlineError() if connection is not None else self._late()
            late = CallFailed(error.code, error.cause or error.text)
            self._say(method, 0, late, connection)
            raise error from None
        except CallFailed as failure:
            raise errors.from_status(failure.code, failure.text) from None
        finally:
            if connection is not None:
                await connection.close()

    async def _dial_until(self, endpoint: Endpoint) -> EndpointConnection:
        """Dials until it succeeds; the caller's deadline ends it."""
        pause_s = BACKOFF_S
        while True:
            try:
                return await self.dial(endpoint)
            except (OSError, ValueError) as error:
                self.pool.last_error = str(error)
                self.log.debug("failed to connect", endpoint=endpoint.text, error=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 1.0)

    async def connect(self, timeout_s: float | None = None) -> None:
        """Waits for a first connection and, with a user, for the token."""
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        deadline = asyncio.get_running_loop().time() + limit_s if limit_s > 0 else None
        try:
            await self._connection(deadline)
        except errors.DeadlineError as error:
            if not self._token_known:  # it is the token that the original waits for
                late = CallFailed(error.code, error.cause or NOT_READY, sent=False)
                self._say(AUTHENTICATE, 0, late, None)
            raise
        if not self._token_known:
            await self.renew_token()

    async def close(self) -> None:
        """Closes the pool; calls that wait fail."""
        if self._renewal is not None:
            self._renewal.cancel()
        await self.pool.close()
