"""JSON Web Tokens: signed statements of a user's name and of the auth revision.

    header {"alg":METHOD,"typ":"JWT"}   claims {"exp":unix,"revision":N,"username":NAME}

A member accepts a token by its signature, so tokens need no entry in the log and stay valid over a
restart. But every change of users or roles makes all tokens stale. A token is verified once, and
its claims are remembered until it expires. With only a public key a member can verify tokens and
not sign them.

DEVIATION: the keys are read again when their files change, where the original needs a restart; and
the file of the public key may hold several, of which each verifies. So keys are exchanged without a
refused token: first every member gets the new public key beside the old one, then the new private
key, and when the last old token has expired, the old public key goes.

Source: etcd `server/auth/jwt.go`, `options.go`; RFC 7519; golang-jwt's rules for times.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

from keyraft.auth.identity import Identity
from keyraft.auth.options import INVALID, OptionsError
from keyraft.base import codes
from keyraft.base.clock import WallClock
from keyraft.base.errors import RawError

TOKEN_BYTES_MAX: Final = 16_384
PUBLIC_KEYS_MAX: Final = 16  # of one file; each is tried for a token that none has verified yet
LOOK_S: Final = 1.0  # between two looks at the files of the keys
KNOWN_MAX: Final = 10_000  # verified tokens that are remembered, about 1 KiB each
VERIFY_ONLY: Final = (codes.UNKNOWN, "auth: token signing attempted with verify-only key")
METHODS: Final = frozenset(
    f"{family}{bits}" for family in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)
) | {"EdDSA"}

_BLOCK: Final = re.compile(rb"-----BEGIN [^\n]*\n.*?-----END [^\n]*", re.DOTALL)
_KINDS: Final[dict[str, tuple[type, type]]] = {
    "RS": (rsa.RSAPrivateKey, rsa.RSAPublicKey),
    "PS": (rsa.RSAPrivateKey, rsa.RSAPublicKey),
    "ES": (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey),
    "Ed": (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
}


@dataclass(frozen=True, slots=True)
class JWTKeys:
    """A method and its keys; `private` None verifies only."""

    method: str
    algorithm: Algorithm
    private: Any
    publics: tuple[Any, ...]
    """Each verifies; that of `private` is among them."""


def load_keys(method: str, public_pem: bytes, private_pem: bytes) -> JWTKeys:
    """Raises OptionsError in the original's words."""
    if method not in METHODS:
        raise OptionsError(INVALID)
    algorithm = get_default_algorithms()[method]
    if method.startswith("HS"):
        if not private_pem:
            raise OptionsError("auth: missing key data")
        return JWTKeys(method, algorithm, private_pem, (private_pem,))
    kinds = _KINDS[method[:2]]
    private = _private(private_pem) if private_pem else None
    publics = tuple(_public(pem) for pem in _blocks(public_pem)) if public_pem else ()
    for key, wanted in ((private, kinds[0]), *((key, kinds[1]) for key in publics)):
        if key is not None and not isinstance(key, wanted):
            raise OptionsError(f"key is not a valid {method} key")
    if private is None and not publics:
        raise OptionsError("auth: missing key data")
    if private is not None:
        own = private.public_key()
        if publics and own not in publics:
            raise OptionsError("auth: public and private keys don't match")
        publics = publics or (own,)
    return JWTKeys(method, algorithm, private, publics)


def _blocks(pem: bytes) -> list[bytes]:
    """The keys of a file, each from its first line to its last."""
    return _BLOCK.findall(pem)[:PUBLIC_KEYS_MAX] or [pem]


def _private(pem: bytes) -> Any:
    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OptionsError(f"invalid private key: {error}") from None


def _public(pem: bytes) -> Any:
    try:
        if b"CERTIFICATE" in pem:
            return load_pem_x509_certificate(pem).public_key()
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise OptionsError(f"invalid public key: {error}") from None


def _never() -> JWTKeys | None:
    """Keys that are in no files do not change."""
    return None


class JWTTokens:
    """Makes and verifies them."""

    learned = False

    def __init__(
        self,
        keys: JWTKeys,
        ttl_s: float,
        now: WallClock,
        changed: Callable[[], JWTKeys | None] = _never,
    ) -> None:
        """`changed`: the keys, if others are in the files now; asked once a second."""
        self._keys = keys
        self._changed = changed
        self._looked_s = now()
        self._look_at_s = self._looked_s + LOOK_S
        self._ttl_s = ttl_s
        self._now = now
        self._header = _encode({"alg": keys.method, "typ": "JWT"})
        self._known: dict[bytes, tuple[Identity, float, float]] = {}  # with exp and nbf, Unix s

    def prefix(self) -> str:
        """A JWT has no random part."""
        return ""

    def index_of(self, token: bytes) -> int:
        """No log entry is needed for a JWT."""
        return 0

    def forget(self, username: str | None = None) -> None:
        """Does nothing: the revision in the claims makes old tokens invalid."""

    def assign(
        self, username: str, prefix: str, index: int, revision: int, *, by_entry: bool = False
    ) -> str:
        """A new token. Raises RawError when there is no key to sign with."""
        self._look(self._now())
        if self._keys.private is None:
            raise RawError(*VERIFY_ONLY)
        claims = {
            "exp": int(self._now() + self._ttl_s),
            "revision": revision,
            "username": username,
        }
        signed = self._header + b"." + _encode(claims)
        try:
            signature = self._keys.algorithm.sign(signed, self._keys.private)
        except (ValueError, InvalidKeyError) as error:
            raise RawError(codes.UNKNOWN, str(error)) from None
        return (signed + b"." + _base64(signature)).decode()

    def identify(self, token: bytes, revision: int) -> Identity | None:
        """The token's user, with the revision at which the token was made."""
        identity = self.known(token, revision)
        if identity is None and token not in self._known:
            known = self._verify(token)
            if known is None:
                return None
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[token] = known
            identity = self.known(token, revision)
        return identity

    def known(self, token: bytes, revision: int) -> Identity | None:
        """The user of a token that was verified, while its time lasts."""
        now = self._now()
        if not self._looked_s <= now < self._look_at_s:
            self._look(now)
        known = self._known.get(token)
        if known is None:
            return None
        identity, expires, not_before = known
        return identity if not_before <= now < expires else None

    def _look(self, now: float) -> None:
        """Takes other keys over. What the old ones have verified is verified anew.

        A clock that was set back does not keep this from looking.
        """
        if self._looked_s <= now < self._look_at_s:
            return
        self._looked_s, self._look_at_s = now, now + LOOK_S
        keys = self._changed()
        if keys is not None:
            self._keys = keys
            self._header = _encode({"alg": keys.method, "typ": "JWT"})
            self._known.clear()

    def _verify(self, token: bytes) -> tuple[Identity, float, float] | None:
        if len(token) > TOKEN_BYTES_MAX:
            return None
        parts = token.split(b".")
        if len(parts) != 3:
            return None
        try:
            header, claims = (json.loads(_decode(part)) for part in parts[:2])
            signature = _decode(parts[2])
            if not isinstance(header, dict) or header.get("alg") != self._keys.method:
                return None
            signed = parts[0] + b"." + parts[1]
            verify = self._keys.algorithm.verify
            if not any(verify(signed, public, signature) for public in self._keys.publics):
                return None
        except (ValueError, RecursionError):
            return None
        if not isinstance(claims, dict):
            return None
        username, revision = claims.get("username"), claims.get("revision")
        expires = claims.get("exp") or float("inf")
        not_before = claims.get("nbf") or 0
        if not isinstance(username, str):
            return None
        for number in (revision, expires, not_before):
            if not isinstance(number, int | float) or isinstance(number, bool):
                return None
        assert revision is not None, "a number"
        try:
            return Identity(username.encode(), max(0, int(revision))), expires, not_before
        except (ValueError, OverflowError):  # the name is no text, or a claim is no number
            return None


def _encode(value: dict[str, Any]) -> bytes:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    """Raw URL-safe base64; raises ValueError for padding and for other characters."""
    if b"=" in text or b"+" in text or b"/" in text:
        raise binascii.Error("not base64url")
    padded = text + b"=" * (-len(text) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)
