"""In which order passwords are compared, and who is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.app import password_queue as module
from keyraft.app.password_queue import CLEAN, KNOWN, SUSPECT, PasswordJob, PasswordQueue, address_of
from keyraft.base.waiters import DoneWaiter

HASH = b"hash of alice"


def nothing(_: object) -> None:
    """Nobody waits."""


def login(
    user: str, password: bytes, address: str = "192.0.2.1", hashed: bytes = HASH
) -> PasswordJob:
    wanted = DoneWaiter(nothing, 0.0)
    return PasswordJob(lambda: None, nothing, wanted, f"{address}:1", user, password, hashed)


class Logins:
    """A queue whose comparisons are made by hand."""

    def __init__(self) -> None:
        self.drawn = 0
        self.queue = PasswordQueue(self._draw)
        self.now_s = 100.0

    def _draw(self, size: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size, "big")

    def add(self, job: PasswordJob) -> PasswordJob | None:
        refused = self.queue.add(job, self.now_s)
        self.queue.check()
        return refused

    def compare(self, honest: bool, right: bool = False) -> PasswordJob | None:
        job = self.queue.take(honest)
        if job is not None and job.hashed is not None:
            self.queue.compared(job, right, self.now_s)
        self.queue.check()
        return job

    def seen(self, user: str, password: bytes, address: str = "203.0.113.1") -> None:
        """The right password of a user."""
        self.add(login(user, password, address))
        assert self.compare(True, right=True) is not None

    def flood(self, count: int, address: str = "192.0.2.1", user: str = "alice") -> None:
        for number in range(count):
            self.add(login(user, b"wrong %d" % number, address))


def test_a_right_password_of_late_overtakes_a_flood_from_the_same_address() -> None:
    logins = Logins()
    logins.seen("alice", b"right", "192.0.2.1")
    logins.flood(200)
    honest = login("alice", b"right")
    assert logins.add(honest) is None and honest.line == KNOWN
    assert logins.compare(True) is honest


def test_who_comes_from_elsewhere_overtakes_a_flood() -> None:
    logins = Logins()
    logins.flood(200)
    for job in [logins.queue.take(True) for _ in range(2)]:  # two threads took one before
        assert job is not None
        logins.queue.compared(job, False, logins.now_s)
    honest = login("alice", b"right", "198.51.100.1")
    assert logins.add(honest) is None and honest.line == CLEAN
    assert logins.compare(True) is honest
    assert logins.compare(True) is None, "the rest of the flood is suspect by now"
    assert logins.queue.waiting == 198


def test_many_addresses_with_wrong_passwords_do_not_hold_up_a_clean_one() -> None:
    logins = Logins()
    for number in range(200):
        logins.flood(1, f"198.51.100.{number}")
        logins.compare(True)
    for number in range(200):
        logins.flood(2, f"198.51.100.{number}")
    honest = login("bob", b"right")
    logins.add(honest)
    assert logins.compare(True) is honest


def test_addresses_and_their_users_have_turns() -> None:
    logins = Logins()
    for address in ("a", "b"):
        for user in ("x", "x", "x", "y"):
            logins.add(login(user, b"p", address))
    order = []
    while (job := logins.queue.take(True)) is not None:
        order.append(job.address.decode() + job.user)
    assert order == ["ax", "bx", "ay", "by", "ax", "bx", "ax", "bx"]


def test_an_address_is_suspect_for_a_while() -> None:
    logins = Logins()
    logins.flood(1)
    logins.compare(True)
    job = login("bob", b"p")
    logins.add(job)
    assert job.line == SUSPECT and logins.compare(True) is None
    assert logins.compare(False) is job
    logins.now_s += module.SUSPECT_S
    job = login("bob", b"p")
    logins.add(job)
    assert job.line == CLEAN


def test_who_has_a_token_is_not_kept_waiting() -> None:
    logins = Logins()
    logins.flood(1)
    logins.compare(True)
    logins.flood(100)
    change = PasswordJob(lambda: None, nothing, None, "192.0.2.1:1")
    logins.add(change)
    assert change.line == KNOWN and logins.compare(True) is change


def test_a_password_that_only_looks_right_loses_its_looks() -> None:
    logins = Logins()
    logins.seen("alice", b"right")
    number = 0
    while True:  # one in 65,536 has the same fingerprint
        number += 1
        lucky = login("alice", b"%d" % number)
        if logins.queue._line_of(lucky, logins.now_s) == KNOWN:
            break
    logins.add(lucky)
    waiting = login("alice", b"%d" % number)
    logins.add(waiting)
    assert logins.compare(True) is lucky
    assert waiting.line == SUSPECT and logins.compare(False) is waiting


def test_a_new_password_makes_the_old_one_strange() -> None:
    logins = Logins()
    logins.seen("alice", b"right")
    old = login("alice", b"right", hashed=b"another hash")
    logins.add(old)
    assert old.line == CLEAN


@pytest.mark.slow
def test_a_flood_leaves_room_for_others() -> None:
    logins = Logins()
    logins.seen("alice", b"right")
    for number in range(20):
        logins.flood(1, f"198.51.100.{number}")
        logins.compare(True)
    for number in range(20):
        logins.flood(300, f"198.51.100.{number}")
    assert logins.queue.waiting == module.WAITING_MAX
    refused = logins.add(login("alice", b"right"))
    assert refused is not None and refused.line == SUSPECT
    refused = logins.add(login("bob", b"right"))
    assert refused is not None and refused.line == SUSPECT
    again = login("bob", b"wrong", "198.51.100.1")
    assert logins.add(again) is again
    assert logins.queue.waiting == module.WAITING_MAX


def test_one_address_has_only_its_share_of_the_room() -> None:
    logins = Logins()
    logins.flood(module.ADDRESS_WAITING_MAX)
    more = login("bob", b"right")
    assert logins.add(more) is more
    assert logins.add(login("bob", b"right", "198.51.100.1")) is None


def test_memory_of_addresses_and_users_is_bounded() -> None:
    logins = Logins()
    for number in range(module.SUSPECTS_MAX + 10):
        logins.queue.compared(login("x", b"p", f"h{number}"), False, logins.now_s)
    for number in range(module.KNOWN_MAX + 10):
        logins.queue.compared(login(f"u{number}", b"p"), True, logins.now_s)
    assert len(logins.queue._suspects) == module.SUSPECTS_MAX
    assert len(logins.queue._known) == module.KNOWN_MAX


def test_where_a_client_is() -> None:
    assert address_of("192.0.2.1:80") == address_of("192.0.2.1:81") == b"192.0.2.1"
    assert address_of("[2001:db8::1]:80") == address_of("[2001:db8::ffff:1]:81")
    assert address_of("[2001:db8:0:1::1]:80") != address_of("[2001:db8::1]:80")
    assert address_of("[::ffff:192.0.2.1]:80") == b"192.0.2.1"
    assert address_of("[fe80::1%eth0]:80") == address_of("[fe80::2%eth1]:1")
    assert (address_of("@"), address_of("")) == (b"@", b"")
    assert address_of("[no address]:1") == b"no address"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)),
            st.tuples(st.just("take"), st.booleans(), st.booleans(), st.just(0)),
            st.tuples(st.just("wait"), st.integers(0, 70), st.just(0), st.just(0)),
        ),
        max_size=80,
    )
)
def test_whatever_comes_everybody_is_answered_once(steps: list[tuple[str, int, int, int]]) -> None:
    logins = Logins()
    before = module.WAITING_MAX, module.ADDRESS_WAITING_MAX
    module.WAITING_MAX, module.ADDRESS_WAITING_MAX = 8, 4  # type: ignore[misc]
    try:
        added = answered = 0
        for what, first, second, third in steps:
            if what == "add":
                added += 1
                answered += logins.add(login(f"u{second}", b"%d" % third, f"a{first}")) is not None
            elif what == "take":
                answered += logins.compare(bool(first), bool(second)) is not None
            else:
                logins.now_s += first
        while logins.compare(True) or logins.compare(False):
            answered += 1
        assert added == answered and logins.queue.waiting == 0
    finally:
        module.WAITING_MAX, module.ADDRESS_WAITING_MAX = before  # type: ignore[misc]
