"""Versions of servers, of the cluster and of the storage, and the rules of their changes.

The cluster's version is the lowest minor version that every member speaks; it only moves up, or
down by one minor when a downgrade was asked for. Sources: etcd `server/etcdserver/version`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from keyraft.base.errors import (
    InvalidDowngradeTargetVersionError,
    WrongDowngradeVersionFormatError,
)
from keyraft.base.log import Logger

_SEMVER: Final = re.compile(
    r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})"
    r"(?:-([0-9A-Za-z.-]{1,64}))?(?:\+[0-9A-Za-z.-]{1,64})?\Z"
)


class VersionError(ValueError):
    """The text is no version."""


@dataclass(frozen=True, slots=True)
class Version:
    """A semantic version; `pre` is what follows the hyphen ("alpha.0"), empty for a release."""

    major: int
    minor: int
    patch: int = 0
    pre: str = ""

    @property
    def sort_key(self) -> tuple[object, ...]:
        """Orders versions; a pre-release comes before its release (semver.org §11)."""
        pieces = tuple(
            (0, int(piece), "") if piece.isdigit() else (1, 0, piece)
            for piece in self.pre.split(".")
            if piece
        )
        return (self.major, self.minor, self.patch, not self.pre, pieces)

    @property
    def without_patch(self) -> Version:
        """The minor version, as the cluster's version is kept."""
        return Version(self.major, self.minor)

    @property
    def one_minor_down(self) -> Version:
        """The only version that a downgrade may go to."""
        return Version(self.major, self.minor - 1)

    def is_below(self, other: Version) -> bool:
        """Whether this version is older."""
        return self.sort_key < other.sort_key

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        return f"{text}-{self.pre}" if self.pre else text


MIN_CLUSTER_VERSION: Final = Version(3, 0)
_FIRST_STORED: Final = Version(3, 6)  # the first version that is stored in the database


def parse_version(text: str) -> Version:
    """A version with all three numbers; raises VersionError."""
    match = _SEMVER.match(text)
    if match is None:
        raise VersionError(f"{text[:100]!r} is no version")
    major, minor, patch, pre = match.groups()
    return Version(int(major), int(minor), int(patch), pre or "")


def short(version: Version) -> str:
    """As logs and /version name the cluster's version: "3.7"."""
    return f"{version.major}.{version.minor}"


@dataclass(frozen=True, slots=True)
class Downgrade:
    """The cluster's downgrade, if one is under way; `target` is "3.6.0" then."""

    target: str = ""
    enabled: bool = False


def parse_downgrade_target(text: str) -> Version:
    """The target of a Downgrade request, "3.6" or "3.6.0".

    Raises WrongDowngradeVersionFormatError.
    """
    try:
        return parse_version(text).without_patch
    except VersionError:
        pass
    try:
        return parse_version(text + ".0").without_patch
    except VersionError:
        raise WrongDowngradeVersionFormatError from None


FIRST_WITH_DOWNGRADES: Final = Version(3, 5)


def check_downgrade_target(cluster: Version, target: Version) -> None:
    """Raises InvalidDowngradeTargetVersionError unless it is exactly one minor down.

    DEVIATION: 3.4 is refused. It knows of no downgrades, and panics at the entry that tells of one.
    """
    if target != cluster.one_minor_down or target.is_below(FIRST_WITH_DOWNGRADES):
        raise InvalidDowngradeTargetVersionError


def may_change(old: Version, new: Version) -> bool:
    """Whether the cluster's version may move so: up within a major, or down by one minor."""
    old, new = old.without_patch, new.without_patch
    return new == old.one_minor_down or (old.major == new.major and old.is_below(new))


def minimal_server_version(
    local: Version, members: Mapping[int, str | None], log: Logger
) -> Version | None:
    """The oldest version among the members; None while one has not told its own."""
    lowest: Version | None = None
    for id, text in members.items():
        if text is None:
            return None
        try:
            version = parse_version(text)
        except VersionError as error:
            log.warn(
                "failed to parse server version of remote member",
                remote_member_id=f"{id:x}",
                remote_member_version=text,
                error=str(error),
            )
            return None
        if local.is_below(version):
            log.warn(
                "leader found higher-versioned member",
                local_member_version=str(local),
                remote_member_id=f"{id:x}",
                remote_member_version=text,
            )
        if lowest is None or version.is_below(lowest):
            lowest = version
    return lowest


def may_join(local: Version, clusters: Mapping[int, str | None], log: Logger) -> bool:
    """Whether a server of this version may join; `clusters`: what each member says of the cluster's.

    At least one member must have answered (etcd `isCompatibleWithVers`).
    """
    told = False
    for id, text in clusters.items():
        if text is None:
            continue
        try:
            version = parse_version(text)
        except VersionError as error:
            log.warn(
                "failed to parse cluster version of remote member",
                remote_member_id=f"{id:x}",
                remote_member_cluster_version=text,
                error=str(error),
            )
            continue
        low = version.is_below(MIN_CLUSTER_VERSION)
        if low or local.without_patch.is_below(version):
            log.warn(
                f"cluster version of remote member is not compatible; too {'low' if low else 'high'}",
                remote_member_id=f"{id:x}",
                remote_member_cluster_version=text,
                minimum_cluster_version_supported=short(MIN_CLUSTER_VERSION),
            )
            return False
        told = True
    return told


def decide_cluster_version(
    cluster: Version | None, lowest: Version | None, downgrade: Downgrade, log: Logger
) -> Version | None:
    """What the leader should propose as the cluster's version, None for nothing.

    `lowest` is `minimal_server_version`.
    """
    if cluster is None:
        return (lowest or MIN_CLUSTER_VERSION).without_patch
    if lowest is None:
        return None
    if downgrade.enabled:
        target = parse_version(downgrade.target)
        if target == cluster:
            return None
        if target != cluster.one_minor_down or target != lowest.one_minor_down:
            log.error(
                "Cannot downgrade from cluster-version to downgrade-target",
                downgrade_target=downgrade.target,
                cluster_version=str(cluster),
            )
            return None
        return target
    if cluster.is_below(lowest) and may_change(cluster, lowest):
        return lowest.without_patch
    return None


def storage_version_to_write(cluster: Version | None, stored: Version | None) -> Version | None:
    """The storage version to store, None when it is right or the cluster's is not decided."""
    if cluster is None or cluster.is_below(_FIRST_STORED):
        return None
    if stored is not None and stored.without_patch == cluster.without_patch:
        return None
    return cluster.without_patch


def downgrade_is_complete(downgrade: Downgrade, members: Mapping[int, str | None]) -> bool:
    """Whether every member runs the target of the downgrade, so that it can be ended."""
    if not downgrade.enabled:
        return False
    target = parse_version(downgrade.target).without_patch
    for text in members.values():
        try:
            if text is None or parse_version(text).without_patch != target:
                return False
        except VersionError:
            return False
    return True
