"""Answers that are not given at once: reads in the member's slices, or behind a read index."""

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
    """`finish(value of work)` as the answer: at once when one step was all of it, else None now,
    and the waiter is answered later; `finish` may also see to the answer itself. A waiter that is
    cancelled, also because its deadline has passed, ends the work. Raises the refusals of the first
    step."""
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
    """Answers with `read()` once the member may read for its waiter."""

    def ready(error: EtcdError | None) -> None:
        if waiter.cancelled:
            return
        if error is not None:
            waiter.fail(error.code, error.text)
        else:
            answer(waiter, read)

    member.read_index(ready)


def answer(waiter: Waiter, work: Callable[[], bytes | None]) -> None:
    """Does something outside of the verb that was asked: its value is the answer, unless it is None
    and the answer comes later; a refusal is the answer, too."""
    try:
        found = work()
    except (EtcdError, RawError) as refusal:
        waiter.fail(refusal.code, refusal.text)
    else:
        if found is not None:
            waiter.respond(found)
