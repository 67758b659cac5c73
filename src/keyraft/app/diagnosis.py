"""What a running member tells when it is asked by a signal, or under /debug on its client port.

SIGUSR1 writes its numbers and the stacks of all threads and tasks to the log. SIGUSR2 changes the
level of the log: to debug, and back.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from keyraft.app.request_stats import RequestStats
from keyraft.config.config import Config
from keyraft.gateway import Gateway
from keyraft.grpc import Router
from keyraft.server import Member

if TYPE_CHECKING:
    from keyraft.logs.zap import ZapLogger


def watch_signals(
    loop: asyncio.AbstractEventLoop, log: ZapLogger, member: Member, stats: RequestStats
) -> None:
    """From now on SIGUSR1 and SIGUSR2 have their effects."""
    loop.add_signal_handler(signal.SIGUSR1, tell, log, member)
    loop.add_signal_handler(signal.SIGUSR2, change_level, log, stats)


def serve_debug(
    gateway: Gateway, member: Member, router: Router, config: Config, stats: RequestStats
) -> None:
    """Opens /debug/vars, and what `--enable-pprof` or the level debug opens, as with etcd.

    Before the router serves. A member that is not asked loads nothing of it.
    """

    def show() -> bytes:
        from keyraft.app.debug import published

        return published(member)

    paths = None
    if config.enable_pprof or config.log.is_enabled("debug"):
        from keyraft.app.debug import DebugPaths

        slow_s = config.warning_unary_request_duration_s
        paths = DebugPaths(member, router, config.log, stats, slow_s).handle
    gateway.serve_debug(show, paths)


def tell(log: ZapLogger, member: Member) -> None:
    """One line of numbers, then one for each thread and task; at level info."""
    log.info("state of this member, as asked for by SIGUSR1", **numbers(member))
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        log.info("stack of a thread", thread=names.get(ident, str(ident)), stack=stack)
    for task in asyncio.all_tasks():
        frames = [f"{one.f_code.co_filename}:{one.f_lineno}" for one in task.get_stack()]
        log.info("stack of a task", task=task.get_name(), waits_in=frames)


def change_level(log: ZapLogger, stats: RequestStats) -> None:
    """Debug and back; told in the log at a level that is always written."""
    level = log.toggle_debug()
    stats.follow_level()
    log.warn("the level of the log was changed, as asked for by SIGUSR2", level=level)


def numbers(member: Member) -> dict[str, object]:
    """Sizes of what a member holds, and where it stands."""
    found: dict[str, object] = {
        "term": member.leadership.term,
        "leader": f"{member.leadership.leader:x}",
        "leads": member.leadership.leading,
        "committed_index": member.committed_index,
        "applied_index": member.applied_index,
        "consistent_index": member.consistent_index,
        "proposals_waiting": len(member.waiting),
        "reads_in_slices": len(member.slices),
        "database_bytes": member.backend.size_bytes,
        "database_bytes_in_use": member.backend.size_in_use_bytes,
    }
    for name, value in member.store.statistics().items():
        found[f"store_{name}"] = value
    for name, value in member.watches.statistics().items():
        found[f"watch_{name}"] = value
    return found
