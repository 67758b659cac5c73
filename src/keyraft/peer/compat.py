"""Which members may talk to each other: the headers that they send, and how others are refused.

Every request of a member carries its id, its version, the oldest cluster version it can live
with, its cluster's id and its peer URLs (etcd `rafthttp`). A request from another cluster or an
incompatible version is refused with 412 and one of two texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from keyraft.base import http_status
from keyraft.base.version import MIN_CLUSTER_VERSION, VERSION
from keyraft.net.http1 import HTTP_PHRASES

MISSING_VERSION: Final = "2.0.0"  # what a member that sends no version header is taken for
INCOMPATIBLE_VERSION: Final = "incompatible version"
CLUSTER_ID_MISMATCH: Final = "cluster ID mismatch"
_ID: Final = re.compile("[0-9a-fA-F]{1,16}")
_NUMBER: Final = re.compile("[0-9]{1,9}")


class PeerRefusal(Exception):
    """The peer answered, but not with what was asked for."""


class MemberRemovedError(PeerRefusal):
    """The peer says that this member is no longer part of the cluster."""

    def __init__(self) -> None:
        super().__init__("the member has been permanently removed from the cluster")


def request_headers(local_id: int, cluster_id: int, peer_urls: Sequence[str]) -> dict[str, str]:
    """What every request between members carries."""
    return {
        "X-Server-From": f"{local_id:x}",
        "X-Server-Version": VERSION,
        "X-Min-Cluster-Version": MIN_CLUSTER_VERSION,
        "X-Etcd-Cluster-ID": f"{cluster_id:x}",
        "X-PeerURLs": ",".join(peer_urls),
    }


def parse_id(text: str) -> int | None:
    """A member's id as headers and paths carry it; None for anything else."""
    return int(text, 16) or None if _ID.fullmatch(text) else None


def parse_json(text: bytes | str) -> Any:
    """The JSON in a member's answer; raises ValueError, also when it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("exceeded max depth") from None


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor of `3.5.1`; raises PeerRefusal for anything else."""
    parts = text.split(".")
    if len(parts) < 2 or not (_NUMBER.fullmatch(parts[0]) and _NUMBER.fullmatch(parts[1])):
        raise PeerRefusal(INCOMPATIBLE_VERSION)
    return int(parts[0]), int(parts[1])


def check_request(headers: Mapping[str, str], cluster_id: int) -> str | None:
    """The text of the refusal, or None when the sender belongs to this cluster.

    `headers`: names in lower case.
    """
    try:
        server = parse_version(headers.get("x-server-version") or MISSING_VERSION)
        minimum = parse_version(headers.get("x-min-cluster-version") or MISSING_VERSION)
    except PeerRefusal:
        return INCOMPATIBLE_VERSION
    if server < parse_version(MIN_CLUSTER_VERSION) or minimum > parse_version(VERSION):
        return INCOMPATIBLE_VERSION
    if headers.get("x-etcd-cluster-id", "") != f"{cluster_id:x}":
        return CLUSTER_ID_MISMATCH
    return None


def check_stream_status(status: int, text: str, peer: str, local_id: int) -> None:
    """Raises PeerRefusal if the peer did not open the stream, MemberRemovedError if it never will.

    `text`: the body of a 412.
    """
    if status == http_status.OK:
        return
    if status == http_status.GONE:
        raise MemberRemovedError
    if status == http_status.NOT_FOUND:
        raise PeerRefusal(f"peer {peer} failed to find local node {local_id:x}")
    if status == http_status.PRECONDITION_FAILED:
        raise PeerRefusal(_refusal(text))
    raise PeerRefusal(f"unhandled http status {status}")


def check_post_answer(status: int, text: str, url: str) -> None:
    """Raises when the peer did not take the message."""
    if status == http_status.NO_CONTENT:
        return
    if status == http_status.FORBIDDEN:
        raise MemberRemovedError
    if status == http_status.PRECONDITION_FAILED:
        raise PeerRefusal(_refusal(text))
    raise PeerRefusal(
        f'unexpected http status {HTTP_PHRASES.get(status, "")} while posting to "{url}"'
    )


def _refusal(body: str) -> str:
    text = body.rstrip("\n")
    if text in (INCOMPATIBLE_VERSION, CLUSTER_ID_MISMATCH):
        return text
    return f'unhandled error "{text}" when precondition failed'
