"""A member that cannot start says why in one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from keyraft.app.start_checks import (
    StartError,
    check_data_dir,
    go_error,
    identify_data_dir,
    listen_error,
    loose_permission,
)
from keyraft.base.log import NullLogger
from keyraft.lab.local_cluster import MEMBERS_MAX, arguments, seats
from keyraft.storage.files import make_private_dirs


def test_system_errors_read_like_gos() -> None:
    error = OSError(errno.EACCES, "Permission denied", "/x")
    assert go_error("mkdir", error) == "mkdir /x: permission denied"
    in_use = OSError(errno.EADDRINUSE, "Address already in use")
    assert listen_error("127.0.0.1:2379", in_use) == (
        "listen tcp 127.0.0.1:2379: bind: address already in use"
    )


def test_the_data_directory_is_looked_at_first(tmp_path: Path) -> None:
    log = NullLogger()
    assert identify_data_dir(str(tmp_path / "none"), log) == "empty"
    (tmp_path / "member").mkdir()
    assert identify_data_dir(str(tmp_path), log) == "member"
    (tmp_path / "proxy").mkdir()
    with pytest.raises(StartError, match="both member and proxy"):
        identify_data_dir(str(tmp_path), log)
    with pytest.raises(StartError, match="failed to list data directory: open /dev/null: not a"):
        identify_data_dir("/dev/null", log)


def test_the_data_directory_is_made_private_and_must_take_a_file(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    check_data_dir(str(place), NullLogger())
    for made in (place, place.parent):
        assert made.stat().st_mode & 0o777 == 0o700
    assert list(place.iterdir()) == []
    with pytest.raises(StartError, match="cannot access data directory: mkdir /proc/x"):
        check_data_dir("/proc/x", NullLogger())


def test_a_local_cluster_shares_no_port() -> None:
    cluster = seats(MEMBERS_MAX)
    ports = [port for seat in cluster for port in (seat.client_port, seat.peer_port)]
    assert len(set(ports)) == 2 * MEMBERS_MAX
    assert max(ports) < 65536
    assert [seat.client_port for seat in cluster[:3]] == [2379, 22379, 32379]
    assert [seat.peer_port for seat in cluster[:3]] == [12380, 22380, 32380]
    assert "--initial-cluster=infra1=http://127.0.0.1:12380,infra2=http://127.0.0.1:22380" in (
        arguments(cluster[0], cluster[:2])
    )


@pytest.mark.parametrize(
    ("mode", "written"),
    [
        (0o755, "drwxr-xr-x"),
        (0o1777, "dtrwxrwxrwx"),
        (0o2750, "dgrwxr-x---"),
        (0o600, "drw-------"),
    ],
)
def test_a_directory_that_others_may_look_into_is_warned_of(
    tmp_path: Path, mode: int, written: str
) -> None:
    place = tmp_path / "d"
    place.mkdir()
    place.chmod(mode)
    assert loose_permission(str(place)) == (
        f'directory "{place}" exist, but the permission is "{written}". The recommended '
        'permission is "-rwx------" to prevent possible unprivileged access to the data'
    )
    place.chmod(0o700)
    assert loose_permission(str(place)) == ""


def test_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private_dirs(str(tmp_path / "a" / "b" / "c"))
    finally:
        os.umask(before)
    for name in ("a", "a/b", "a/b/c"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700, name
    make_private_dirs(str(tmp_path / "a" / "b"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        make_private_dirs(str(tmp_path / "file" / "x"))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        make_private_dirs(str(tmp_path / "link"))
