"""`--audit-log`: the audit trail of one member, put together and counted (docs/AUDIT.md)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from keyraft.app.start_checks import StartError
from keyraft.audit.outbox import Outbox, OutputError
from keyraft.audit.trail import AuditTrail
from keyraft.auth import TokenAheadError
from keyraft.base.errors import EtcdError
from keyraft.config.config import Config
from keyraft.gateway import COUNTER, GAUGE, Family
from keyraft.grpc import Router, status
from keyraft.server import Member
from keyraft.service import Guard

if TYPE_CHECKING:
    from keyraft.audit.outbox import SocketLoop


class AuditLog:
    """Made before the member takes calls; `families` is a source of metrics."""

    def __init__(self, config: Config, loop: SocketLoop) -> None:
        """Starts the audit process; raises StartError when it cannot open the file."""
        self._log = config.log
        try:
            self._outbox = Outbox(
                loop,
                config.log,
                config.audit_log,
                config.audit_log_maxsize << 20,
                config.audit_log_maxbackup,
                status.CODE_NAMES,
                self._has_room,
            )
        except OutputError as error:
            raise StartError(f"--audit-log: open {error.filename}: {error.strerror}") from None
        refuses = config.audit_log_overflow == "refuse"
        self._trail = AuditTrail(loop, time.time, self._outbox, refuses)

    def attach(self, router: Router, guard: Guard, member: Member) -> None:
        """Records the calls of the router, whose methods are registered."""
        auth, queue = member.auth, member.queue

        def who(metadata: Mapping[bytes, bytes], common_name: str | None) -> str:
            if not auth.enabled:
                return ""
            try:
                identity = auth.identify(metadata, common_name, queue.applied_index)
            except (EtcdError, TokenAheadError):
                return ""
            return identity.username.decode("utf-8", "replace") if identity is not None else ""

        self._trail.attach(router, who)
        guard.on_watch = self._trail.watched

    def end(self) -> None:
        """Writes the last lines; blocks for five seconds at most."""
        lost = self._trail.end()
        if lost:
            self._log.warn("calls are missing in the audit log", lost=lost)

    def families(self) -> Iterator[Family]:
        """The counters."""
        trail, box = self._trail, self._outbox
        for name, value, text in (
            ("recorded", trail.recorded, "Calls handed to the audit log."),
            ("lost", trail.lost, "Calls that the audit log had no room for."),
            ("refused", trail.refused, "Calls refused because it could not be written."),
            ("restarts", box.restarts, "Audit processes started anew."),
        ):
            yield Family(f"keyraft_audit_{name}_total", COUNTER, text).add(value)
        yield Family(
            "keyraft_audit_waiting_bytes", GAUGE, "What the audit log has yet to write."
        ).add(box.kept_bytes)

    def _has_room(self) -> None:
        self._trail.room()
