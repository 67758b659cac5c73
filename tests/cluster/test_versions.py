"""The versions' order and the rules of their changes."""

from __future__ import annotations

import itertools

import pytest

from keyraft.base.errors import (
    InvalidDowngradeTargetVersionError,
    WrongDowngradeVersionFormatError,
)
from keyraft.base.log import NullLogger
from keyraft.cluster import (
    Downgrade,
    Version,
    VersionError,
    check_downgrade_target,
    decide_cluster_version,
    downgrade_is_complete,
    may_change,
    may_join,
    minimal_server_version,
    parse_downgrade_target,
    parse_version,
    short,
    storage_version_to_write,
)

V35, V36, V37, V38 = (Version(3, minor) for minor in (5, 6, 7, 8))
LOG = NullLogger()


def test_versions_are_ordered_as_semver_says() -> None:
    texts = ["3.5.1", "3.5.33", "3.8.0-alpha.0", "3.8.0-alpha.9", "3.8.0-alpha.10", "3.8.0-rc.0"]
    versions = [parse_version(text) for text in [*texts, "3.8.0", "4.0.0"]]
    for older, newer in itertools.pairwise(versions):
        assert older.is_below(newer)
        assert not newer.is_below(older)
    assert [str(version) for version in versions[:6]] == texts
    assert short(versions[0]) == "3.5"


@pytest.mark.parametrize("text", ["", "3", "3.7", "3.7.x", "03.7.0", "3.7.0\n", "9" * 5000])
def test_other_text_is_no_version(text: str) -> None:
    with pytest.raises(VersionError):
        parse_version(text)


def test_downgrade_targets() -> None:
    assert parse_downgrade_target("3.6") == V36
    assert parse_downgrade_target("3.6.9") == V36
    for text in ("", "3", "x", "3.6."):
        with pytest.raises(WrongDowngradeVersionFormatError):
            parse_downgrade_target(text)
    check_downgrade_target(V37, V36)
    for wrong in (V35, V37, V38):
        with pytest.raises(InvalidDowngradeTargetVersionError):
            check_downgrade_target(V37, wrong)
    for cluster in (Version(3, 4), Version(3, 5)):  # members of 3.4 know of no downgrades
        with pytest.raises(InvalidDowngradeTargetVersionError):
            check_downgrade_target(cluster, cluster.one_minor_down)


def test_the_cluster_version_moves_up_or_one_down() -> None:
    assert may_change(V35, V37)
    assert may_change(V37, V36)
    assert not may_change(V37, V35)
    assert not may_change(V37, V37)


def test_the_leader_decides_by_the_oldest_member() -> None:
    def decide(cluster: Version | None, **members: str | None) -> Version | None:
        lowest = minimal_server_version(V37, dict(enumerate(members.values())), LOG)
        return decide_cluster_version(cluster, lowest, Downgrade(), LOG)

    assert decide(None, a="3.7.1", b="3.6.2") == V36
    assert decide(None, a="3.7.1", b=None) == Version(3, 0)
    assert decide(Version(3, 0), a="3.7.1", b=None) is None
    assert decide(Version(3, 0), a="3.7.1", b="3.7.0") == V37
    assert decide(V37, a="3.7.1", b="3.6.0") is None
    assert decide(V36, a="3.7.1", b="rubbish") is None


def test_a_downgrade_lowers_the_version_once_it_was_asked_for() -> None:
    asked = Downgrade("3.6.0", enabled=True)
    assert decide_cluster_version(V37, V37, asked, LOG) == V36
    assert decide_cluster_version(V36, V36, asked, LOG) is None
    assert decide_cluster_version(V38, V38, asked, LOG) is None
    assert downgrade_is_complete(asked, {1: "3.6.1", 2: "3.6.9"})
    assert not downgrade_is_complete(asked, {1: "3.6.1", 2: "3.7.1"})
    assert not downgrade_is_complete(asked, {1: "3.6.1", 2: None})
    assert not downgrade_is_complete(Downgrade(), {1: "3.6.1"})


def test_the_storage_follows_the_cluster() -> None:
    assert storage_version_to_write(None, None) is None
    assert storage_version_to_write(Version(3, 0), None) is None
    assert storage_version_to_write(V37, None) == V37
    assert storage_version_to_write(V37, V37) is None
    assert storage_version_to_write(V36, V37) == V36


def test_who_may_join() -> None:
    local = Version(3, 7, 1)
    assert may_join(local, {1: "3.7.0", 2: None}, NullLogger())
    assert may_join(local, {1: "3.5.0", 2: "not_decided"}, NullLogger())
    assert not may_join(local, {1: "3.8.0"}, NullLogger())
    assert not may_join(local, {1: "3.7.0", 2: "2.3.0"}, NullLogger())
    assert not may_join(local, {1: None, 2: "not_decided"}, NullLogger()), "nobody has said it"
