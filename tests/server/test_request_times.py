"""Requests are counted exactly, whether their times were taken one by one, together or by sample."""

from __future__ import annotations

from keyraft.server.request_times import SAMPLE, RequestTimes


def count(times: RequestTimes, kind: str, success: str = "true") -> tuple[int, float]:
    found = times.requests.of(kind, success)
    return found.count, round(found.sum, 6)


def test_what_came_together_is_observed_together() -> None:
    times = RequestTimes()
    times.put([1.0], 1.5)
    times.put([2.0], 2.25)
    times.put([3.0, 3.0, 3.5], 4.0)
    times.refused("Put", 4.0, 4.5)
    assert count(times, "Put") == (5, 3.25)
    assert count(times, "Put", "false") == (1, 0.5)


def test_reads_at_once_are_counted_at_the_scrape_with_the_mean_of_the_sample() -> None:
    times = RequestTimes()
    times.read(1.0, 1.25, 1.5)
    times.read_at_once(2.0, 2.0, 2.001)
    times.read_at_once(3.0, 3.001, 3.003)
    times.settle(101)
    assert count(times, "Range") == (101, 0.7)  # 0.5 and a hundred of 2 ms
    assert times.ranges.of("true").count == 101
    times.settle(101)  # nothing came since
    times.settle(102)  # one that nobody timed
    assert count(times, "Range")[0] == 102


def test_a_sample_that_nobody_scrapes_stays_small() -> None:
    times = RequestTimes()
    for _ in range(10 * SAMPLE):
        times.read_at_once(0.0, 0.0, 0.001)
    times.settle(640)
    assert count(times, "Range") == (640, 0.64)


def test_a_slice_for_watchers_is_spread_over_its_messages() -> None:
    times = RequestTimes()
    times.delivered(1.0, 1.5, 10, 100, 15, 120)
    times.delivered(2.0, 2.5, 15, 120, 15, 120)  # nothing was sent
    assert times.watch_message.count == times.watch_event.count == 5
    assert round(times.watch_message.sum, 6) == 0.5
    assert round(times.watch_event.sum, 6) == 0.125
