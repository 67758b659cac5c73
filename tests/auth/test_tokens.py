"""Tokens: their lives, their signatures, their options."""

from __future__ import annotations

import base64
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt as pyjwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from keyraft.auth import OptionsError, SimpleTokens, parse_options
from keyraft.auth import tokens as tokens_module
from keyraft.auth.jwt import KNOWN_MAX, LOOK_S, METHODS, JWTKeys, JWTTokens, load_keys
from keyraft.base.errors import RawError
from sim.loop import SimLoop

NOW = 1_700_000_000.0
RSA = rsa.generate_private_key(65537, 2048)
CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}
PRIVATE: dict[str, Any] = {
    **{method: ec.generate_private_key(curve) for method, curve in CURVES.items()},
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def private_of(method: str) -> Any:
    return PRIVATE.get(method, RSA)


def pem_of(method: str) -> tuple[bytes, bytes]:
    """Public and private key as files hold them."""
    if method.startswith("HS"):
        return b"", b"x" * 64
    key = private_of(method)
    return (
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


# --- simple ---------------------------------------------------------------------------------------


def test_a_simple_token_lives_as_long_as_it_is_shown() -> None:
    loop = SimLoop()
    tokens = SimpleTokens(loop, random.Random(1), 10)
    token = tokens.assign("u", tokens.prefix(), 5, 1).encode()
    assert token.endswith(b".4") and token[:-2].isalpha() and len(token) == 18
    for _ in range(5):
        loop.run_until(loop.time() + 9)
        assert tokens.identify(token, 1) is not None
    loop.run_until(loop.time() + 11)
    assert tokens.identify(token, 1) is None
    assert len(tokens) == 0


def test_the_short_way_knows_no_more_than_the_long_one() -> None:
    loop = SimLoop()
    tokens = SimpleTokens(loop, random.Random(1), 10)
    first, second = (tokens.assign(name, tokens.prefix(), 7, 1).encode() for name in ("a", "b"))
    assert tokens.known(first, 1) is None, "it was never identified"
    for token in (first, second):
        assert tokens.identify(token, 1) is not None
    known = tokens.known(first, 2)
    assert known is not None and (known.username, known.revision) == (b"a", 2)
    tokens.forget("a")
    assert tokens.known(first, 2) is None and tokens.identify(first, 2) is None
    for _ in range(4):
        loop.run_until(loop.time() + 9)
        assert tokens.known(second, 2) is not None, "its time begins anew"
    loop.run_until(loop.time() + 11)
    assert tokens.known(second, 2) is None and tokens.identify(second, 2) is None
    assert not tokens._shown
    third = tokens.assign("a", tokens.prefix(), 9, 1).encode()
    assert tokens.identify(third, 1) is not None
    tokens.forget()
    assert tokens.known(third, 1) is None
    clock = Clock()
    signed = JWTTokens(load_keys("HS256", b"", b"x"), 60, clock)
    token = signed.assign("a", "", 1, 3).encode()
    assert signed.known(token, 3) is None and signed.identify(token, 3) is not None
    assert signed.known(token, 3) is not None
    clock.now += 61
    assert signed.known(token, 3) is None and signed.identify(token, 3) is None


def test_tokens_that_nobody_shows_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "TOKENS_MAX", 5_000)
    loop = SimLoop()
    tokens = SimpleTokens(loop, random.Random(1), 10)
    for index in range(50_000):
        tokens.assign("u", f"x{index}", index, 1)
        if index % 1_000 == 0:
            loop.run_until(loop.time() + 1)
        assert len(tokens) <= 5_000
    assert tokens.identify(b"x49999.49999", 1) is not None  # the youngest are kept
    loop.run_until(loop.time() + 11)
    for index in range(50_000, 55_000):
        tokens.assign("u", f"x{index}", index, 1)
    assert tokens.identify(b"x49999.49999", 1) is None


# --- JWT ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_signed_token_is_read_by_others_and_by_us(method: str) -> None:
    public, private = pem_of(method)
    clock = Clock()
    tokens = JWTTokens(load_keys(method, b"", private), 60, clock)
    token = tokens.assign("ü", "", 7, 42)
    claims = pyjwt.decode(
        token, public or private, algorithms=[method], options={"verify_exp": False}
    )
    assert claims == {"username": "ü", "revision": 42, "exp": int(NOW) + 60}
    foreign = pyjwt.encode({"username": "v", "revision": 3}, private, algorithm=method)
    for text, name, revision in ((token, "ü", 42), (foreign, "v", 3)):
        for _ in range(2):  # the second time from memory
            identity = tokens.identify(text.encode(), 99)
            assert identity is not None
            assert (identity.username.decode(), identity.revision) == (name, revision)
    clock.now += 60
    assert tokens.identify(token.encode(), 99) is None
    assert tokens.identify(foreign.encode(), 99) is not None


def encode(claims: object, method: str = "HS256", header: object = None) -> bytes:
    """A token of anything, rightly signed."""
    keys = load_keys("HS256", b"", b"x" * 64)
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": method} if header is None else header, claims)
    ]
    signed = b".".join(parts)
    signature = base64.urlsafe_b64encode(keys.algorithm.sign(signed, keys.private)).rstrip(b"=")
    return signed + b"." + signature


GOOD = {"username": "u", "revision": 1, "exp": NOW + 1}


def test_a_token_with_all_its_claims_is_accepted() -> None:
    tokens = JWTTokens(load_keys("HS256", b"", b"x" * 64), 60, Clock())
    assert tokens.identify(encode(GOOD), 1) is not None


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"..",
        b"a.b.c",
        b"x.42",
        encode(GOOD, "none"),
        encode(GOOD, "HS512"),
        encode(GOOD, header=[]),
        encode(GOOD)[:-1],
        encode(GOOD) + b"=",
        encode(GOOD) + b".x",
        encode(GOOD)[:-2] + b"+/",
        encode([]),
        encode({**GOOD, "username": 5}),
        encode({"username": "u"}),
        encode({**GOOD, "revision": "1"}),
        encode({**GOOD, "revision": True}),
        encode({**GOOD, "revision": None}),
        encode({**GOOD, "revision": float("inf")}),
        encode({**GOOD, "exp": NOW}),
        encode({**GOOD, "exp": "never"}),
        encode({**GOOD, "nbf": NOW + 1}),
        encode({**GOOD, "username": "\ud800"}),
        encode({**GOOD, "more": "x" * 20_000}),
        b"\xff.\xff.\xff",
        base64.urlsafe_b64encode(b"[" * 6_000) + b".e30.x",
    ],
)
def test_a_malformed_token_is_refused(token: bytes) -> None:
    tokens = JWTTokens(load_keys("HS256", b"", b"x" * 64), 60, Clock())
    assert tokens.identify(token, 1) is None


def test_a_public_key_verifies_and_does_not_sign() -> None:
    public, private = pem_of("RS256")
    signer = JWTTokens(load_keys("RS256", public, private), 60, Clock())
    verifier = JWTTokens(load_keys("RS256", public, b""), 60, Clock())
    identity = verifier.identify(signer.assign("u", "", 1, 1).encode(), 1)
    assert identity is not None and identity.username == b"u"
    with pytest.raises(RawError, match="auth: token signing attempted with verify-only key"):
        verifier.assign("u", "", 1, 1)


def exchanged(*keys: JWTKeys) -> tuple[JWTTokens, Clock, list[JWTKeys]]:
    """Tokens of the first keys, and a list whose last keys are in the files."""
    clock, files = Clock(), [keys[0]]

    def changed() -> JWTKeys | None:
        return files.pop() if len(files) > 1 else None

    return JWTTokens(keys[0], 60, clock, changed), clock, files


def test_keys_are_exchanged_without_a_refused_token() -> None:
    old_public, old_private = pem_of("ES256")
    new = ec.generate_private_key(ec.SECP256R1())
    new_private = new.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    new_public = new.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    both = old_public + b"\n# the next one\n" + new_public
    tokens, clock, files = exchanged(load_keys("ES256", old_public, old_private))
    of_old = tokens.assign("alice", "", 1, 1).encode()
    other = JWTTokens(load_keys("ES256", both, new_private), 60, clock)
    of_new = other.assign("alice", "", 1, 1).encode()
    assert tokens.identify(of_new, 1) is None
    assert other.identify(of_old, 1) is not None
    files.append(load_keys("ES256", both, old_private))
    assert tokens.identify(of_new, 1) is None, "files are looked at once a second"
    clock.now += LOOK_S
    assert tokens.identify(of_new, 1) is not None
    files.append(load_keys("ES256", both, new_private))
    clock.now += LOOK_S
    assert other.identify(tokens.assign("alice", "", 1, 1).encode(), 1) is not None
    assert tokens.identify(of_old, 1) is not None
    files.append(load_keys("ES256", new_public, new_private))
    clock.now += LOOK_S
    assert tokens.identify(of_old, 1) is None, "although it was good a second ago"
    assert tokens.identify(of_new, 1) is not None


def test_a_clock_that_was_set_back_does_not_hide_other_keys() -> None:
    tokens, clock, files = exchanged(load_keys("HS256", b"", b"old"))
    other = load_keys("HS256", b"", b"new")
    files.append(other)
    clock.now -= 1_000
    token = JWTTokens(other, 5_000, clock).assign("alice", "", 1, 1).encode()
    assert tokens.identify(token, 1) is not None


def test_one_of_the_public_keys_must_be_the_private_ones() -> None:
    public, private = pem_of("ES256")
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    strange = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(OptionsError, match="don't match"):
        load_keys("ES256", strange * 2, private)
    assert len(load_keys("ES256", strange + public, private).publics) == 2
    with pytest.raises(OptionsError, match="not a valid"):
        load_keys("ES256", public + pem_of("RS256")[0], private)


@pytest.mark.slow
def test_memory_of_verdicts_is_bounded() -> None:
    tokens = JWTTokens(load_keys("HS256", b"", b"x" * 64), 60, Clock())
    for revision in range(KNOWN_MAX + 10):
        tokens.identify(tokens.assign("u", "", 1, revision).encode(), 1)
    assert len(tokens._known) <= KNOWN_MAX


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "u")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(RSA.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=9))
        .sign(RSA, hashes.SHA256())
    )
    return built.public_bytes(Encoding.PEM)


@pytest.mark.slow
def test_a_method_takes_only_keys_of_its_kind() -> None:
    public, private = pem_of("RS256")
    other_public, other_private = pem_of("ES256")
    load_keys("PS512", certificate(), private)
    pkcs1 = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    load_keys("RS384", b"", pkcs1)
    for method, files, text in (
        ("RS256", (b"", b""), "auth: missing key data"),
        ("HS256", (public, b""), "auth: missing key data"),
        ("none", (public, private), "auth: invalid auth options"),
        ("", (public, private), "auth: invalid auth options"),
        ("RS256", (other_public, b""), "not a valid RS256 key"),
        ("ES256", (public, other_private), "not a valid ES256 key"),
        ("RS256", (b"rubbish", b""), "invalid public key"),
        ("RS256", (b"", b"rubbish"), "invalid private key"),
        ("EdDSA", (public, private), "not a valid EdDSA key"),
    ):
        with pytest.raises(OptionsError, match=text):
            load_keys(method, *files)
    with pytest.raises(OptionsError, match="auth: public and private keys don't match"):
        other = rsa.generate_private_key(65537, 2048).public_key()
        pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        load_keys("RS256", pem, private)


# --- the flag -------------------------------------------------------------------------------------


def test_the_auth_token_flag_is_taken_apart() -> None:
    assert parse_options("simple").kind == "simple"
    assert parse_options("").kind == ""
    whole = parse_options("jwt,pub-key=a,priv-key=b,sign-method=RS256,ttl=10m,x=y")
    assert (whole.public_key_file, whole.private_key_file) == ("a", "b")
    assert (whole.sign_method, whole.ttl_s, whole.unknown) == ("RS256", 600.0, ("x",))
    assert parse_options("jwt,sign-method=RS256").ttl_s == 300.0


@pytest.mark.parametrize(
    "text",
    ["nosuch", "jwt,", "jwt,a", "jwt,a=b=c", "jwt,a=b,a=c", "jwt,ttl=x", "simple,a", ",a=b,"],
)
def test_a_flag_that_makes_no_sense(text: str) -> None:
    with pytest.raises(OptionsError, match="auth: invalid auth options"):
        parse_options(text)
