"""A snapshot takes second place to the member's own work, and still comes to an end."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from keyraft.storage.transfer.background import SHARE_MIN
from keyraft.storage.transfer.pace import BUSY_BYTES_PER_S, BUSY_SHARE, LOOK_S, Pace
from tests.support.server import environment

BLOCK_BYTES = 524_288
BLOCK_S = BLOCK_BYTES / BUSY_BYTES_PER_S
ROUNDING_S = 1e-9  # of sums of a thousand seconds


def run(pace: Pace, share: float, blocks: int, now: float, cpu_s: float) -> tuple[float, float]:
    """Hands blocks on, each a millisecond's work, while the thread computes for a share of the
    time; the clocks behind it."""
    for _ in range(blocks):
        passed_s = 0.001 + pace.pause_s(now, cpu_s, BLOCK_BYTES)
        now, cpu_s = now + passed_s, cpu_s + passed_s * share
    return now, cpu_s


def test_an_idle_member_does_not_hold_its_snapshot() -> None:
    now, _ = run(Pace(0.0, 0.0), BUSY_SHARE / 2, 1000, 0.0, 0.0)
    assert now < 1.001


def test_a_busy_member_gives_blocks_at_the_pace_and_no_slower() -> None:
    pace = Pace(0.0, 0.0)
    now, cpu_s = run(pace, 0.9, 200, 0.0, 0.0)
    began = now
    now, _ = run(pace, 0.9, 1000, now, cpu_s)
    assert abs((now - began) - 1000 * BLOCK_S) < 2 * BLOCK_S


def test_what_was_sent_at_full_speed_is_not_paid_back_later() -> None:
    pace = Pace(0.0, 0.0)
    now, cpu_s = run(pace, 0.1, 10_000, 0.0, 0.0)
    busy_from = now
    now, _ = run(pace, 0.9, 200, now, cpu_s)
    assert now - busy_from < 200 * BLOCK_S + 2 * LOOK_S


@given(st.lists(st.tuples(st.floats(0.0001, 5.0), st.floats(0.0, 1.0)), max_size=200))
def test_no_pause_is_longer_than_a_block_takes(steps: list[tuple[float, float]]) -> None:
    """Of who waits for each before the next block, as the feed does."""
    pace, now, cpu_s, pause_s = Pace(0.0, 0.0), 0.0, 0.0, 0.0
    for worked_s, share in steps:
        passed_s = pause_s + worked_s
        now, cpu_s = now + passed_s, cpu_s + passed_s * share
        pause_s = pace.pause_s(now, cpu_s, BLOCK_BYTES)
        assert 0.0 <= pause_s <= BLOCK_S + ROUNDING_S


def test_a_process_that_recedes_and_starves_comes_back() -> None:
    code = f"""
import os
from keyraft.storage.transfer.background import LOOK_S, Background
before = os.getpriority(os.PRIO_PROCESS, 0)
place = Background()
place.recede()
print(place.idle, os.sched_getscheduler(0) == os.SCHED_IDLE)
place._cpu_s -= LOOK_S * {SHARE_MIN} * 2  # as if it had got enough,
place._computed_s = LOOK_S
place.pause()
print(place.idle, os.sched_getscheduler(0) == os.SCHED_IDLE)
place._computed_s = 1000 * LOOK_S  # and as if next to nothing
place.resume()
place.pause()
print(place.idle, os.sched_getscheduler(0) == os.SCHED_IDLE)
print(os.getpriority(os.PRIO_PROCESS, 0) > before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    receded, kept, back, nice = done.stdout.splitlines()
    assert receded in ("True True", "False False")  # without the right to come back it stays
    assert kept == receded
    assert back == "False False"
    assert nice == str(os.getpriority(os.PRIO_PROCESS, 0) < 19)
