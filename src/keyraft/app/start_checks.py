"""Checks before a start, with etcd's messages.

`StartError` is what a part raises when the member cannot start; the command logs it as one fatal
line and ends with exit code 1.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final, Literal

from keyraft.base.log import Logger
from keyraft.base.urls import URL
from keyraft.storage.files import NO_ROOM, make_private_dirs

PRIVATE_DIRECTORY_MODE: Final = 0o700
PROBE_FILE: Final = ".touch"

DirectoryKind = Literal["member", "proxy", "empty"]


class StartError(Exception):
    """The member cannot start; the message goes into the fatal line.

    `title` is that line's own text: most of etcd's have this one, whatever it is about.
    """

    def __init__(self, reason: str, title: str = "discovery failed") -> None:
        super().__init__(reason)
        self.title = title


class DiscoveryError(StartError):
    """The members of a new cluster do not come together by `--discovery-token`."""

    def __init__(self, why: str) -> None:
        super().__init__(f"failed to join discovery cluster ({why})")


def go_error(operation: str, error: OSError, path: str | None = None) -> str:
    """A system error as Go prints it: "mkdir /x: permission denied"."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    name = path if path is not None else error.filename
    return f"{operation} {name}: {reason}" if name is not None else f"{operation}: {reason}"


def listen_error(address: str, error: OSError, network: str = "tcp") -> str:
    """Why an address cannot be listened on: "listen tcp 127.0.0.1:2379: bind: …"."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return f"listen {network} {address}: bind: {reason}"


def identify_data_dir(path: str, log: Logger) -> DirectoryKind:
    """What kind of data the directory holds; "empty" if it does not exist. Raises StartError."""
    try:
        names = sorted(os.listdir(path))
    except FileNotFoundError:
        return "empty"
    except OSError as error:
        log.error("failed to list data directory", dir=path, error=go_error("open", error))
        raise StartError(f"failed to list data directory: {go_error('open', error)}") from None
    for name in names:
        if name not in ("member", "proxy"):
            log.warn("found invalid file under data directory", filename=name, data_dir=path)
    if "member" in names and "proxy" in names:
        raise StartError("invalid datadir; both member and proxy directories exist")
    if "proxy" in names:
        raise StartError("v2 http proxy has already been deprecated in 3.6")
    return "member" if "member" in names else "empty"


def check_data_dir(path: str, log: Logger, what: str = "data") -> None:
    """Makes the directory (0700) if need be and writes a probe into it; raises StartError.

    DEVIATION: a directory without room is accepted, with a warning.

    A directory that others may read is accepted, with a warning.
    """
    try:
        if os.path.exists(path):
            loose = loose_permission(path)
            if loose:
                log.warn("check file permission", error=loose)
        make_private_dirs(path)
    except OSError as error:
        raise StartError(f"cannot access {what} directory: {go_error('mkdir', error)}") from None
    probe = os.path.join(path, PROBE_FILE)
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, b"\0")
        finally:
            os.close(descriptor)
            os.unlink(probe)
    except OSError as error:
        reason = go_error("open", error, probe)
        if error.errno in NO_ROOM:
            # A member starts on a full disk: its room is reserved. A new one will say what it lacks.
            log.warn(f"no room in {what} directory", error=reason)
            return
        raise StartError(f"cannot write to {what} directory: {reason}") from None


def loose_permission(path: str) -> str:
    """What etcd says of a directory that is not 0700; empty for one that is. Raises OSError."""
    mode = os.stat(path).st_mode
    if stat.S_IMODE(mode) & 0o777 == PRIVATE_DIRECTORY_MODE:
        return ""
    return (
        f'directory "{path}" exist, but the permission is "{_go_mode(mode)}". The recommended '
        'permission is "-rwx------" to prevent possible unprivileged access to the data'
    )


def _go_mode(mode: int) -> str:
    """A mode as Go writes it: a letter for each special bit, then three times rwx."""
    special = "".join(
        letter
        for letter, bit in (("u", stat.S_ISUID), ("g", stat.S_ISGID), ("t", stat.S_ISVTX))
        if mode & bit
    )
    if stat.S_ISDIR(mode):
        special = "d" + special
    rights = "".join(letter if mode & 1 << 8 - at else "-" for at, letter in enumerate("rwxrwxrwx"))
    return (special or "-") + rights


def check_secure_urls(urls: Iterable[URL], has_certificate: bool) -> None:
    """Refuses https client URLs without a certificate; raises StartError."""
    for url in urls:
        if url.is_secure and not has_certificate:
            raise StartError(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url "
                f"{url} with HTTPS scheme"
            )
