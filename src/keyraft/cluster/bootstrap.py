"""The checks before a member founds or joins a cluster, with etcd's messages.

They are pure: the caller resolves names (`Resolve`). Two URLs are the same if they have the same
address after resolution. Sources: etcd `server/config`, `pkg/netutil`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from keyraft.base.errors import TooManyLearnersError
from keyraft.base.gotext import format_bool, quote
from keyraft.base.urls import URL, format_urls_map, parse_url
from keyraft.cluster.ident import format_id
from keyraft.cluster.member import MemberRecord, new_member

Resolve = Callable[[str], str]
"""host:port → address:port; raises OSError when the name is unknown."""

URLsMap = Mapping[str, Sequence[URL]]


class BootstrapError(ValueError):
    """The member must not start with these flags; the message is etcd's."""


def unresolved(address: str) -> str:
    """A `Resolve` that leaves names alone."""
    return address


def check_new_cluster(
    name: str, advertised: Sequence[URL], initial: URLsMap, resolve: Resolve = unresolved
) -> None:
    """For a member that founds a cluster; raises BootstrapError (etcd `VerifyBootstrap`)."""
    _check_has_local(name, initial)
    _check_advertised(name, advertised, initial, resolve)
    _check_duplicates(initial)


def check_join(name: str, initial: URLsMap, discovers: bool = False) -> None:
    """For a member that joins one; raises BootstrapError (etcd `VerifyJoinExisting`)."""
    _check_has_local(name, initial)
    _check_duplicates(initial)
    if discovers:
        raise BootstrapError(
            "discovery URL should not be set when joining existing initial cluster"
        )


def founders(token: str, initial: URLsMap) -> list[MemberRecord]:
    """The members of a new cluster, sorted by id; raises BootstrapError."""
    members: dict[int, MemberRecord] = {}
    for name, urls in initial.items():
        member = new_member(name, [str(url) for url in urls], token)
        if member.id in members:
            raise BootstrapError(f"member exists with identical ID {format_id(member.id)}")
        if member.id == 0:
            raise BootstrapError("cannot use 0 as member id")
        members[member.id] = member
    return sorted(members.values(), key=lambda member: member.id)


def adopt_ids(
    local: Iterable[MemberRecord],
    existing: Iterable[MemberRecord],
    cluster: int,
    resolve: Resolve = unresolved,
) -> list[MemberRecord]:
    """Our view of the members with the ids that the running cluster gave them.

    Raises BootstrapError when the two views differ (etcd `ValidateClusterAndAssignIDs`).
    """
    mine = sorted(local, key=lambda member: member.id)
    theirs = sorted(existing, key=lambda member: member.id)
    listed = " ".join(map(_listed, theirs))
    prefix = (
        f"error validating peerURLs {{ClusterID:{format_id(cluster)} Members:[{listed}] "
        "RemovedMemberIDs:[]}: "
    )
    if len(mine) != len(theirs):
        raise BootstrapError(prefix + "member count is unequal")
    named: list[MemberRecord] = []
    for member in theirs:
        reason = ""
        for candidate in mine:
            reason = urls_difference(member.peer_urls, candidate.peer_urls, resolve)
            if not reason:
                named.append(replace(candidate, id=member.id))
                break
        else:
            urls = " ".join(member.peer_urls)
            raise BootstrapError(
                f"{prefix}PeerURLs: no match found for existing member "
                f"({format_id(member.id)}, [{urls}]), last resolver error ({reason})"
            )
    return named


def check_learners(members: Iterable[MemberRecord], max_learners: int, adding: int = 0) -> None:
    """Raises TooManyLearnersError when more learners than allowed are (or would be) there."""
    if sum(member.is_learner for member in members) + adding > max_learners:
        raise TooManyLearnersError


def urls_difference(left: Sequence[str], right: Sequence[str], resolve: Resolve) -> str:
    """Why two lists of URLs are not the same after resolution; empty when they are.

    Source: etcd `netutil.URLStringsEqual`.
    """
    if len(left) != len(right):
        return f"len({_quoted(left)}) != len({_quoted(right)})"
    if sorted(left) == sorted(right):
        return ""
    try:
        first = sorted(_resolved(url, resolve) for url in left)
        second = sorted(_resolved(url, resolve) for url in right)
    except OSError as error:
        return f"failed to resolve ({error})"
    for one, other in zip(first, second, strict=True):
        if one != other:
            return f"resolved urls: {quote(one)} != {quote(other)}"
    return ""


def _resolved(text: str, resolve: Resolve) -> str:
    url = parse_url(text)
    if url.is_unix or url.hostname == "localhost":
        return url.text
    return f"{url.scheme}://{resolve(url.host)}{url.path}"


def _listed(member: MemberRecord) -> str:
    """A member as Go prints it."""
    return (
        f"&{{ID:{format_id(member.id)} "
        f"RaftAttributes:{{PeerURLs:[{' '.join(member.peer_urls)}] IsLearner:{format_bool(member.is_learner)}}} "
        f"Attributes:{{Name:{member.name} ClientURLs:[{' '.join(member.client_urls)}]}}}}"
    )


def _quoted(texts: Iterable[str]) -> str:
    return "[" + " ".join(quote(text) for text in texts) + "]"


def _check_has_local(name: str, initial: URLsMap) -> None:
    if name not in initial:
        raise BootstrapError(
            f"couldn't find local name {quote(name)} in the initial cluster configuration"
        )


def has_duplicates(initial: URLsMap) -> bool:
    """Whether a URL comes twice."""
    urls = [str(url) for listed in initial.values() for url in listed]
    return len(set(urls)) != len(urls)


def _check_duplicates(initial: URLsMap) -> None:
    if has_duplicates(initial):
        raise BootstrapError(f"initial cluster {format_urls_map(initial)} has duplicate url")


def _check_advertised(
    name: str, advertised: Sequence[URL], initial: URLsMap, resolve: Resolve
) -> None:
    said = sorted(str(url) for url in advertised)
    expected = sorted(str(url) for url in initial[name])
    difference = urls_difference(said, expected, resolve)
    if not difference:
        return
    missing = [f"{name}={url}" for url in expected if url not in said]
    if missing:
        raise BootstrapError(
            f"--initial-cluster has {','.join(missing)} but missing from "
            f"--initial-advertise-peer-urls={','.join(said)} ({difference})"
        )
    own = format_urls_map({name: advertised})
    extra = [url for url in said if url not in expected]
    if extra:
        raise BootstrapError(
            f"--initial-advertise-peer-urls has {','.join(extra)} but missing from "
            f"--initial-cluster={own}"
        )
    raise BootstrapError(
        f"failed to resolve {','.join(said)} to match --initial-cluster={own} ({difference})"
    )
