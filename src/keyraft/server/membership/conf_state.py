"""Raft's configuration as etcd's `meta` bucket holds it."""

from __future__ import annotations

import json

from keyraft.cluster import MembershipDataError
from keyraft.raft import ConfState


def encode_conf_state(state: ConfState) -> bytes:
    """JSON, empty lists left out, `auto_leave` always there."""
    value: dict[str, object] = {}
    for name, ids in (
        ("voters", state.voters),
        ("learners", state.learners),
        ("voters_outgoing", state.voters_outgoing),
        ("learners_next", state.learners_next),
    ):
        if ids:
            value[name] = ids
    value["auto_leave"] = state.auto_leave
    return json.dumps(value, separators=(",", ":")).encode()


def decode_conf_state(text: bytes) -> ConfState:
    """The reverse; raises MembershipDataError."""
    try:
        value = json.loads(text)

        def ids(name: str) -> list[int]:
            return [int(ident) for ident in value.get(name) or ()]

        return ConfState(
            ids("voters"),
            ids("learners"),
            ids("voters_outgoing"),
            ids("learners_next"),
            bool(value.get("auto_leave")),
        )
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
        raise MembershipDataError("the stored configuration cannot be read") from None
