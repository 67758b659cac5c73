"""Answers whose making grows with the data: made in the member's slices, given up with their call."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from keyraft.base.errors import EtcdError, RawError
from keyraft.grpc import UnaryCall
from keyraft.server import Member

T = TypeVar("T")


def in_slices(
    member: Member,
    call: UnaryCall,
    work: Generator[None, None, T],
    finish: Callable[[T], bytes | None],
) -> bytes | None:
    """`finish(value of work)` as the answer of a call: at once when one step was all of it, else
    None now, and the call is answered later; it may also see to the answer itself. A call that is cancelled, also because its deadline
    has passed, ends the work. Raises the refusals of the first step."""
    try:
        next(work)
    except StopIteration as end:
        return finish(end.value)

    def step() -> bool:
        if call.cancelled:
            work.close()
            return True
        try:
            next(work)
        except StopIteration as end:
            _answer(call, finish, end.value)
            return True
        except (EtcdError, RawError) as refusal:
            call.fail(refusal.code, refusal.text)
            return True
        return False

    member.slices.add(step)
    return None


def _answer(call: UnaryCall, finish: Callable[[T], bytes | None], value: T) -> None:
    try:
        answer = finish(value)
    except (EtcdError, RawError) as refusal:
        call.fail(refusal.code, refusal.text)
    else:
        if answer is not None:
            call.respond(answer)
