"""Answers that may come later: reads in the member's slices, or after a read index round."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeVar

from keyraft.base.errors import EtcdError, RawError
from keyraft.base.waiters import Waiter

if TYPE_CHECKING:
    from keyraft.server.member import Member

T = TypeVar("T")


def in_slices(
    member: Member,
    waiter: Waiter,
    work: Generator[None, None, T],
    finish: Callable[[T], bytes | None],
) -> bytes | None:
    """Answers `finish(value of work)`, at once if one step was enough, else later.

    `finish` may also give the answer itself. The work ends when the waiter is cancelled, also by
    its deadline. Raises the refusals of the first step.
    """
    try:
        next(work)
    except StopIteration as end:
        return finish(end.value)

    def step() -> bool:
        if waiter.cancelled:
            work.close()
            return True
        try:
            next(work)
        except StopIteration as end:
            value = end.value
            answer(waiter, lambda: finish(value))
            return True
        except (EtcdError, RawError) as refusal:
            waiter.fail(refusal.code, refusal.text)
            return True
        return False

    member.slices.add(step)
    return None


def when_readable(member: Member, waiter: Waiter, read: Callable[[], bytes | None]) -> None:
    """Answers with `read()` when the member may read."""

    def ready(error: EtcdError | None) -> None:
        if waiter.cancelled:
            return
        if error is not None:
            waiter.fail(error.code, error.text)
        else:
            answer(waiter, read)

    member.read_index(ready)


def answer(waiter: Waiter, work: Callable[[], bytes | None]) -> None:
    """Runs a function after its verb has returned.

    Its value or its refusal is the answer; None means that the answer comes later.
    """
    try:
        found = work()
    except (EtcdError, RawError) as refusal:
        waiter.fail(refusal.code, refusal.text)
    else:
        if found is not None:
            waiter.respond(found)
