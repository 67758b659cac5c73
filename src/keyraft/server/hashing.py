"""Hashing a member's keys beside its work: in slices that leave the loop to the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keyraft.base.limits import LOOP_SLICE_S
from keyraft.mvcc import KVHash

if TYPE_CHECKING:
    from keyraft.server.member import Member


def hash_keys(
    member: Member,
    revision: int,
    done: Callable[[KVHash], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """`done` gets HashKV at `revision` (0: the present one), unless it was `cancelled` before.

    Raises CompactedError, FutureRevisionError.
    """
    loop = member.loop
    started_s = loop.time()
    job = member.store.hash_kv(revision)

    def step() -> None:
        if cancelled():
            job.close()
            return
        until_s = loop.time() + LOOP_SLICE_S
        while not job.step():
            if loop.time() >= until_s:
                loop.call_soon(step)
                return
        assert job.result is not None, "a finished job has a result"
        member.counters.hash_rev_s.observe(loop.time() - started_s)
        done(job.result)

    step()
