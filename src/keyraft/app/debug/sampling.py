"""Profiles of this process: where its threads use the processor, what memory they take.

A thread of its own looks at the stacks of the others SAMPLES_PER_S times a second. Each stack gets
the processor's time that its thread has used since the look before, so a thread that waits weighs
nothing. The looks cost the loop about a hundredth; there are none without a profile.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import tracemalloc
from types import FrameType
from typing import Final

from keyraft.app.debug.profile import CodePlace, Profile, Stack

SAMPLES_PER_S: Final = 100  # as Go's
DEPTH_MAX: Final = 128
MEMORY_DEPTH: Final = 16


def stack_of(frame: FrameType | None) -> Stack:
    """The places of a stack, the innermost first."""
    found: list[CodePlace] = []
    while frame is not None and len(found) < DEPTH_MAX:
        code = frame.f_code
        found.append(CodePlace(code.co_qualname, code.co_filename, frame.f_lineno or 0))
        frame = frame.f_back
    return tuple(found)


def processor(seconds: float, ended: threading.Event) -> Profile:
    """Looks for so long, or until `ended`. Called by a thread of its own."""
    own = threading.get_ident()
    began_ns, began_unix_ns = time.monotonic_ns(), time.time_ns()
    until_s = time.monotonic() + seconds
    used_ns: dict[int, int] = {}
    values: dict[Stack, tuple[int, int]] = {}
    while time.monotonic() < until_s and not ended.wait(1 / SAMPLES_PER_S):
        alive = {thread.ident for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            if ident == own or ident not in alive:
                continue
            now_ns = _used_ns(ident)
            took_ns = now_ns - used_ns.get(ident, now_ns)
            used_ns[ident] = now_ns
            if took_ns > 0:
                stack = stack_of(frame)
                count, total_ns = values.get(stack, (0, 0))
                values[stack] = count + 1, total_ns + took_ns
    return Profile(
        (("samples", "count"), ("cpu", "nanoseconds")),
        1_000_000_000 // SAMPLES_PER_S,
        values,
        began_unix_ns,
        time.monotonic_ns() - began_ns,
    )


def _used_ns(ident: int) -> int:
    """The processor's time of a thread that is alive."""
    try:
        return time.clock_gettime_ns(time.pthread_getcpuclockid(ident))
    except OSError:  # it has just ended
        return 0


def memory(seconds: float, ended: threading.Event) -> Profile:
    """What was allocated in the time and is still there. Called by a thread of its own.

    Allocations take several times as long meanwhile.
    """
    began_ns, began_unix_ns = time.monotonic_ns(), time.time_ns()
    tracemalloc.start(MEMORY_DEPTH)
    try:
        ended.wait(seconds)
        snapshot = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    values: dict[Stack, tuple[int, int]] = {}
    for trace in snapshot.traces:
        places = (
            CodePlace(f"{one.filename.rpartition('/')[2]}:{one.lineno}", one.filename, one.lineno)
            for one in reversed(trace.traceback)
        )
        stack = tuple(places)
        count, size = values.get(stack, (0, 0))
        values[stack] = count + 1, size + trace.size
    return Profile(
        (("inuse_objects", "count"), ("inuse_space", "bytes")),
        0,
        values,
        began_unix_ns,
        time.monotonic_ns() - began_ns,
    )


def stacks() -> Profile:
    """Where all threads and tasks stand. Called by the loop's thread."""
    values: dict[Stack, tuple[int]] = {}
    found = [stack_of(frame) for frame in sys._current_frames().values()]
    for task in asyncio.all_tasks():
        found.append(
            tuple(
                CodePlace(frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno or 0)
                for frame in reversed(task.get_stack())
            )
        )
    for stack in filter(None, found):
        values[stack] = (values.get(stack, (0,))[0] + 1,)
    return Profile((("goroutine", "count"),), 1, values, time.time_ns(), 0)
