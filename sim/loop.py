"""Virtual time: an event loop whose clock jumps to the next thing to do.

Calls due at the same moment run in the order in which they were made, so a run is the same every
time. Satisfies `keyraft.base.clock.Loop`. Exceptions are not swallowed: they end the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

from sim.disk import PowerLost

STEPS_MAX: Final = 3_000_000  # of a run; a usual one has tens of thousands


class SimTimer:
    """A call that waits for its virtual time."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., Any] | None = callback  # None: taken back
        self.args = args

    def cancel(self) -> None:
        """Takes the call back."""
        self.callback = None
        self.args = ()


class SimLoop:
    """The clock and the queue of everything that happens in one run."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._order = 0
        self._ready: deque[SimTimer] = deque()
        self._timers: list[tuple[float, int, SimTimer]] = []
        self.steps = 0

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._now_s

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Runs after everything that is already waiting for this moment."""
        timer = SimTimer(callback, args)
        self._ready.append(timer)
        return timer

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Runs `delay` virtual seconds from now."""
        timer = SimTimer(callback, args)
        self._order += 1
        due_s = self._now_s + delay if delay > 0.0 else self._now_s
        heappush(self._timers, (due_s, self._order, timer))
        return timer

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Runs at virtual second `when`."""
        return self.call_later(when - self._now_s, callback, *args)

    def run_until(self, end_s: float, condition: Callable[[], bool] | None = None) -> bool:
        """Lets time pass up to `end_s`, or until `condition` holds; says whether it held."""
        ready, timers = self._ready, self._timers
        while True:
            if condition is not None and condition():
                return True
            while timers and timers[0][0] <= self._now_s:
                ready.append(heappop(timers)[2])
            if not ready:
                if not timers or timers[0][0] > end_s:
                    self._now_s = max(self._now_s, end_s)
                    return condition() if condition is not None else True
                self._now_s, _, timer = heappop(timers)
                ready.append(timer)
            timer = ready.popleft()
            if timer.callback is not None:
                self.steps += 1
                assert self.steps <= STEPS_MAX, f"no end in sight after {self.steps} steps"
                timer.callback(*timer.args)


class CoarseLoop:
    """The clock of another loop in whole milliseconds, as uvloop has it.

    It says that it is up to a millisecond earlier than it is, and a timer fires up to one and a
    half before its time, or half of one behind it.
    """

    def __init__(self, loop: SimLoop | MemberLoop) -> None:
        self._loop = loop
        self.call_soon = loop.call_soon

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000 + 1e-6)

    def time(self) -> float:
        """Seconds, rounded down."""
        return self._now_ms() / 1000

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Runs after `delay` seconds, rounded to the nearest millisecond."""
        ticks = round(delay * 1000)
        if ticks <= 0:
            return self.call_soon(callback, *args)
        due_s = (self._now_ms() + ticks) / 1000
        return self._loop.call_later(max(due_s - self._loop.time(), 0.0), callback, *args)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Runs at second `when`, by the same rounding."""
        return self.call_later(when - self.time(), callback, *args)


class MemberLoop:
    """One member's view of the loop: its calls die with it, its clock may run fast or slow.

    `rate` is how many of the member's seconds pass in one virtual second. A paused member's calls
    wait for `resume`; a killed member's never run. A loop that is held, by a sync say, is ahead of
    the world: what it does in the rest of its turn happens at the time when it is let go.
    """

    def __init__(
        self,
        loop: SimLoop,
        rate: float = 1.0,
        power_lost: Callable[[], None] | None = None,
        unexpected: Callable[[Exception], None] | None = None,
    ) -> None:
        """`power_lost`: the machine went off amid a write, and with it this member. `unexpected` is
        told what a callback raised, as an asyncio loop's exception handler is."""
        self._loop = loop
        self._power_lost = power_lost
        self._unexpected = unexpected
        self._rate = rate
        self._waiting: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._requests: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._held_until_s = 0.0  # virtual seconds
        self.alive = True
        self.paused = False

    def time(self) -> float:
        """The member's own seconds."""
        return max(self._loop.time(), self._held_until_s) * self._rate

    @property
    def ahead_s(self) -> float:
        """How many virtual seconds later it is for who holds the loop."""
        return max(0.0, self._held_until_s - self._loop.time())

    def hold(self, seconds: float) -> None:
        """Nothing else of this member happens for so many virtual seconds."""
        self._held_until_s = self._loop.time() + self.ahead_s + seconds

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Runs in the next turn, if the member still lives."""
        return self._loop.call_soon(self._run, callback, args)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Runs after `delay` of the member's own seconds."""
        return self._loop.call_later(self.ahead_s + delay / self._rate, self._run, callback, args)

    def call_beside(self, seconds: float, callback: Callable[..., Any], *args: Any) -> None:
        """A thread of the member does something in so many virtual seconds, loop held or not."""
        self._loop.call_later(seconds, self._run_beside, callback, args)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Runs at the member's own second `when`."""
        return self.call_later(when - self.time(), callback, *args)

    def kill(self) -> None:
        """Nothing that this member planned will happen."""
        self.alive = False
        self._waiting.clear()
        self._requests.clear()

    def pause(self) -> None:
        """The process is stopped; time goes on without it."""
        self.paused = True

    def request(self, callback: Callable[..., Any], *args: Any) -> None:
        """Something from a client: a paused member finds it in its sockets when it goes on."""
        if self.paused:
            self._requests.append((callback, args))
        else:
            self.call_soon(callback, *args)

    def resume(self, requests_first: bool = False) -> None:
        """What came due during the pause happens now, in its order; clients' requests by themselves."""
        self.paused = False
        held, self._waiting = self._waiting, []
        requests, self._requests = self._requests, []
        for callback, args in requests + held if requests_first else held + requests:
            self._loop.call_soon(self._run, callback, args)

    def _run(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self.alive and self._held_until_s > self._loop.time():
            self._loop.call_at(self._held_until_s, self._run, callback, args)
        else:
            self._run_beside(callback, args)

    def _run_beside(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if not self.alive:
            return
        if self.paused:
            self._waiting.append((callback, args))
            return
        try:
            callback(*args)
        except PowerLost:
            assert self._power_lost is not None, "only disks of machines lose power"
            self._power_lost()
        except AssertionError:
            raise  # a judge's, or our own: the run is over
        except Exception as error:
            if self._unexpected is None:
                raise
            self._unexpected(error)
