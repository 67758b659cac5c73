"""Who may speak with whom: the headers between members and the answers to strangers.

Every request of a member carries its id, its version, the oldest cluster version it can live
with, its cluster's id and its peer URLs (etcd `rafthttp`). A request from another cluster or an
incompatible version is refused with 412 and one of two texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
from aiohttp import web

from keyraft.base.version import MIN_CLUSTER_VERSION, VERSION

MISSING_VERSION: Final = "2.0.0"  # what a member that sends no version header is taken for
INCOMPATIBLE_VERSION: Final = "incompatible version"
CLUSTER_ID_MISMATCH: Final = "cluster ID mismatch"
ANSWER_BYTES_MAX: Final = 64 * 1024  # of a refusal's text


class PeerRefusal(Exception):
    """The peer answered, but not with what was asked for."""


class MemberRemovedError(PeerRefusal):
    """The peer says that this member is no longer part of the cluster."""

    def __init__(self) -> None:
        super().__init__("the member has been permanently removed from the cluster")


def http_error(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """What Go's http.Error writes."""
    return web.Response(
        status=status,
        text=text + "\n",
        headers={"X-Content-Type-Options": "nosniff", **(headers or {})},
    )


def request_headers(local_id: int, cluster_id: int, peer_urls: Sequence[str]) -> dict[str, str]:
    """What every request between members carries."""
    return {
        "X-Server-From": f"{local_id:x}",
        "X-Server-Version": VERSION,
        "X-Min-Cluster-Version": MIN_CLUSTER_VERSION,
        "X-Etcd-Cluster-ID": f"{cluster_id:x}",
        "X-PeerURLs": ",".join(peer_urls),
    }


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor of `3.5.1`; raises PeerRefusal for anything else."""
    parts = text.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        raise PeerRefusal(INCOMPATIBLE_VERSION)
    return int(parts[0]), int(parts[1])


def check_request(headers: Mapping[str, str], cluster_id: int) -> str | None:
    """The text of the refusal, or None when the sender is one of us."""
    try:
        server = parse_version(headers.get("X-Server-Version") or MISSING_VERSION)
        minimum = parse_version(headers.get("X-Min-Cluster-Version") or MISSING_VERSION)
    except PeerRefusal:
        return INCOMPATIBLE_VERSION
    if server < parse_version(MIN_CLUSTER_VERSION) or minimum > parse_version(VERSION):
        return INCOMPATIBLE_VERSION
    if headers.get("X-Etcd-Cluster-ID", "") != f"{cluster_id:x}":
        return CLUSTER_ID_MISMATCH
    return None


def check_stream_status(status: int, text: str, peer: str, local_id: int) -> None:
    """Raises when the peer did not open the stream; MemberRemovedError when it never will.

    `text`: the body of a 412.
    """
    if status == 200:
        return
    if status == 410:
        raise MemberRemovedError
    if status == 404:
        raise PeerRefusal(f"peer {peer} failed to find local node {local_id:x}")
    if status == 412:
        raise PeerRefusal(_refusal(text))
    raise PeerRefusal(f"unhandled http status {status}")


async def check_post_response(response: aiohttp.ClientResponse) -> None:
    """Raises when the peer did not take the message."""
    if response.status == 204:
        return
    if response.status == 403:
        raise MemberRemovedError
    if response.status == 412:
        body = await response.content.read(ANSWER_BYTES_MAX)
        raise PeerRefusal(_refusal(body.decode("utf-8", "replace")))
    raise PeerRefusal(f'unexpected http status {response.reason} while posting to "{response.url}"')


def _refusal(body: str) -> str:
    text = body.rstrip("\n")
    if text in (INCOMPATIBLE_VERSION, CLUSTER_ID_MISMATCH):
        return text
    return f'unhandled error "{text}" when precondition failed'
