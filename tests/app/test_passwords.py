"""bcrypt off the loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from keyraft.app import password_queue
from keyraft.app import passwords as module
from keyraft.app.passwords import BcryptPasswords
from keyraft.base import errors
from keyraft.base.errors import RawError
from keyraft.base.waiters import DoneWaiter
from keyraft.server import Asker

GO_HASH = b"$2a$04$Vxhldhe1BcprhnOOC8HaceQ2A6rPsGnsy0l5RbdlIR2b6cuXNKqFW"


SOMEBODY = Asker(DoneWaiter(lambda _: None, 0.0), "127.0.0.1:1", "alice")


async def told(ask: Callable[[Callable[[Any], None]], None]) -> Any:
    """What a callback gets."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    ask(answer.set_result)
    return await asyncio.wait_for(answer, 60)


def run(work: Callable[[BcryptPasswords], Any]) -> None:
    async def main() -> None:
        passwords = BcryptPasswords(asyncio.get_running_loop(), 4)
        try:
            await work(passwords)
        finally:
            passwords.close()

    asyncio.run(main())


@pytest.mark.parametrize("password", [b"pw", b"", b"a\0b", "ü".encode() * 36, b"\xff"])
def test_what_is_hashed_is_known_again(password: bytes) -> None:
    async def work(passwords: BcryptPasswords) -> None:
        hashed = await told(lambda done: passwords.hash(password, done, SOMEBODY))
        assert len(hashed) == 60 and hashed.startswith(b"$2a$04$")
        assert await told(lambda done: passwords.verify(password, hashed, done, SOMEBODY)) is True
        other = b"x" + password
        assert await told(lambda done: passwords.verify(other, hashed, done, SOMEBODY)) is False

    run(work)


def test_a_hash_of_the_original_is_known() -> None:
    # golang.org/x/crypto/bcrypt, by etcd 3.5.1 with --bcrypt-cost=4
    async def work(passwords: BcryptPasswords) -> None:
        hashed = GO_HASH
        assert await told(lambda done: passwords.verify(b"pw", hashed, done, SOMEBODY)) is True
        assert await told(lambda done: passwords.verify(b"PW", hashed, done, SOMEBODY)) is False

    run(work)


@pytest.mark.parametrize("stored", [b"", b"$2a$04$", b"$9z$04$" + b"a" * 53, b"\xff" * 60, b"pw"])
def test_what_is_no_hash_is_nobodys_password(stored: bytes) -> None:
    async def work(passwords: BcryptPasswords) -> None:
        assert await told(lambda done: passwords.verify(b"pw", stored, done, SOMEBODY)) is False

    run(work)


def test_long_passwords_are_not_hashed_but_compared_by_what_counts() -> None:
    async def work(passwords: BcryptPasswords) -> None:
        refused = await told(lambda done: passwords.hash(b"x" * 73, done, SOMEBODY))
        assert isinstance(refused, RawError)
        assert refused.text == "bcrypt: password length exceeds 72 bytes"
        hashed = passwords.hash_now(b"x" * 80)  # as etcd 3.4 did
        assert await told(lambda done: passwords.verify(b"x" * 80, hashed, done, SOMEBODY)) is True
        assert await told(lambda done: passwords.verify(b"x" * 71, hashed, done, SOMEBODY)) is False

    run(work)


def test_a_hash_of_nobody_is_no_password() -> None:
    async def work(passwords: BcryptPasswords) -> None:
        for password in (b"", b"pw", b"."):
            check = partial(passwords.verify, password, passwords.nobody)
            assert await told(lambda done, check=check: check(done, SOMEBODY)) is False  # type: ignore[misc]

    run(work)


def test_a_flood_is_refused_and_the_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_queue, "WAITING_MAX", 20)

    async def work(passwords: BcryptPasswords) -> None:
        answers: list[Any] = []
        running = passwords._honest.idle
        for _ in range(50):
            passwords.hash(b"pw", answers.append, SOMEBODY)
        assert len(answers) == 30 - running  # at once, while none of the others is done
        assert all(isinstance(each, errors.TooManyRequestsError) for each in answers)
        while len(answers) < 50:
            await asyncio.sleep(0)
        assert isinstance(await told(lambda done: passwords.hash(b"pw", done, SOMEBODY)), bytes)

    run(work)


def test_who_has_left_is_not_compared() -> None:
    async def work(passwords: BcryptPasswords) -> None:
        for threads in (passwords._honest, passwords._suspect):
            threads.idle = 0
        gone = DoneWaiter(lambda _: None, 0.0)
        answers: list[Any] = []
        passwords.verify(b"pw", GO_HASH, answers.append, Asker(gone, "192.0.2.1:1", "alice"))
        gone.cancelled = True
        passwords._honest.idle = 1
        passwords._start()
        assert isinstance(answers[0], errors.TooManyRequestsError)
        assert passwords.queue.waiting == 0 and passwords._honest.idle == 1

    run(work)


def test_wrong_passwords_are_compared_by_a_thread_of_their_own() -> None:
    """The flood of a client keeps a thread busy, and the others are for everybody else."""

    async def work(passwords: BcryptPasswords) -> None:
        wrong: list[Any] = []
        all_told = asyncio.Event()

        def tell(answer: Any) -> None:
            wrong.append(answer)
            if len(wrong) == 101:
                all_told.set()

        attacker = Asker(DoneWaiter(lambda _: None, 0.0), "192.0.2.1:1", "alice")
        assert await told(lambda done: passwords.verify(b"no", GO_HASH, done, attacker)) is False
        for _ in range(100):
            passwords.verify(b"no", GO_HASH, tell, attacker)
        assert passwords._honest.idle == passwords._honest._count
        assert passwords._suspect.idle == 0 and passwords.queue.waiting == 99
        assert await told(lambda done: passwords.verify(b"pw", GO_HASH, done, SOMEBODY)) is True
        # From now on she is known, also at the attacker's address.
        home = Asker(DoneWaiter(lambda _: None, 0.0), "192.0.2.1:2", "alice")
        passwords.verify(b"pw", GO_HASH, tell, home)
        assert passwords._honest.idle == passwords._honest._count - 1
        await all_told.wait()  # of a thread that comes last on a busy machine
        assert wrong.count(False) == 100
        assert [os.getpriority(os.PRIO_PROCESS, t.native_id or 0) for t in threading.enumerate()
                if t.name.startswith("bcrypt-suspect")] == [module.SUSPECT_NICENESS]  # fmt: skip
        passwords.queue.check()

    run(work)
