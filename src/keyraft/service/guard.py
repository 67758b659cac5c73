"""The checks before every call's own: etcd's interceptors.

In order: the cluster version must be known (else "not capable"), a learner serves few methods, the
client's API version must be UTF-8, and a client that requires a leader is refused if there is none
(etcd `api/v3rpc/interceptor.go`). While the member has a leader and is a voter, only the count of
client versions is left to do.

Streams that require a leader end after three election timeouts without one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from keyraft.auth import NOBODY, Identity
from keyraft.base import errors
from keyraft.base.clock import Loop
from keyraft.grpc import CallContext, ServerStream
from keyraft.service.ports import Standing, Users, Who

CLIENT_VERSIONS_MAX: Final = 256  # versions that have a series of their own; all others share one
OTHER_VERSIONS: Final = b"other"
NO_LEADER_CHECKS_MAX: Final = 3  # election timeouts without a leader that streams survive

_API_VERSION: Final = b"client-api-version"
_UNKNOWN: Final = b"unknown"
_HAS_LEADER: Final = b"hasleader"

WatchListener = Callable[[ServerStream, bytes, int, str], None]
"""Gets the stream, the encoded WatchCreateRequest, and the code and text of a refusal (0, "")."""


class Guard:
    """The interceptors of one member."""

    def __init__(self, standing: Standing, users: Users, loop: Loop) -> None:
        self._standing = standing
        self._leadership = standing.leadership
        self._users = users
        self.loop = loop
        self.rules = users.rules
        self.identify = users.identify
        self.check_read = users.check_read
        self.on_watch: WatchListener | None = None
        """Is told of each watch that a stream asked for."""
        self.unary_versions: dict[bytes, int] = {_UNKNOWN: 0}
        self.stream_versions: dict[bytes, int] = {_UNKNOWN: 0}
        self._streams: set[ServerStream] = set()
        self._no_leader_checks = 0
        self._watching = False

    def admit(self, call: CallContext, learner_may: bool = False) -> None:
        """Lets a unary call through or raises its refusal."""
        if not self._leadership.in_service:
            self._refuse(call, learner_may)
        version = call.metadata.get(_API_VERSION, _UNKNOWN)
        try:
            self.unary_versions[version] += 1
        except KeyError:
            self._count_new(self.unary_versions, version)

    def admit_stream(self, stream: ServerStream, learner_may: bool = False) -> None:
        """The same for a stream; call `left` when an admitted stream ends."""
        if not self._leadership.in_service:
            self._refuse(stream, learner_may)
        version = stream.metadata.get(_API_VERSION, _UNKNOWN)
        try:
            self.stream_versions[version] += 1
        except KeyError:
            self._count_new(self.stream_versions, version)
        if stream.metadata.get(_HAS_LEADER) == b"true":
            self._streams.add(stream)
            if not self._watching:
                self._watching = True
                self.loop.call_later(self._standing.election_s, self._check_leader)

    def left(self, stream: ServerStream) -> None:
        """A stream has ended."""
        self._streams.discard(stream)

    def who(self, call: CallContext) -> Who:
        """The function that identifies the caller when the answer is made."""
        return partial(self.identify, call)

    def caller(self, call: CallContext) -> Identity:
        """The caller; None without credentials or users."""
        return self.identify(call) or NOBODY

    def check_admin(self, call: CallContext) -> None:
        """The caller holds the root role."""
        if self.rules.enabled:
            self._users.check_admin(self.identify(call))

    def check_user(self, call: CallContext) -> None:
        """The caller is some user."""
        if self.rules.enabled and self.identify(call) is None:
            raise errors.UserEmptyError

    def _refuse(self, call: CallContext, learner_may: bool) -> None:
        """The slow path, taken only while a condition is not met."""
        if self._leadership.fenced:
            raise errors.CorruptError
        if not self._standing.capable:
            raise errors.NotCapableError
        if self._standing.is_learner and not learner_may:
            raise errors.LearnerNotSupportedError
        if not self._leadership.leader and call.metadata.get(_HAS_LEADER) == b"true":
            raise errors.NoLeaderError

    def _count_new(self, counts: dict[bytes, int], version: bytes) -> None:
        try:
            version.decode("utf-8")
        except UnicodeDecodeError:
            raise errors.InvalidClientAPIVersionError from None
        if len(counts) >= CLIENT_VERSIONS_MAX:
            version = OTHER_VERSIONS
        counts[version] = counts.get(version, 0) + 1

    def _check_leader(self) -> None:
        self._watching = False
        if not self._streams:
            self._no_leader_checks = 0
            return
        if self._leadership.leader:
            self._no_leader_checks = 0
        else:
            self._no_leader_checks += 1
        if self._no_leader_checks >= NO_LEADER_CHECKS_MAX:
            streams, self._streams = self._streams, set()
            for stream in streams:
                stream.abort(errors.NoLeaderError.code, errors.NoLeaderError.text)
        self._watching = True
        self.loop.call_later(self._standing.election_s, self._check_leader)
