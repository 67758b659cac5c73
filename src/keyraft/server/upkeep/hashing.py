"""Hashing a member's keys or buckets, in slices that leave the loop free."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keyraft.base.errors import EtcdError
from keyraft.mvcc import HashAllJob, KVHash

if TYPE_CHECKING:
    from keyraft.server.member import Member


def hash_keys(
    member: Member,
    revision: int,
    done: Callable[[KVHash], None],
    failed: Callable[[EtcdError], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """`done` gets HashKV at `revision` (0: the present one), unless it was `cancelled` before.

    `failed`: a leader's database replaced the one that was being hashed. Raises CompactedError,
    FutureRevisionError.
    """
    loop = member.loop
    started_s = loop.time()
    job = member.store.hash_kv(revision)
    refusal: EtcdError | None = None

    def ended() -> None:
        if cancelled():
            job.close()
            return
        if refusal is not None:
            failed(refusal)
            return
        assert job.result is not None, "a finished job has a result"
        member.counters.hash_rev_s.observe(loop.time() - started_s)
        done(job.result)

    def step() -> bool:
        nonlocal refusal
        try:
            return job.step()
        except EtcdError as error:
            refusal = error
            return True

    _in_slices(member, step, cancelled, ended)


def hash_buckets(
    member: Member, done: Callable[[int], None], cancelled: Callable[[], bool]
) -> None:
    """`done` gets the hash of all buckets, unless it was `cancelled` before.

    As in the original nothing is applied meanwhile, but here the loop goes on.
    """
    loop = member.loop
    started_s = loop.time()
    job = HashAllJob(member.backend)
    life = member.store.lives

    def step() -> bool:
        nonlocal job, life
        if member.store.lives != life:  # a leader's database has replaced all of it
            job, life = HashAllJob(member.backend), member.store.lives
        return job.step()

    def ended() -> None:
        member.queue.release()
        if not cancelled():
            member.counters.hash_s.observe(loop.time() - started_s)
            done(job.value)

    member.queue.hold(lambda: _in_slices(member, step, cancelled, ended))


def _in_slices(
    member: Member,
    step: Callable[[], bool],
    cancelled: Callable[[], bool],
    ended: Callable[[], None],
) -> None:
    """Calls `step` until it or `cancelled` returns True; then `ended`."""

    def go_on() -> bool:
        if cancelled() or step():
            ended()
            return True
        return False

    if not go_on():
        member.slices.add(go_on)
