"""The cache of answers of the proxy: bounded, and never older than what is known."""

from __future__ import annotations

from random import Random

import pytest

from keyraft.proto import mvcc_pb2
from keyraft.proxy.grpcproxy import range_cache
from keyraft.proxy.grpcproxy.passed_events import PassedEvent, PassedEvents
from keyraft.proxy.grpcproxy.range_cache import TRUST_S, RangeCache
from tests.proxy.test_broadcasts import Cluster, ranges_of


class Scene:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.cluster = Cluster()
        self.ranges = ranges_of(self.cluster)
        self.cache = RangeCache(self.ranges, lambda: self.now_s)

    def read(self, key: bytes, end: bytes = b"", revision: int = 5) -> bytes | None:
        """As `keys` does: from the cache, else from a cluster that answers at once."""
        request = key + b"-" + end
        found = self.cache.get(request, 0)
        if found is None:
            generation = self.cache.generation((key, end))
            self.cache.add(request, (key, end), generation, b"%d" % revision, revision)
        for line, feed in self.cluster.feeds:
            if not line.feeds[feed]:
                line.feeds[feed] = feed.next_revision
                feed.on_created()
        self.cache.check()
        return found

    def change(self, key: bytes, revision: int) -> None:
        event = mvcc_pb2.Event(kv={"key": key, "mod_revision": revision})
        for _, feed in self.cluster.feeds:
            if feed.next_revision <= revision and (
                feed.key == key or feed.key <= key < feed.range_end
            ):
                feed.on_batch(PassedEvents(b"", [PassedEvent(event)]))


def test_a_range_is_kept_from_its_second_reading_on() -> None:
    scene = Scene()
    assert [scene.read(b"a") for _ in range(3)] == [None, None, b"5"]
    assert (scene.cache.hits, scene.cache.misses, len(scene.cache)) == (1, 2, 1)


def test_an_event_drops_what_it_may_have_changed() -> None:
    scene = Scene()
    for _ in range(3):
        scene.read(b"a"), scene.read(b"a", b"c"), scene.read(b"x")
    scene.change(b"b", 6)
    assert scene.read(b"a") == b"5" and scene.read(b"x") == b"5"
    assert scene.read(b"a", b"c", 6) is None
    assert scene.read(b"a", b"c") == b"6"
    scene.change(b"a", 7)
    assert scene.read(b"a", revision=6) is None, "from before the event: not to be kept"
    assert scene.read(b"a", revision=7) is None
    assert scene.read(b"a") == b"7"


@pytest.mark.parametrize(
    ("write", "dropped"),
    [
        ((b"a", b""), {b"a", b"a-c", b"a-\0"}),
        ((b"b", b""), {b"a-c", b"a-\0"}),
        ((b"b", b"z"), {b"a-c", b"a-\0", b"x"}),
        ((b"b", b"\0"), {b"a-c", b"a-\0", b"x"}),
        ((b"c", b"d"), {b"a-\0"}),
        ((b"0", b"a"), set()),
    ],
)
def test_a_write_drops_what_it_may_change(write: tuple[bytes, bytes], dropped: set[bytes]) -> None:
    scene = Scene()
    names = {b"a": (b"a", b""), b"a-c": (b"a", b"c"), b"a-\0": (b"a", b"\0"), b"x": (b"x", b"")}
    for _ in range(3):
        for name in names.values():
            scene.read(*name)
    scene.cache.invalidate(*write)
    assert {key for key, name in names.items() if scene.read(*name) is None} == dropped


def test_nothing_is_given_while_the_watch_is_broken_or_the_cluster_silent() -> None:
    scene = Scene()
    for _ in range(3):
        scene.read(b"a")
    ((line, feed),) = scene.cluster.feeds
    line.feeds[feed] = False
    feed.on_lost()
    assert scene.read(b"a") is None
    assert scene.read(b"a") == b"5"
    scene.now_s += TRUST_S
    assert scene.read(b"a") is None, "users may have been switched on"
    scene.cache.clear()
    assert not scene.cluster.feeds and len(scene.cache) == 0
    scene.ranges.check()


def test_an_answer_that_was_asked_for_before_a_write_is_not_kept() -> None:
    scene = Scene()
    for _ in range(2):
        scene.read(b"a")
    generation = scene.cache.generation((b"a", b""))
    scene.cache.invalidate(b"a", b"")
    scene.cache.add(b"a-", (b"a", b""), generation, b"old", 5)
    assert scene.cache.get(b"a-", 0) is None


@pytest.mark.slow
def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bound in (
        ("ENTRIES_MAX", 20),
        ("BYTES_MAX", 9_000),
        ("POINTS_MAX", 12),
        ("INTERVALS_MAX", 6),
        ("SEEN_MAX", 40),
    ):
        monkeypatch.setattr(range_cache, name, bound)
    random, scene = Random(1), Scene()
    for number in range(20_000):
        key = b"%02d" % random.randrange(40)
        end = random.choice((b"", b"", b"99"))
        match random.randrange(20):
            case 0:
                scene.cache.invalidate(key, end)
            case 1:
                scene.change(key, number + 6)
            case _:
                scene.read(key, end, number + 5)
        assert len(scene.cluster.feeds) <= 18
    scene.ranges.check()
    assert scene.cache.hits > 1_000
