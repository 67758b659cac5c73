"""Lease: grant, revoke, time to live, the list, and streams of renewals.

Renewals of one stream are answered in order: while one waits, the stream is not read.
"""

from __future__ import annotations

from collections.abc import Callable

from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import Router, ServerStream, StreamHandler, UnaryCall
from keyraft.mvcc import cost
from keyraft.proto import rpc_pb2
from keyraft.service.guard import Guard
from keyraft.service.ports import Leases


class LeaseService:
    """Registered on a router."""

    def __init__(self, leases: Leases, guard: Guard) -> None:
        self._leases = leases
        self._guard = guard

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.unary("/etcdserverpb.Lease/LeaseGrant", self.grant)
        router.unary("/etcdserverpb.Lease/LeaseRevoke", self.revoke)
        router.unary("/etcdserverpb.Lease/LeaseTimeToLive", self.time_to_live)
        router.unary("/etcdserverpb.Lease/LeaseLeases", self.leases)
        router.stream("/etcdserverpb.Lease/LeaseKeepAlive", self.keep_alive)

    def grant(self, call: UnaryCall, request: bytes) -> bytes | None:
        """LeaseGrantRequest -> LeaseGrantResponse."""
        self._guard.admit(call)
        self._leases.space.check(cost.LEASE_OVERHEAD_BYTES)
        message = parse(rpc_pb2.LeaseGrantRequest, request)
        self._guard.check_user(call)
        self._leases.grant(call, message, self._guard.identify(call))
        return None

    def revoke(self, call: UnaryCall, request: bytes) -> bytes | None:
        """LeaseRevokeRequest -> LeaseRevokeResponse."""
        self._guard.admit(call)
        parse(rpc_pb2.LeaseRevokeRequest, request)
        self._guard.check_user(call)
        self._leases.revoke(call, request, self._guard.identify(call))
        return None

    def time_to_live(self, call: UnaryCall, request: bytes) -> bytes | None:
        """LeaseTimeToLiveRequest -> LeaseTimeToLiveResponse; TTL -1 for an unknown lease."""
        self._guard.admit(call)
        message = parse(rpc_pb2.LeaseTimeToLiveRequest, request)
        self._guard.check_user(call)
        return self._leases.time_to_live(call, message, self._guard.who(call))

    def leases(self, call: UnaryCall, request: bytes) -> bytes | None:
        """LeaseLeasesRequest -> LeaseLeasesResponse."""
        self._guard.admit(call)
        parse(rpc_pb2.LeaseLeasesRequest, request)
        return self._leases.list(call, self._guard.who(call))

    def keep_alive(self, stream: ServerStream) -> StreamHandler:
        """LeaseKeepAliveRequests -> LeaseKeepAliveResponses; raises what the guard refuses."""
        self._guard.admit_stream(stream)
        return KeepAliveStream(self._leases, self._guard, stream)


class KeepAliveStream:
    """One LeaseKeepAlive stream."""

    def __init__(self, leases: Leases, guard: Guard, stream: ServerStream) -> None:
        self._leases = leases
        self._renew_at_once = leases.renew_at_once
        self._guard = guard
        self._who = guard.who(stream)
        self._stream = stream
        self._paused = False
        self._waiting = False
        self._half_closed = False
        self._over = False
        self._take_back: Callable[[], None] | None = None

    # --- the transport's side -----------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """Renews one lease."""
        if not self._renew_at_once(self._stream, (message,), self._who):
            self._renew(message)
        elif self._stream.writable <= 0:
            self._hold()

    def on_messages(self, messages: list[bytes]) -> int:
        """Renews those that can be renewed at once, with one answer; else renews one lease."""
        taken = self._renew_at_once(self._stream, messages, self._who)
        if not taken:
            self._renew(messages[0])
            return 1
        if self._stream.writable <= 0:
            self._hold()
        return taken

    def on_half_close(self) -> None:
        """No more renewals; those that wait are answered first."""
        self._half_closed = True
        if not self._waiting:
            self._finish(0, "")

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._end()

    def on_writable(self) -> None:
        """The client has read."""
        self._release()

    # --- the work -----------------------------------------------------------------------------

    def _renew(self, message: bytes) -> None:
        self._waiting = True
        try:
            take_back = self._leases.renew(message, self._renewed, self._who)
        except errors.PostponedError:
            self._waiting = False
            raise
        except (EtcdError, RawError) as refusal:
            self._waiting = False
            self._finish(refusal.code, refusal.text)
            return
        if self._waiting:
            self._take_back = take_back
        self._hold()

    def _renewed(self, outcome: bytes | EtcdError | RawError) -> None:
        self._waiting = False
        self._take_back = None
        if self._over:
            return
        if isinstance(outcome, bytes):
            self._stream.send(outcome)
        else:
            self._finish(outcome.code, outcome.text)
        if self._half_closed:
            self._finish(0, "")
        self._release()

    def _hold(self) -> None:
        if not self._paused and not self._over and (self._waiting or self._stream.writable <= 0):
            self._paused = True
            self._stream.pause_reading()

    def _release(self) -> None:
        if self._paused and not self._over and not self._waiting and self._stream.writable > 0:
            self._paused = False
            self._stream.resume_reading()

    def _finish(self, code: int, text: str) -> None:
        if not self._over:
            self._end()
            self._stream.finish(code, text)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            if self._take_back is not None:
                self._take_back()
                self._take_back = None
            self._guard.left(self._stream)
