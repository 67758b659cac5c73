"""Postponed requests: their handler could not answer yet and is called again.

Meanwhile a stream's further messages wait, so their order is kept. A unary call that has ended by
then (by its deadline or its client) is not called again. A stream that has waited too long ends;
its `on_cancel` is called, because the handler did not end it.
"""

from __future__ import annotations

from collections.abc import Callable

from keyraft.base.errors import EtcdError, PostponedError, RawError

from .calls import Call, Stream
from .route import Route


def postpone(
    call: Call,
    message: bytes,
    later: PostponedError,
    unary: Callable[[Call, Route, bytes], None],
) -> None:
    """Calls the handler again when `later` calls back; `unary` does so for a unary request."""
    if isinstance(call, Stream):
        call.pause_reading()

    def again(error: EtcdError | None) -> None:
        if call.done:
            return
        if error is not None:
            if isinstance(call, Stream) and call.handler is not None:
                call.handler.on_cancel(error.code)
            call.fail(error.code, error.text)
        elif isinstance(call, Stream):
            _deliver(call, message, unary)
        else:
            route = call.header.route
            assert route is not None, "a call with a handler has a route"
            route.msg_received -= 1  # counted when it came
            unary(call, route, message)

    later.when(again)


def _deliver(stream: Stream, message: bytes, unary: Callable[[Call, Route, bytes], None]) -> None:
    inbox = stream.inbox
    assert inbox is not None and stream.handler is not None, "a paused stream has both"
    inbox.paused = False
    try:
        stream.handler.on_message(message)
    except PostponedError as later:
        postpone(stream, message, later, unary)
        return
    except (EtcdError, RawError) as refusal:
        stream.finish(refusal.code, refusal.text)
        return
    if not inbox.paused:  # the handler itself has not paused it
        inbox.paused = True
        stream.resume_reading()
