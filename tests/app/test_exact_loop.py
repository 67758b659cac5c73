"""The clock by which a member counts leases and deadlines is never behind the true one."""

from __future__ import annotations

import asyncio
import time

from keyraft.app.exact_loop import ExactLoop


def test_a_members_loop_has_the_exact_clock() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(1_000):
            before = time.monotonic()
            now = loop.time()
            assert before <= now <= time.monotonic()

    with asyncio.Runner(loop_factory=ExactLoop) as runner:
        runner.run(main())
