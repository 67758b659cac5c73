"""The watches of a stream, in the member's hub.

DEVIATION: a watch ends when its user may no longer read what it watches. The original asks once,
when the watch is made (`watch_rights`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyraft.auth import NOBODY, Identity
from keyraft.mvcc import NODELETE, NOPUT, PREVIOUS, BulkSink, Sink, WatchHub, WatchStream
from keyraft.proto import rpc_pb2
from keyraft.server.engine.watch_rights import WatchRights

if TYPE_CHECKING:
    from keyraft.server.engine.keys import Who
    from keyraft.server.member import Member

_VARIANT: Final = {
    rpc_pb2.WatchCreateRequest.NOPUT: NOPUT,
    rpc_pb2.WatchCreateRequest.NODELETE: NODELETE,
}


class RaftWatching:
    """`service.ports.Watching` of one member."""

    def __init__(self, member: Member) -> None:
        self._hub = member.watches
        self._auth = member.auth
        self._rights = WatchRights(member.auth, member.watches, member.slices)
        self.notify_s = member.settings.watch_progress_notify_s

    def open(self, sink: Sink, bulk: BulkSink | None = None, who: Who | None = None) -> RaftWatches:
        """See the port."""
        return RaftWatches(self._hub, self._rights, sink, bulk, who)

    def check(self, key: bytes, range_end: bytes, caller: Identity | None) -> None:
        """See the port."""
        if self._auth.enabled:
            self._auth.check_range(caller or NOBODY, key or b"\0", range_end)


class RaftWatches:
    """The watches of one stream, created from its requests; all else is done by the hub."""

    def __init__(
        self,
        hub: WatchHub,
        rights: WatchRights,
        sink: Sink,
        bulk: BulkSink | None,
        who: Who | None,
    ) -> None:
        self._stream = stream = WatchStream(hub, sink, bulk)
        self._rights = rights
        self.who = who
        self.user: bytes | None = None  # whose watches they are, once there are users
        self.watchers = stream.watchers
        self.refuse = stream.refuse
        self.cancel = stream.cancel
        self.progress = stream.progress
        self.tick = stream.tick
        self.on_writable = stream.on_writable
        rights.streams[self] = None

    @property
    def notifying(self) -> bool:
        """See the port."""
        return self._stream.notifying

    def close(self) -> None:
        """See the port."""
        self._rights.streams.pop(self, None)
        self._stream.close()

    def create(self, request: rpc_pb2.WatchCreateRequest, caller: Identity | None = None) -> None:
        """See the port: that the caller may watch was checked before."""
        if caller is not None:
            self.user = caller.username
        variant = PREVIOUS if request.prev_kv else 0
        for kind in request.filters:
            variant |= _VARIANT.get(kind, 0)
        self._stream.create(
            request.key,
            request.range_end,
            request.start_revision,
            request.watch_id,
            variant=variant,
            fragment=request.fragment,
            notify=request.progress_notify,
        )
