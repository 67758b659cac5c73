"""bcrypt off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from keyraft.app import passwords as module
from keyraft.app.passwords import BcryptPasswords
from keyraft.base import errors
from keyraft.base.errors import RawError

GO_HASH = b"$2a$04$Vxhldhe1BcprhnOOC8HaceQ2A6rPsGnsy0l5RbdlIR2b6cuXNKqFW"


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
        hashed = await told(lambda done: passwords.hash(password, done))
        assert len(hashed) == 60 and hashed.startswith(b"$2a$04$")
        assert await told(lambda done: passwords.verify(password, hashed, done)) is True
        other = b"x" + password
        assert await told(lambda done: passwords.verify(other, hashed, done)) is False

    run(work)


def test_a_hash_of_the_original_is_known() -> None:
    # golang.org/x/crypto/bcrypt, by etcd 3.5.1 with --bcrypt-cost=4
    async def work(passwords: BcryptPasswords) -> None:
        hashed = GO_HASH
        assert await told(lambda done: passwords.verify(b"pw", hashed, done)) is True
        assert await told(lambda done: passwords.verify(b"PW", hashed, done)) is False

    run(work)


@pytest.mark.parametrize("stored", [b"", b"$2a$04$", b"$9z$04$" + b"a" * 53, b"\xff" * 60, b"pw"])
def test_what_is_no_hash_is_nobodys_password(stored: bytes) -> None:
    async def work(passwords: BcryptPasswords) -> None:
        assert await told(lambda done: passwords.verify(b"pw", stored, done)) is False

    run(work)


def test_long_passwords_are_not_hashed_but_compared_by_what_counts() -> None:
    async def work(passwords: BcryptPasswords) -> None:
        refused = await told(lambda done: passwords.hash(b"x" * 73, done))
        assert isinstance(refused, RawError)
        assert refused.text == "bcrypt: password length exceeds 72 bytes"
        hashed = passwords.hash_now(b"x" * 80)  # as etcd 3.4 did
        assert await told(lambda done: passwords.verify(b"x" * 80, hashed, done)) is True
        assert await told(lambda done: passwords.verify(b"x" * 71, hashed, done)) is False

    run(work)


def test_a_flood_is_refused_and_the_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 20)

    async def work(passwords: BcryptPasswords) -> None:
        answers: list[Any] = []
        for _ in range(50):
            passwords.hash(b"pw", answers.append)
        assert len(answers) == 30  # at once, while none of the others is done
        assert all(isinstance(each, errors.TooManyRequestsError) for each in answers)
        while len(answers) < 50:
            await asyncio.sleep(0)
        assert isinstance(await told(lambda done: passwords.hash(b"pw", done)), bytes)

    run(work)
