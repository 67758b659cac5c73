"""Keeps the member's pages in memory (`--memory-mlock`), so that nothing of it is ever swapped out.

The member and its storage process lock each page that they have in memory, those of the database
too, and those that will come (`mlockall` with MCL_ONFAULT; the map of a database that may grow
is larger than memory and is not read in). What the kernel allows is asked for first: with a limit
that is reached later, the kernel would refuse memory to a running member.

DEVIATION: the original locks the database alone, and all of it.
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

from keyraft.app.start_checks import StartError
from keyraft.storage.process import MLOCK_FLAGS

CAP_IPC_LOCK: Final = 14  # its bit in a set of capabilities


def may_lock(status: str, limit: int) -> bool:
    """Whether any amount may be locked.

    `status`: the text of /proc/self/status; `limit`: the hard limit of RLIMIT_MEMLOCK.
    """
    if limit == resource.RLIM_INFINITY:
        return True
    found = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")]
    return bool(found) and bool(int(found[0], 16) >> CAP_IPC_LOCK & 1)


def lock_memory() -> None:
    """Locks this process's pages, for good; its children inherit only the limit. Raises StartError."""
    _, limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    with open("/proc/self/status") as file:
        status = file.read()
    if not may_lock(status, limit):
        raise StartError(
            f"cannot lock memory (--memory-mlock): the limit is {limit} bytes; "
            "it needs CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=infinity)",
            "failed to lock memory",
        )
    if limit == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    if ctypes.CDLL(None, use_errno=True).mlockall(MLOCK_FLAGS):
        reason = os.strerror(ctypes.get_errno()).lower()
        raise StartError(f"cannot lock memory (--memory-mlock): {reason}", "failed to lock memory")
