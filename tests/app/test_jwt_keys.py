"""The keys of signed tokens in their files, which may change."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from keyraft.app.jwt_keys import KeyFiles
from keyraft.auth.options import OptionsError, TokenOptions


class Lines:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, text: str, **fields: object) -> None:
        self.warned.append(f"{text}: {fields['error']}")

    def info(self, text: str, **fields: object) -> None: ...


class Keys:
    """Two files, which are exchanged as tools do it: by a rename."""

    def __init__(self, folder: Path) -> None:
        self.public, self.private = folder / "key.pub", folder / "key.pem"
        self.log = Lines()
        self.put(self.private, self.new())
        self.put(self.public, self.public_of(self.key))
        options = TokenOptions("jwt", "ES256", str(self.public), str(self.private))
        self.files = KeyFiles(options, self.log)  # type: ignore[arg-type]

    def new(self) -> bytes:
        self.key = ec.generate_private_key(ec.SECP256R1())
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def public_of(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def put(self, path: Path, data: bytes) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.rename(path)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def test_keys_are_read_again_when_both_files_fit(keys: Keys) -> None:
    first = keys.files.read()
    assert keys.files.changed() is None
    keys.put(keys.private, keys.new())
    assert keys.files.changed() is None, "the public key is still the old one"
    assert len(keys.log.warned) == 1 and "don't match" in keys.log.warned[0]
    assert keys.files.changed() is None and len(keys.log.warned) == 1, "told once"
    keys.put(keys.public, keys.public_of(keys.key))
    second = keys.files.changed()
    assert second is not None and second.publics != first.publics
    assert keys.files.changed() is None


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_what_cannot_be_read_leaves_the_keys_as_they_are(keys: Keys, content: bytes | None) -> None:
    keys.files.read()
    before = keys.private.read_bytes()
    if content is None:
        keys.private.unlink()
    else:
        keys.put(keys.private, content)
    assert keys.files.changed() is None and len(keys.log.warned) == 1
    keys.put(keys.private, before)
    assert keys.files.changed() is not None


def test_a_start_needs_its_keys(keys: Keys, tmp_path: Path) -> None:
    keys.put(keys.public, keys.public_of(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(OptionsError, match="don't match"):
        keys.files.read()
    keys.public.unlink()
    with pytest.raises(FileNotFoundError):
        keys.files.read()
