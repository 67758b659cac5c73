"""The end of a member that rebuilds itself, and its start anew (`server.upkeep.rebuild`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from keyraft.app.snapshot_transfers import Transfers
from keyraft.server import Member
from keyraft.storage.transfer.layout import mark_wrong

RESTART: Final = 1_000_000  # the exit code of a run after which the program starts again


def end_when_ready(member: Member, transfers: Transfers, end: Callable[[int], None]) -> None:
    """Has a member end, by `end(RESTART)`, when the right database is ready."""

    def ready(index: int) -> None:
        if transfers.reception.ready_index == index:
            member.halt()  # so no snapshot of its own becomes newer than that database
            end(RESTART)

    member.rebuild.on_ready = ready


def leave_database(snap_directory: str, transfers: Transfers) -> None:
    """The next start takes the database that is ready; nobody has either open. Raises OSError."""
    mark_wrong(snap_directory)
    transfers.files.remove(transfers.reception.ready_index)


def start_again() -> NoReturn:
    """The program replaces itself by a new run of itself, in the same process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
