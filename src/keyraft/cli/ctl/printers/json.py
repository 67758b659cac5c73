"""JSON as Go's encoder makes it from the messages' structures.

Field names are those of the `.proto` sources, fields of value zero are left out, bytes are
base64, 64-bit numbers and enums are plain numbers. Answers that the original wraps in structures
of its own (watch, leases, transactions) have the shape of those.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from keyraft.cli.ctl.printers.base import EndpointHealth, Printer, line
from keyraft.proto import rpc_pb2


def plain(message: Message) -> dict[str, Any]:
    """A message as Go's JSON has it."""
    out: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if value:
                out[field.name] = [_value(field, one) for one in value]
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if message.HasField(field.name):
                out[field.name] = plain(value)
        elif value:
            out[field.name] = _value(field, value)
    return out


def _value(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return plain(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def encode(value: Any) -> str:
    """JSON without blanks, with Go's escapes for HTML."""
    out = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        if char in out:  # only inside strings: JSON itself has none of them
            out = out.replace(char, f"\\u{ord(char):04x}")
    return out


class JSONPrinter(Printer):
    """`--write-out json`; `--hex` writes the ids in answers about members in hexadecimal."""

    form = "json"

    def message(self, response: Message) -> None:
        line(encode(plain(response)))

    def txn(self, response: rpc_pb2.TxnResponse) -> None:
        line(encode(_txn(response)))

    def watch(self, response: rpc_pb2.WatchResponse) -> None:
        out = {
            "Header": plain(response.header),
            "Events": [plain(event) for event in response.events],
            "CompactRevision": response.compact_revision,
            "Canceled": response.canceled,
            "Created": response.created,
            "CancelReason": response.cancel_reason,
        }
        line(encode(out))

    def lease_grant(self, response: rpc_pb2.LeaseGrantResponse) -> None:
        own = {"ID": response.ID, "TTL": response.TTL, "Error": response.error}
        line(encode(plain(response.header) | own))

    def lease_keep_alive(self, response: rpc_pb2.LeaseKeepAliveResponse) -> None:
        line(encode(plain(response.header) | {"ID": response.ID, "TTL": response.TTL}))

    def lease_time_to_live(self, response: rpc_pb2.LeaseTimeToLiveResponse, keys: bool) -> None:
        own = {
            "id": response.ID,
            "ttl": response.TTL,
            "granted-ttl": response.grantedTTL,
            "keys": [base64.b64encode(key).decode() for key in response.keys] or None,
        }
        line(encode(plain(response.header) | own))

    def leases(self, response: rpc_pb2.LeaseLeasesResponse) -> None:
        own = {"leases": [{"id": lease.ID} for lease in response.leases]}
        line(encode(plain(response.header) | own))

    def _members(self, response: Any, *, added: bool = False) -> None:
        if not self.is_hex:
            self.message(response)
            return
        header = plain(response.header)
        header |= {name: f"{header.get(name, 0):x}" for name in ("cluster_id", "member_id")}
        out: dict[str, Any] = {"header": header}
        if added:
            out["member"] = _hex_member(response.member)
        out["members"] = [_hex_member(member) for member in response.members]
        line(encode(out))

    def member_add(self, response: rpc_pb2.MemberAddResponse) -> None:
        self._members(response, added=True)

    def member_remove(self, member_id: int, response: rpc_pb2.MemberRemoveResponse) -> None:
        self._members(response)

    def member_update(self, member_id: int, response: rpc_pb2.MemberUpdateResponse) -> None:
        self._members(response)

    def member_promote(self, member_id: int, response: rpc_pb2.MemberPromoteResponse) -> None:
        self._members(response)

    def members(self, response: rpc_pb2.MemberListResponse) -> None:
        self._members(response)

    def health(self, found: list[EndpointHealth]) -> None:
        out = []
        for one in found:
            row: dict[str, Any] = {
                "endpoint": one.endpoint,
                "health": one.healthy,
                "took": one.took,
            }
            out.append(row | ({"error": one.error} if one.error else {}))
        line(encode(out or None))

    def status(self, found: list[tuple[str, rpc_pb2.StatusResponse]]) -> None:
        out = [{"Endpoint": endpoint, "Status": plain(one)} for endpoint, one in found]
        line(encode(out or None))

    def hash_kv(self, found: list[tuple[str, rpc_pb2.HashKVResponse]]) -> None:
        out = [{"Endpoint": endpoint, "HashKV": plain(one)} for endpoint, one in found]
        line(encode(out or None))


def _hex_member(member: rpc_pb2.Member) -> dict[str, Any]:
    return plain(member) | {"ID": f"{member.ID:x}"}


def _txn(response: rpc_pb2.TxnResponse) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if response.HasField("header"):
        out["header"] = plain(response.header)
    if response.succeeded:
        out["succeeded"] = True
    if response.responses:
        out["responses"] = [{"Response": _part(part)} for part in response.responses]
    return out


def _part(part: rpc_pb2.ResponseOp) -> dict[str, Any]:
    kind = part.WhichOneof("response")
    if kind is None:
        return {}
    if kind == "response_txn":
        return {kind: _txn(part.response_txn)}
    return {kind: plain(getattr(part, kind))}
