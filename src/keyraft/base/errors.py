"""Every error a client can see: its gRPC code and its exact text, in one table.

Clients distinguish errors by the text alone, so a wrong letter is a wrong error. Source: etcd
`api/v3rpc/rpctypes/error.go`. Codes are those on the wire: "not enough started members" and "too
many requests" travel as Unknown (2), because the original maps them through its client-side
wrapper.
"""

from __future__ import annotations

from collections.abc import Callable

from keyraft.base import codes


class EtcdError(Exception):
    """An error with etcd's own code and text; each kind is a class below."""

    code: int = codes.UNKNOWN
    text: str = ""

    def __init__(self) -> None:
        super().__init__(self.text)


class RawError(Exception):
    """An error whose text is not in the table (a foreign text, or one that contains values)."""

    def __init__(self, code: int, text: str) -> None:
        Exception.__init__(self, text)  # also for a subclass with other bases
        self.code = code
        self.text = text


class EmptyKeyError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: key is not provided"


class KeyNotFoundError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: key not found"


class ValueProvidedError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: value is provided"


class LeaseProvidedError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: lease is provided"


class TooManyOpsError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: too many operations in txn request"


class DuplicateKeyError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: duplicate key given in txn request"


class InvalidClientAPIVersionError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: invalid client api version"


class InvalidSortOptionError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: invalid sort option"


class CompactedError(EtcdError):
    code = codes.OUT_OF_RANGE
    text = "etcdserver: mvcc: required revision has been compacted"


class FutureRevisionError(EtcdError):
    code = codes.OUT_OF_RANGE
    text = "etcdserver: mvcc: required revision is a future revision"


class NoSpaceError(EtcdError):
    code = codes.RESOURCE_EXHAUSTED
    text = "etcdserver: mvcc: database space exceeded"


class LeaseNotFoundError(EtcdError):
    code = codes.NOT_FOUND
    text = "etcdserver: requested lease not found"


class LeaseExistsError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: lease already exists"


class LeaseTTLTooLargeError(EtcdError):
    code = codes.OUT_OF_RANGE
    text = "etcdserver: too large lease TTL"


class WatchCanceledError(EtcdError):
    code = codes.CANCELLED
    text = "etcdserver: watch canceled"


class MemberExistsError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: member ID already exist"


class PeerURLExistsError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: Peer URLs already exists"


class NotEnoughStartedMembersError(EtcdError):
    code = codes.UNKNOWN
    text = "etcdserver: re-configuration failed due to not enough started members"


class BadPeerURLsError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: given member URLs are invalid"


class MemberNotFoundError(EtcdError):
    code = codes.NOT_FOUND
    text = "etcdserver: member not found"


class MemberNotLearnerError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: can only promote a learner member"


class LearnerNotReadyError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: can only promote a learner member which is in sync with leader"


class TooManyLearnersError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: too many learner members in cluster"


class ClusterIDMismatchError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: cluster ID mismatch"


class RequestTooLargeError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: request is too large"


class TooManyRequestsError(EtcdError):
    code = codes.UNKNOWN
    text = "etcdserver: too many requests"


class RootUserNotExistError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: root user does not exist"


class RootRoleNotGrantedError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: root user does not have root role"


class UserExistsError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: user name already exists"


class UserEmptyError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: user name is empty"


class UserNotFoundError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: user name not found"


class RoleExistsError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: role name already exists"


class RoleNotFoundError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: role name not found"


class RoleEmptyError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: role name is empty"


class AuthFailedError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: authentication failed, invalid user ID or password"


class PermissionNotGivenError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: permission not given"


class PermissionDeniedError(EtcdError):
    code = codes.PERMISSION_DENIED
    text = "etcdserver: permission denied"


class RoleNotGrantedError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: role is not granted to the user"


class PermissionNotGrantedError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: permission is not granted to the role"


class AuthNotEnabledError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: authentication is not enabled"


class InvalidAuthTokenError(EtcdError):
    code = codes.UNAUTHENTICATED
    text = "etcdserver: invalid auth token"


class InvalidAuthManagementError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: invalid auth management"


class AuthOldRevisionError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: revision of auth store is old"


class NoLeaderError(EtcdError):
    code = codes.UNAVAILABLE
    text = "etcdserver: no leader"


class NotLeaderError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: not leader"


class LeaderChangedError(EtcdError):
    code = codes.UNAVAILABLE
    text = "etcdserver: leader changed"


class NotCapableError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: not capable"


class StoppedError(EtcdError):
    code = codes.UNAVAILABLE
    text = "etcdserver: server stopped"


class RequestTimeoutError(EtcdError):
    code = codes.UNAVAILABLE
    text = "etcdserver: request timed out"


class TimeoutLeaderFailError(EtcdError):
    code = codes.UNAVAILABLE
    text = "etcdserver: request timed out, possibly due to previous leader failure"


class TimeoutConnectionLostError(EtcdError):
    code = codes.UNAVAILABLE
    text = "etcdserver: request timed out, possibly due to connection lost"


class TimeoutWaitAppliedIndexError(EtcdError):
    code = codes.UNAVAILABLE
    text = "etcdserver: request timed out, waiting for the applied index took too long"


class UnhealthyError(EtcdError):
    code = codes.UNAVAILABLE
    text = "etcdserver: unhealthy cluster"


class CorruptError(EtcdError):
    code = codes.DATA_LOSS
    text = "etcdserver: corrupt cluster"


class LearnerNotSupportedError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: rpc not supported for learner"


class BadLeaderTransfereeError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: bad leader transferee"


class WrongDowngradeVersionFormatError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: wrong downgrade target version format"


class InvalidDowngradeTargetVersionError(EtcdError):
    code = codes.INVALID_ARGUMENT
    text = "etcdserver: invalid downgrade target version"


class ClusterVersionUnavailableError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: cluster version not found during downgrade"


class DowngradeInProcessError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: cluster has a downgrade job in progress"


class NoInflightDowngradeError(EtcdError):
    code = codes.FAILED_PRECONDITION
    text = "etcdserver: no inflight downgrade job"


class RequestCanceledError(EtcdError):
    code = codes.CANCELLED
    text = "etcdserver: request canceled"


class DeadlineExceededError(EtcdError):
    code = codes.DEADLINE_EXCEEDED
    text = "etcdserver: context deadline exceeded"


class PostponedError(InvalidAuthTokenError):
    """No answer yet: the caller's token can be checked once more of the log is applied.

    `when(again)` calls `again(None)` then, or `again(error)` when it takes too long. A caller that
    cannot wait treats it as its base class, a refusal.
    """

    def __init__(self, when: Callable[[Callable[[EtcdError | None], None]], None]) -> None:
        super().__init__()
        self.when = when


BY_TEXT: dict[str, type[EtcdError]] = {kind.text: kind for kind in EtcdError.__subclasses__()}
"""Text → class: how a client finds the kind of a status."""
