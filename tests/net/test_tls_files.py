"""Certificates, keys and authorities that change under a member: the next handshake has the new."""

from __future__ import annotations

import errno
import os
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from keyraft.net import ClientTLS, ServerTLS, TLSFiles
from keyraft.net.tls import UnfitError
from tests.net.certificates import Files, make_authority, serving_tls
from tests.net.test_tls_terms import agreed


class Lines:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def debug(self, message: str, **fields: object) -> None:
        self.said.append(("debug", message))

    def info(self, message: str, **fields: object) -> None:
        self.said.append(("info", message))

    def warn(self, message: str, **fields: object) -> None:
        self.said.append(("warn", message))

    def error(self, message: str, **fields: object) -> None:
        self.said.append(("error", message))


@pytest.fixture
def ours(tmp_path: Path) -> Files:
    (tmp_path / "ours").mkdir()
    return make_authority(tmp_path / "ours")


@pytest.fixture
def others(tmp_path: Path) -> Files:
    (tmp_path / "others").mkdir()
    return make_authority(tmp_path / "others")


def bundle(files: Files) -> Path:
    """The file of authorities of the end under test: a copy, since visitors read the other."""
    made = files.ca.with_name("bundle")
    if not made.exists():
        made.write_bytes(files.ca.read_bytes())
    return made


def described(files: Files) -> TLSFiles:
    return TLSFiles(
        cert_file=str(files.server_cert),
        key_file=str(files.server_key),
        trusted_ca_file=str(bundle(files)),
        client_cert_auth=True,
    )


def visitor(trusts: Files, shows: Files | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trusts.ca)
    if shows is not None:
        context.load_cert_chain(shows.client_cert, shows.client_key)
    return context


def put(into: Path, source: Path) -> None:
    """Replaces a file as an operator does: written beside it and moved over it."""
    made = into.with_suffix(".new")
    made.write_bytes(source.read_bytes())
    os.replace(made, into)


def test_nothing_is_made_anew_while_the_files_stay(ours: Files) -> None:
    tls = serving_tls(ours, guarded=True)
    assert tls.context() is tls.context()


def test_a_new_pair_is_shown_from_the_next_handshake_on(ours: Files, others: Files) -> None:
    lines = Lines()
    tls = ServerTLS(described(ours), lines)
    knows_others = visitor(others, ours)
    with pytest.raises(ssl.SSLCertVerificationError):
        agreed(tls.context(), knows_others)
    put(ours.server_cert, others.server_cert)
    before = tls.context()
    assert agreed(before, visitor(ours, ours))  # half changed: the former pair goes on
    assert lines.said == [("warn", "failed to create peer certificate")]
    assert tls.context() is before and len(lines.said) == 1  # told once
    put(ours.server_key, others.server_key)
    assert agreed(tls.context(), knows_others)


def test_a_pair_that_is_gone_stays_in_use(ours: Files) -> None:
    lines = Lines()
    tls = ServerTLS(described(ours), lines)
    os.unlink(ours.server_cert)
    for _ in range(3):
        assert agreed(tls.context(), visitor(ours, ours))
    assert lines.said == [("warn", "failed to find peer cert files")]


def test_authorities_come_and_go_with_their_file(ours: Files, others: Files) -> None:
    lines = Lines()
    tls = ServerTLS(described(ours), lines)
    stranger = visitor(ours, others)
    with pytest.raises(ssl.SSLError):
        agreed(tls.context(), stranger)
    bundle(ours).write_bytes(ours.ca.read_bytes() + others.ca.read_bytes())
    assert agreed(tls.context(), stranger)
    assert agreed(tls.context(), visitor(ours, ours))
    put(bundle(ours), others.ca)
    assert agreed(tls.context(), stranger)
    with pytest.raises(ssl.SSLError):
        agreed(tls.context(), visitor(ours, ours))
    assert lines.said == [("info", "reloaded trusted CA file")] * 2


@pytest.mark.parametrize("broken", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\xff\x00"])
def test_broken_authorities_change_nothing_and_are_told_once(ours: Files, broken: bytes) -> None:
    lines = Lines()
    tls = ServerTLS(described(ours), lines)
    bundle(ours).write_bytes(broken)
    for _ in range(3):
        assert agreed(tls.context(), visitor(ours, ours))
    assert [level for level, _ in lines.said] == ["error"]


def test_a_file_written_twice_within_the_grain_of_its_times_is_read_twice(
    ours: Files, others: Files
) -> None:
    tls = ServerTLS(described(ours))
    signs = os.stat(bundle(ours))
    first, second = ours.ca.read_bytes(), others.ca.read_bytes()
    longest = max(len(first), len(second))
    bundle(ours).write_bytes(first.ljust(longest, b"\n"))
    os.utime(bundle(ours), ns=(signs.st_atime_ns, signs.st_mtime_ns))
    assert agreed(tls.context(), visitor(ours, ours))
    bundle(ours).write_bytes(second.ljust(longest, b"\n"))
    os.utime(bundle(ours), ns=(signs.st_atime_ns, signs.st_mtime_ns))
    assert agreed(tls.context(), visitor(ours, others))


def test_who_dials_shows_and_trusts_what_the_files_hold_now(ours: Files, others: Files) -> None:
    files = replace(
        described(ours),
        client_cert_file=str(ours.client_cert),
        client_key_file=str(ours.client_key),
    )
    dials = ClientTLS(files)
    assert agreed(serving_tls(ours, guarded=True).context(), dials.context())
    there = serving_tls(others, guarded=True)
    with pytest.raises(ssl.SSLError):
        agreed(there.context(), dials.context())
    put(ours.client_cert, others.client_cert)
    put(ours.client_key, others.client_key)
    put(bundle(ours), others.ca)
    assert agreed(there.context(), dials.context())


def test_a_key_that_is_encrypted_is_refused_without_a_question(ours: Files) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(ours.server_key.read_bytes(), None)
    ours.server_key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(UnfitError, match="tls: failed to parse private key"):
        ServerTLS(described(ours))


@pytest.mark.parametrize("times", [1, 2, 3, 4, 5])
def test_what_is_new_is_taken_when_descriptors_are_free_again(
    ours: Files, others: Files, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    lines = Lines()
    tls = ServerTLS(described(ours), lines)
    put(ours.server_cert, others.server_cert)
    put(ours.server_key, others.server_key)
    left = [times]
    make = os.memfd_create

    def none_free(name: str, flags: int) -> int:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return make(name, flags)

    monkeypatch.setattr(os, "memfd_create", none_free)
    assert agreed(tls.context(), visitor(ours if left[0] <= 0 else others, ours))
    assert agreed(tls.context(), visitor(others, ours))
    assert [level for level, _ in lines.said if level != "info"] in (["warn"], ["error"])
