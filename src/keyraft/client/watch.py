"""Watching: every change of a range from a revision on, once and in order, over broken connections.

All watches of a client share one stream to one server. When it breaks, the hub opens another and
creates every watch anew at its next revision.

    watch       on the stream as            until
    wanted      nothing                     its create request is sent
    creating    an entry of `_creating`     the server's `created` (they come in order)
    running     an id in `_running`         cancelled, broken, or paused
    paused      nothing                     its reader has caught up; then wanted again

Invariants:
- `next_revision` is 1 + the revision of the last change handed to the reader's queue, or the
  revision that the watch began at; it never falls. Changes below it are dropped, so that nothing
  is delivered twice; a watch is always created at it, so that nothing is left out.
- A change of many keys reaches the queue as a whole: fragments are put together first.
- A queue holds at most `BUFFERED_EVENTS_MAX` events beyond one answer. The watch of a slower reader
  is cancelled at the server, and created again when the reader has caught up. So a slow reader
  costs no memory and does not hold up other watches.

A watch ends with an error when its next revision is compacted (WatchCompactedError), when the
server cancels it (permission, for instance), and, for one that requires a leader, when there is
none. Source: etcd `client/v3/watch.go`, which never pauses a watch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from keyraft.base.errors import NoLeaderError
from keyraft.client import errors
from keyraft.client.calls import TOKEN_ERRORS, Calls
from keyraft.client.namespace import Namespace
from keyraft.client.requests import Bytes, key_range
from keyraft.client.transport import CallFailed, EndpointStream
from keyraft.proto.lazy import mvcc_pb2, rpc_pb2

METHOD: Final = b"/etcdserverpb.Watch/Watch"
BUFFERED_EVENTS_MAX: Final = 65_536
REOPEN_S_MIN: Final = 0.01
REOPEN_S_MAX: Final = 0.5

if TYPE_CHECKING:
    PUT: Final = mvcc_pb2.Event.PUT
    DELETE: Final = mvcc_pb2.Event.DELETE
    Event = mvcc_pb2.Event


def __getattr__(name: str) -> Any:
    """The messages' names; their module is imported when one is first used."""
    if name in ("DELETE", "PUT", "Event"):
        return getattr(mvcc_pb2.Event, name, mvcc_pb2.Event)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Watch:
    """The reader's end of one watch; made by `Client.watch`.

    `async with` waits until the server has created it, and takes it off the server at the end.
    `async for event in watch` gives single events, `async for answer in watch.responses()` the
    server's answers with their header (those without events are progress notices).
    """

    def __init__(
        self, hub: SharedWatchStream, request: rpc_pb2.WatchCreateRequest, space: Namespace | None
    ) -> None:
        self._hub = hub
        self._request = request
        self._space = space
        self._queue: deque[rpc_pb2.WatchResponse] = deque()
        self._queued_events = 0
        self._pending: deque[Event] = deque()
        self._wakeup: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._fragments: rpc_pb2.WatchResponse | None = None
        self.next_revision = request.start_revision
        self.cancellation: rpc_pb2.WatchResponse | None = None  # the server's, when it ended it
        self.paused = False
        self.created = False
        self.done = False

    # --- the reader's side ---------------------------------------------------------------

    async def __aenter__(self) -> Watch:
        self._hub.add(self)
        try:
            while not self.created and not self.done:
                await self._wait()
        except BaseException:
            self.cancel()
            raise
        if self._error is not None and not self._queue:
            raise self._error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        while not self._pending:
            response = await self.next_response()
            if response is None:
                raise StopAsyncIteration
            self._pending.extend(response.events)
        return self._pending.popleft()

    async def responses(self) -> AsyncIterator[rpc_pb2.WatchResponse]:
        """The server's answers one by one, until the watch is cancelled here."""
        while (response := await self.next_response()) is not None:
            yield response

    async def next_response(self) -> rpc_pb2.WatchResponse | None:
        """The next answer; None after `cancel`. Raises what ended the watch otherwise."""
        while not self._queue:
            if self.done:
                if self._error is not None:
                    raise self._error
                return None
            await self._wait()
        response = self._queue.popleft()
        self._queued_events -= len(response.events)
        if self.paused and self._queued_events < BUFFERED_EVENTS_MAX // 2:
            self._hub.resume(self)
        return response

    async def request_progress(self) -> None:
        """Asks the server for the progress of all watches of this client's stream."""
        await self._hub.request_progress()

    def cancel(self) -> None:
        """Ends the watch, here at once and at the server soon; queued events are dropped."""
        if not self.done:
            self._hub.remove(self)
            self._finish(None)
        self._queue.clear()
        self._queued_events = 0
        self._pending.clear()

    async def _wait(self) -> None:
        self._wakeup = asyncio.get_running_loop().create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None

    # --- the hub's side ------------------------------------------------------------------

    def create_request(self) -> bytes:
        """The request that continues the watch where it is."""
        self._fragments = None
        self._request.start_revision = self.next_revision
        return rpc_pb2.WatchRequest(create_request=self._request).SerializeToString()

    def on_created(self, response: rpc_pb2.WatchResponse) -> None:
        """The server has created the watch."""
        if not self.next_revision:
            self.next_revision = response.header.revision + 1
        self.created = True
        self._wake()

    def on_response(self, response: rpc_pb2.WatchResponse) -> None:
        """Queues changes and progress."""
        if response.fragment or self._fragments is not None:
            response = self._join(response)
            if response.fragment:
                return
            self._fragments = None
        events = response.events
        if events:
            if events[0].kv.mod_revision < self.next_revision:
                kept = [event for event in events if event.kv.mod_revision >= self.next_revision]
                if not kept:
                    return
                del events[:]
                events.extend(kept)
            self.next_revision = events[-1].kv.mod_revision + 1
        elif response.watch_id >= 0 and response.header.revision >= self.next_revision:
            self.next_revision = response.header.revision + 1
        if self._space is not None:
            self._space.strip_events(response)
        self._queue.append(response)
        self._queued_events += len(events)
        self._wake()

    def _join(self, response: rpc_pb2.WatchResponse) -> rpc_pb2.WatchResponse:
        whole = self._fragments
        if whole is None:
            self._fragments = response
            return response
        whole.events.extend(response.events)
        whole.fragment = response.fragment
        return whole

    @property
    def overfull(self) -> bool:
        """The reader is too far behind."""
        return self._queued_events > BUFFERED_EVENTS_MAX

    def fail(self, error: Exception) -> None:
        """Ends the watch with an error, which the reader gets after the queued events."""
        if not self.done:
            self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        self.done = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


class SharedWatchStream:
    """The stream that a client's watches share; one hub for each kind of header."""

    def __init__(self, calls: Calls, *, leader: bool) -> None:
        self._calls = calls
        self._leader = leader
        self._watches: dict[Watch, None] = {}  # in the order of their making
        self._creating: deque[Watch | None] = deque()  # None: cancelled before it was created
        self._running: dict[int, Watch] = {}
        self._ids: dict[Watch, int] = {}
        self._stream: EndpointStream | None = None
        self._outbox: deque[bytes] = deque()
        self._progress_wanted = False  # asked for while there was no stream
        self._sender: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def watch(
        self,
        key: Bytes,
        range_end: Bytes | None,
        space: Namespace | None,
        *,
        prefix: bool,
        from_key: bool,
        start_revision: int,
        prev_kv: bool,
        progress_notify: bool,
        no_put: bool,
        no_delete: bool,
        fragment: bool,
    ) -> Watch:
        """Builds a watch; it begins with `async with`."""
        start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
        if space is not None:
            if start == end == b"\0":
                start = b""
            start, end = space.prefix + start, space.range_end(end)
        request = rpc_pb2.WatchCreateRequest(
            key=start,
            range_end=end,
            start_revision=start_revision,
            prev_kv=prev_kv,
            progress_notify=progress_notify,
            fragment=fragment,
        )
        if no_put:
            request.filters.append(rpc_pb2.WatchCreateRequest.NOPUT)
        if no_delete:
            request.filters.append(rpc_pb2.WatchCreateRequest.NODELETE)
        return Watch(self, request, space)

    def add(self, watch: Watch) -> None:
        """Begins a watch."""
        self._watches[watch] = None
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())
            self._task.add_done_callback(self._ended)
        elif self._stream is not None:
            self._create(watch)

    def remove(self, watch: Watch) -> None:
        """Removes a watch; the stream is closed with the last one."""
        self._watches.pop(watch, None)
        self._take_off(watch)
        if not self._watches and self._task is not None:
            self._task.cancel()
            self._task = None
            if self._stream is not None:
                self._drop(self._stream)

    def resume(self, watch: Watch) -> None:
        """Creates a paused watch anew."""
        watch.paused = False
        if self._stream is not None and not watch.done:
            self._create(watch)

    async def request_progress(self) -> None:
        """Asks for the progress of the whole stream, as soon as all its watches are created.

        A server ignores the request while a watch catches up, as a new watch does.
        """
        if self._stream is None or self._creating:
            self._progress_wanted = True
        else:
            self._post(_progress_request())

    def _ask_for_progress(self) -> None:
        if self._progress_wanted and not self._creating:
            self._progress_wanted = False
            self._post(_progress_request())

    async def close(self) -> None:
        """Ends every watch."""
        for watch in list(self._watches):
            watch.fail(errors.ClosedError("the client is closed"))
        self._watches.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Ends all watches after an unexpected error, such as an answer that is no message."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._fail_all(error)

    # --- the stream ----------------------------------------------------------------------

    async def _run(self) -> None:
        pause_s = REOPEN_S_MIN
        while self._watches:
            try:
                stream = await self._calls.stream(METHOD, leader=self._leader)
                try:
                    heard = await self._serve(stream)
                finally:
                    self._drop(stream)
            except CallFailed as failure:
                if not self._endured(failure):
                    return
                heard = False
            except (errors.EtcdError, errors.RawError) as error:  # of fetching the token
                if not isinstance(error, errors.DeadlineError | errors.UnavailableError):
                    self._fail_all(error)
                    return
                heard = False
            pause_s = REOPEN_S_MIN if heard else min(pause_s * 2, REOPEN_S_MAX)
            await asyncio.sleep(pause_s)

    async def _serve(self, stream: EndpointStream) -> bool:
        """Runs one stream to its end; True when it had created something."""
        self._stream = stream
        self._sender = asyncio.ensure_future(self._send(stream))
        for watch in self._watches:
            if not watch.paused:
                self._create(watch)
        heard = False
        while True:
            try:
                message = await stream.receive()
            except CallFailed as failure:
                if heard and self._endured(failure):
                    return True
                raise
            if message is None:
                return heard
            heard = True
            if not self._on_response(rpc_pb2.WatchResponse.FromString(message)):
                return True

    def _endured(self, failure: CallFailed) -> bool:
        """Whether watches survive this failure; those that do not end with an error."""
        if failure.text in TOKEN_ERRORS and self._calls.has_user:
            return True
        error = errors.from_status(failure.code, failure.text)
        if not failure.sent or (
            failure.code in (errors.UNAVAILABLE, errors.INTERNAL)
            and not isinstance(error, NoLeaderError)
        ):
            return True
        self._fail_all(error)
        return False

    def _fail_all(self, error: Exception) -> None:
        watches, self._watches = self._watches, {}
        for watch in watches:
            watch.fail(error)

    def _drop(self, stream: EndpointStream) -> None:
        stream.cancel()
        if self._stream is not stream:
            return  # the last watch was removed, and perhaps another stream is open already
        self._stream = None
        self._creating.clear()
        self._running.clear()
        self._ids.clear()
        self._outbox.clear()
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None

    def _create(self, watch: Watch) -> None:
        self._creating.append(watch)
        self._post(watch.create_request())

    def _take_off(self, watch: Watch) -> None:
        """Removes a watch from the stream, if it is there."""
        watch_id = self._ids.pop(watch, None)
        if watch_id is not None:
            del self._running[watch_id]
            self._cancel(watch_id)
        elif watch in self._creating:
            self._creating[self._creating.index(watch)] = None

    def _cancel(self, watch_id: int) -> None:
        request = rpc_pb2.WatchRequest(cancel_request={"watch_id": watch_id})
        self._post(request.SerializeToString())

    def _on_response(self, response: rpc_pb2.WatchResponse) -> bool:
        """Carries out one answer; False asks for a new stream (the token has run out)."""
        if response.created:
            watch = self._creating.popleft() if self._creating else None
            self._ask_for_progress()
            if response.canceled:
                return watch is None or self._on_canceled(watch, response)
            if watch is None:
                self._cancel(response.watch_id)
                return True
            self._running[response.watch_id] = watch
            self._ids[watch] = response.watch_id
            watch.on_created(response)
            return True
        if response.watch_id < 0 and not response.canceled:
            for watch in self._running.values():  # progress of the whole stream
                watch.on_response(response)
            return True
        watch = self._running.get(response.watch_id)
        if watch is None:
            return True
        if response.canceled:
            del self._running[response.watch_id]
            self._ids.pop(watch, None)
            return self._on_canceled(watch, response)
        watch.on_response(response)
        if watch.overfull:
            watch.paused = True
            self._take_off(watch)
        return True

    def _on_canceled(self, watch: Watch, response: rpc_pb2.WatchResponse) -> bool:
        if response.compact_revision:
            error: Exception = errors.WatchCompactedError(response.compact_revision)
        else:
            error = errors.from_cancel_reason(response.cancel_reason)
            if str(error) in TOKEN_ERRORS and self._calls.has_user:
                return False
        self._watches.pop(watch, None)
        watch.cancellation = response
        watch.fail(error)
        return True

    # --- sending -------------------------------------------------------------------------

    def _post(self, message: bytes) -> None:
        if self._stream is None:
            return
        self._outbox.append(message)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.ensure_future(self._send(self._stream))

    async def _send(self, stream: EndpointStream) -> None:
        """Sends what is posted; the stream's `receive` raises failures."""
        try:
            while self._outbox:
                await stream.send(self._outbox.popleft())
        except CallFailed:
            return


def _progress_request() -> bytes:
    return rpc_pb2.WatchRequest(progress_request={}).SerializeToString()
