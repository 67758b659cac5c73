"""What a member keeps of the log in memory, for followers that lag."""

from __future__ import annotations

from keyraft.raft import Progress, ProgressState
from keyraft.server.consensus.snapshotter import RELEASE_S, TRIM_ENTRIES
from tests.server.harness import OneMember

KEPT = 50  # the harness's --snapshot-catchup-entries


def kept(one: OneMember) -> int:
    """Entries behind the newest that a follower would still get from memory."""
    log = one.member.raft.node.raft.log
    return log.last_index() - log.first_index() + 1


def put(one: OneMember, count: int) -> None:
    for number in range(count):
        one.put(b"k", b"%d" % number)
        if number % 20 == 19:
            one.run(0.1)
    one.run(0.1)


def test_no_more_is_kept_than_was_asked_for_and_one_step() -> None:
    one = OneMember()
    one.run()
    put(one, TRIM_ENTRIES)
    for _ in range(10):
        put(one, 60)
        assert KEPT <= kept(one) <= KEPT + TRIM_ENTRIES + 21


def test_a_snapshot_on_disk_trims_the_memory_before_a_whole_step() -> None:
    one = OneMember(snapshot_count=10)
    one.run()
    put(one, TRIM_ENTRIES - 5)
    assert kept(one) <= KEPT + 10 + 21


def test_a_follower_that_is_sent_the_database_finds_what_follows() -> None:
    one = OneMember()
    one.run()
    put(one, 300)
    tracker = one.member.raft.node.raft.tracker
    progress = tracker.progress
    far = progress[77] = Progress(match=0, next=1, inflights=tracker.new_inflights())
    far.state = ProgressState.SNAPSHOT
    before = kept(one)
    put(one, 400)
    assert kept(one) >= before + 400
    far.state = ProgressState.PROBE
    put(one, 100)
    assert kept(one) >= before + 500, "it is still being put in place"
    del progress[77]
    one.run(RELEASE_S)
    put(one, 40)
    assert kept(one) <= KEPT + TRIM_ENTRIES + 21
