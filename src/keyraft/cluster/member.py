"""One member as the cluster knows it, and its JSON, in the database and in the log.

The JSON is Go's: field order, `null` for an absent list, `<`, `>` and `&` escaped; members of a
mixed cluster must write the same bytes, because the database is hashed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeGuard

from keyraft.base.ids import MemberID
from keyraft.base.urls import URLError, parse_urls
from keyraft.cluster.ident import format_id, member_id

_KEY = re.compile(rb"[0-9a-fA-F]{1,16}")
_GO_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


class MembershipDataError(ValueError):
    """Stored or logged membership cannot be read; the member must stop."""


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A member; `name` is empty until it has started for the first time."""

    id: MemberID
    peer_urls: tuple[str, ...] = ()
    name: str = ""
    client_urls: tuple[str, ...] = ()
    is_learner: bool = False

    @property
    def is_started(self) -> bool:
        """Whether it has ever published its name."""
        return bool(self.name)

    def to_json(self) -> bytes:
        """As stored under its hex id in bucket `members`, and as context of a change."""
        return encode_json(self._fields())

    def _fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"id": self.id, "peerURLs": list(self.peer_urls) or None}
        if self.is_learner:
            fields["isLearner"] = True
        if self.name:
            fields["name"] = self.name
        if self.client_urls:
            fields["clientURLs"] = list(self.client_urls)
        return fields


@dataclass(frozen=True, slots=True)
class ChangeContext:
    """The context of a configuration change: the member, and whether it is promoted."""

    member: MemberRecord = field(default_factory=lambda: MemberRecord(MemberID(0)))
    is_promote: bool = False

    def to_json(self) -> bytes:
        """The context of an entry. A promotion carries only the id, an addition the member."""
        if not self.is_promote:
            return self.member.to_json()
        return encode_json({"id": self.member.id, "peerURLs": None, "isPromote": True})


def new_member(
    name: str,
    peer_urls: Iterable[str],
    token: str,
    added_unix_s: int | None = None,
    is_learner: bool = False,
) -> MemberRecord:
    """A member with the id that follows from its URLs (`ident.member_id`)."""
    urls = tuple(sorted(peer_urls))
    return MemberRecord(member_id(urls, token, added_unix_s), urls, name, (), is_learner)


def encode_json(value: object) -> bytes:
    """Compact JSON as Go's `encoding/json` writes it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.translate(_GO_ESCAPES).encode()


def decode_member(data: bytes, id: MemberID | None = None) -> MemberRecord:
    """A member from its JSON; raises MembershipDataError. `id` when the JSON carries none."""
    return _member(_object(data), id)


def decode_context(data: bytes) -> ChangeContext:
    """The context of a configuration change; empty for a removal. Raises MembershipDataError."""
    if not data:
        return ChangeContext()
    fields = _object(data)
    return ChangeContext(_member(fields, None), fields.get("isPromote") is True)


def check_peer_urls(urls: Iterable[str]) -> None:
    """Raises MembershipDataError unless a member can be dialled at these."""
    try:
        parse_urls(urls)
    except URLError as error:
        raise MembershipDataError(f"peer URLs: {error}") from None


def decode_member_key(key: bytes) -> MemberID:
    """The id from a key of `members` or `members_removed`; raises MembershipDataError."""
    if not _KEY.fullmatch(key):
        raise MembershipDataError(f"member key {key[:40]!r} is no id")
    return MemberID(int(key, 16))


def member_key(id: int) -> bytes:
    """The key of a member in buckets `members` and `members_removed`."""
    return format_id(id).encode()


def _object(data: bytes) -> dict[str, object]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MembershipDataError(f"member data is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise MembershipDataError("member data is no JSON object")
    return fields


def _member(fields: dict[str, object], id: MemberID | None) -> MemberRecord:
    own = fields.get("id", id)
    name = fields.get("name", "")
    if not isinstance(own, int) or isinstance(own, bool) or not 0 <= own < 1 << 64:
        raise MembershipDataError("member data has no id")
    if not _is_text(name):
        raise MembershipDataError("member name is no text")
    return MemberRecord(
        MemberID(own),
        _texts(fields.get("peerURLs")),
        name,
        _texts(fields.get("clientURLs")),
        fields.get("isLearner") is True,
    )


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(map(_is_text, value)):
        raise MembershipDataError("member URLs are no list of texts")
    return tuple(value)


def _is_text(value: object) -> TypeGuard[str]:
    """Whether it is text that UTF-8 can encode: JSON has escapes for lone surrogates."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
