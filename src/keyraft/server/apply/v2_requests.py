"""Requests of the v2 API that members up to 3.5 put into the log, in today's form and back.

They set a member's name and client URLs, and the cluster's version; all others have no effect (etcd
3.6 `v2ToV3Request`). Members of 3.4 know no other form, and panic when they apply the new one. So a
Keyraft member among them proposes the old form, as 3.5 does.

DEVIATION: etcd 3.7 stops at such an entry. Keyraft continues a log of 3.5.
"""

from __future__ import annotations

import json

from google.protobuf.message import DecodeError

from keyraft.cluster import MembershipDataError
from keyraft.proto import membership_pb2, raft_internal_pb2
from keyraft.server.apply import internal_request


def encode(kind: int, request: bytes) -> bytes:
    """The Request that says the same as a request that sets a member's attributes or the cluster's
    version (etcd 3.4 `publish`, `updateClusterVersion`); what `translate` takes back."""
    if kind == internal_request.KIND_CLUSTER_VERSION_SET:
        version = membership_pb2.ClusterVersionSetRequest.FromString(request)
        return _put("/0/version", version.ver)
    told = membership_pb2.ClusterMemberAttrSetRequest.FromString(request)
    attributes: dict[str, object] = {}
    if told.member_attributes.name:
        attributes["name"] = told.member_attributes.name
    if told.member_attributes.client_urls:
        attributes["clientURLs"] = list(told.member_attributes.client_urls)
    path = f"/0/members/{told.member_ID:x}/attributes"
    return _put(path, json.dumps(attributes, separators=(",", ":")))


def _put(path: str, value: str) -> bytes:
    request = raft_internal_pb2.Request(Method="PUT", Path=path, Val=value)
    return request.SerializeToString()


def translate(data: bytes) -> tuple[int, bytes] | None:
    """(kind, request) of a v2 Request, None for one without effect.

    Raises MembershipDataError.
    """
    try:
        request = raft_internal_pb2.Request.FromString(data)
    except DecodeError as error:
        raise MembershipDataError(f"a request of the v2 API: {error}") from None
    if request.Method != "PUT":
        return None
    parts = request.Path.strip("/").split("/")
    if parts == ["0", "version"]:
        version = membership_pb2.ClusterVersionSetRequest(ver=request.Val)
        return internal_request.KIND_CLUSTER_VERSION_SET, version.SerializeToString()
    if len(parts) == 4 and parts[:2] == ["0", "members"] and parts[3] == "attributes":
        try:
            attributes = json.loads(request.Val)
            told = membership_pb2.ClusterMemberAttrSetRequest(
                member_ID=int(parts[2], 16),
                member_attributes=membership_pb2.Attributes(
                    name=str(attributes.get("name", "")),
                    client_urls=[str(url) for url in attributes.get("clientURLs") or ()],
                ),
            )
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise MembershipDataError(f"a member's attributes in the v2 API: {error}") from None
        return internal_request.KIND_CLUSTER_MEMBER_ATTR_SET, told.SerializeToString()
    return None
