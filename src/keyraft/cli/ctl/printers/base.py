"""The methods of every output form. A form without a method prints an error, with exit code 4.

Keys and values are held as text. Bytes that are no UTF-8 become surrogates, and are written as the
same bytes.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from keyraft.cli.ctl.exits import BAD_FEATURE, Exit
from keyraft.proto import rpc_pb2


def text(value: bytes) -> str:
    """Bytes as text that `write` turns back into the same bytes."""
    return value.decode("utf-8", "surrogateescape")


def write(out: str | bytes) -> None:
    """Writes to standard output, at once."""
    sys.stdout.buffer.write(
        out if isinstance(out, bytes) else out.encode("utf-8", "surrogateescape")
    )
    sys.stdout.buffer.flush()


def line(out: str = "") -> None:
    """Writes a line to standard output."""
    write(out + "\n")


def complain(out: str) -> None:
    """Writes a line to standard error."""
    sys.stderr.buffer.write((out + "\n").encode("utf-8", "surrogateescape"))
    sys.stderr.buffer.flush()


class EndpointHealth:
    """What `endpoint health` found out about one endpoint; `error` is "" for a healthy one."""

    def __init__(self, endpoint: str, healthy: bool, took: str, error: str) -> None:
        self.endpoint = endpoint
        self.healthy = healthy
        self.took = took
        self.error = error


class Printer:
    """An output form. Methods are named after what they show."""

    form = ""

    def __init__(self, is_hex: bool) -> None:
        self.is_hex = is_hex

    def unsupported(self) -> NoReturn:
        """Raises the error that this form cannot show the answer."""
        raise Exit(BAD_FEATURE, f"{self.form} not supported as output format")

    def message(self, response: Any) -> None:
        """Any answer for which this form has no own method."""
        self.unsupported()

    def get(self, response: rpc_pb2.RangeResponse) -> None:
        """The answer to a read."""
        self.message(response)

    def put(self, response: rpc_pb2.PutResponse) -> None:
        """The answer to a write."""
        self.message(response)

    def delete(self, response: rpc_pb2.DeleteRangeResponse) -> None:
        """The answer to a deletion."""
        self.message(response)

    def txn(self, response: rpc_pb2.TxnResponse) -> None:
        """The answer to a transaction."""
        self.message(response)

    def watch(self, response: rpc_pb2.WatchResponse) -> None:
        """Events, progress or the end of a watch."""
        self.message(response)

    def lease_grant(self, response: rpc_pb2.LeaseGrantResponse) -> None:
        """A new lease."""
        self.message(response)

    def lease_revoke(self, lease_id: int, response: rpc_pb2.LeaseRevokeResponse) -> None:
        """A lease is gone."""
        self.message(response)

    def lease_keep_alive(self, response: rpc_pb2.LeaseKeepAliveResponse) -> None:
        """A renewal."""
        self.message(response)

    def lease_time_to_live(self, response: rpc_pb2.LeaseTimeToLiveResponse, keys: bool) -> None:
        """How long a lease lives."""
        self.message(response)

    def leases(self, response: rpc_pb2.LeaseLeasesResponse) -> None:
        """All leases."""
        self.message(response)

    def member_add(self, response: rpc_pb2.MemberAddResponse) -> None:
        """A new member."""
        self.message(response)

    def member_remove(self, member_id: int, response: rpc_pb2.MemberRemoveResponse) -> None:
        """A member is gone."""
        self.message(response)

    def member_update(self, member_id: int, response: rpc_pb2.MemberUpdateResponse) -> None:
        """A member moved."""
        self.message(response)

    def member_promote(self, member_id: int, response: rpc_pb2.MemberPromoteResponse) -> None:
        """A learner became a voter."""
        self.message(response)

    def members(self, response: rpc_pb2.MemberListResponse) -> None:
        """All members."""
        self.message(response)

    def health(self, found: list[EndpointHealth]) -> None:
        """`endpoint health`."""
        self.unsupported()

    def status(self, found: list[tuple[str, rpc_pb2.StatusResponse]]) -> None:
        """`endpoint status`: endpoints with their answers."""
        self.unsupported()

    def hash_kv(self, found: list[tuple[str, rpc_pb2.HashKVResponse]]) -> None:
        """`endpoint hashkv`: endpoints with their answers."""
        self.unsupported()

    def move_leader(self, leader: int, target: int, response: rpc_pb2.MoveLeaderResponse) -> None:
        """The leadership was transferred."""
        self.message(response)

    def downgrade(self, action: str, response: rpc_pb2.DowngradeResponse) -> None:
        """`downgrade validate`, `enable`, `cancel`."""
        self.message(response)

    def alarms(self, response: rpc_pb2.AlarmResponse) -> None:
        """Alarms."""
        self.message(response)

    def said(self, sentence: str, response: Any) -> None:
        """An answer that has only a header; `sentence` is printed in the simple form."""
        self.message(response)

    def role(self, name: str, response: rpc_pb2.AuthRoleGetResponse) -> None:
        """A role's permissions."""
        self.message(response)

    def roles(self, response: rpc_pb2.AuthRoleListResponse) -> None:
        """All roles."""
        self.message(response)

    def user(self, name: str, response: rpc_pb2.AuthUserGetResponse) -> None:
        """A user's roles."""
        self.message(response)

    def users(self, response: rpc_pb2.AuthUserListResponse) -> None:
        """All users."""
        self.message(response)

    def auth_status(self, response: rpc_pb2.AuthStatusResponse) -> None:
        """Whether authentication is on."""
        self.message(response)
