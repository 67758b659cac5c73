"""What runs beside a simulated member's loop: jobs that take their time, one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sim.loop import MemberLoop


class SimThread:
    """One thread of a member; a job's deeds are done when its time has passed.

    Satisfies `keyraft.shell.durable_log.Thread`. It dies with its member's loop.
    """

    def __init__(self, loop: MemberLoop, job_s: Callable[[], float], clock: DiskClock) -> None:
        """`job_s`: how long the next job takes."""
        self._loop = loop
        self._job_s = job_s
        self._clock = clock
        self._jobs: deque[Callable[[], None]] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        """Runs `job` behind those before it."""
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._begin(self._loop.ahead_s)

    def _begin(self, late_s: float = 0.0) -> None:
        seconds = self._job_s()
        self._loop.call_beside(late_s + seconds, self._work, seconds)

    def _work(self, seconds: float) -> None:
        with self._clock.job(seconds):
            self._jobs[0]()
        self._jobs.popleft()
        if self._jobs:
            self._begin()

    def stop(self) -> None:
        """What was handed in is done at once: nobody sees the time between."""
        while self._jobs:
            with self._clock.job(0.0):
                self._jobs.popleft()()


class DiskClock:
    """The clock that syncs are measured with.

    A job's time has passed before its deeds are done, so its first sync shows it; a sync on the
    loop itself holds the loop, whose own time shows it.
    """

    def __init__(self, loop: MemberLoop, sync_s: Callable[[], float]) -> None:
        """`sync_s`: how long the next sync on the loop takes."""
        self._loop = loop
        self._sync_s = sync_s
        self._shown_s = 0.0
        self._job_s: float | None = None  # of the job that is being done; None: the loop's turn

    def __call__(self) -> float:
        """Seconds."""
        return self._loop.time() + self._shown_s

    def job(self, seconds: float) -> DiskClock:
        """What follows is the work of a thread."""
        self._job_s = seconds
        return self

    def __enter__(self) -> None:
        assert self._job_s is not None, "a job has been named"

    def __exit__(self, *_: object) -> None:
        self._job_s = None

    def synced(self) -> None:
        """The disk has synced something."""
        if self._job_s is None:
            self._loop.hold(self._sync_s())
        else:
            self._shown_s += self._job_s
            self._job_s = 0.0
