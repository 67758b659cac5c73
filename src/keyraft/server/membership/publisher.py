"""Publishes a member's name and client URLs, and as a leader the cluster's version.

Every start proposes the attributes until they are applied; the member serves clients only then.
The leader sets the cluster's version to the lowest minor version of all members, at once when it
begins to lead and every four seconds after that (etcd `publishV3`, `monitorVersions`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from keyraft.base.errors import EtcdError, RawError
from keyraft.base.version import VERSION
from keyraft.base.waiters import Result
from keyraft.cluster import (
    MIN_CLUSTER_VERSION,
    Version,
    VersionError,
    decide_cluster_version,
    minimal_server_version,
    parse_version,
    short,
)
from keyraft.proto import membership_pb2
from keyraft.server.apply import internal_request, v2_requests

if TYPE_CHECKING:
    from keyraft.server.member import Member

TODAYS_REQUESTS: Final = Version(3, 5)  # members since then understand requests of the v3 API
VERSION_CHECK_S: Final = 4.0  # etcd `monitorVersionInterval`


class Publisher:
    """Owned by the member's loop."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.published = False
        self.on_published: Callable[[], None] | None = None
        self._publishing = False
        self._version_due_s = 0.0
        self._setting_version = False

    def tick(self, now_s: float) -> None:
        """Publishes what is not yet published; called with every Raft tick."""
        if self._member.leadership.leader:
            self._publish_if_known()
        if self._member.leadership.leading and now_s >= self._version_due_s:
            self._check_version(now_s)

    def leads(self) -> None:
        """This member has begun to lead, and has committed an entry of its term."""
        self._publish_if_known()
        self._check_version(self._member.loop.time())

    def restored(self) -> None:
        """A snapshot has come. A proposal may be in it, and is then never applied here.

        DEVIATION: etcd waits for its request timeout before it publishes again.
        """
        member = self._member
        settings = member.settings
        known = member.membership.cluster.member(settings.member_id)
        if not self._publishing or self.published or known is None:
            return
        if (known.name, known.client_urls) == (settings.name, settings.client_urls):
            self._published(b"")

    def _publish_if_known(self) -> None:
        """Publishes once this member's addition is applied: then the others' versions are known."""
        known = self._member.membership.cluster.local is not None
        if known and not self.published and not self._publishing:
            self._publish()

    def _publish(self) -> None:
        member = self._member
        settings = member.settings
        request = membership_pb2.ClusterMemberAttrSetRequest(
            member_ID=settings.member_id,
            member_attributes=membership_pb2.Attributes(
                name=settings.name, client_urls=settings.client_urls
            ),
        )
        self._publishing = True
        version = member.membership.cluster.version
        # The first version is below all that are supported, and says nothing of the members.
        self._try(
            internal_request.KIND_CLUSTER_MEMBER_ATTR_SET,
            request.SerializeToString(),
            self._published,
            version.is_below(TODAYS_REQUESTS)
            if version is not None and version != MIN_CLUSTER_VERSION
            else self._has_old_peers(),
        )

    def _has_old_peers(self) -> bool:
        """Whether a member that can be reached is known to be of 3.4, which panics at requests of
        the v3 API. One of 3.7 panics at those of the v2 API, so a guess would not do."""
        return any(map(_is_old, self._member.network.versions().values()))

    def _try(self, kind: int, request: bytes, done: Callable[[Result], None], is_old: bool) -> None:
        """Proposes, in the form of the v2 API where `is_old`."""
        if is_old:
            kind, request = internal_request.KIND_V2, v2_requests.encode(kind, request)
        try:
            self._member.propose(kind, request, done)
        except EtcdError as refusal:
            done(refusal)

    def _published(self, result: Result) -> None:
        member = self._member
        settings = member.settings
        self._publishing = False
        if self.published:
            return  # the result of this proposal was in a snapshot already
        identity = {
            "local_member_id": f"{settings.member_id:x}",
            "local_member_attributes": (
                f"{{Name:{settings.name} ClientURLs:[{' '.join(settings.client_urls)}]}}"
            ),
        }
        if isinstance(result, bytes):
            self.published = True
            member.logger.info(
                "published local member to cluster through raft",
                **identity,
                cluster_id=f"{settings.cluster_id:x}",
                publish_timeout=f"{settings.request_timeout_s:g}s",
            )
            if self.on_published is not None:
                self.on_published()
        elif not member.stopped:
            member.logger.warn(
                "failed to publish local member to cluster through raft",
                **identity,
                publish_timeout=f"{settings.request_timeout_s:g}s",
                error=result.text,
            )

    def _check_version(self, now_s: float) -> None:
        self._version_due_s = now_s + VERSION_CHECK_S
        if self._setting_version:
            return
        member = self._member
        cluster = member.membership.cluster
        local = parse_version(VERSION)
        versions = dict(member.network.versions())
        told: dict[int, str | None] = {
            other.id: versions.get(other.id) for other in cluster.members
        }
        told[member.settings.member_id] = VERSION
        lowest = minimal_server_version(local, told, member.logger)
        version = decide_cluster_version(cluster.version, lowest, cluster.downgrade, member.logger)
        if version is None:
            return
        is_old = self._has_old_peers()
        api = "v2" if is_old else "v3"
        if cluster.version is None:
            member.logger.info(
                f"setting up initial cluster version using {api} API",
                cluster_version=short(version),
            )
        else:
            member.logger.info(
                f"updating cluster version using {api} API",
                **{"from": short(cluster.version), "to": short(version)},
            )
        self._setting_version = True
        request = membership_pb2.ClusterVersionSetRequest(ver=str(version))
        self._try(
            internal_request.KIND_CLUSTER_VERSION_SET,
            request.SerializeToString(),
            self._version_set,
            is_old,
        )

    def _version_set(self, result: Result) -> None:
        self._setting_version = False
        member = self._member
        version = member.membership.cluster.version
        if isinstance(result, EtcdError | RawError):
            if not member.stopped:
                member.logger.warn("failed to update cluster version", error=result.text)
        elif version is not None:
            member.logger.info("cluster version is updated", cluster_version=short(version))


def _is_old(text: str | None) -> bool:
    """Whether a server's version, as a peer told it, is below 3.5."""
    try:
        return text is not None and parse_version(text).is_below(TODAYS_REQUESTS)
    except VersionError:
        return False
