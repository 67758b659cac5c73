"""Tokens: what a client shows instead of its password.

A *simple token* is 16 random letters, a dot and a log index. The index is one less than that of the
entry that made the token; up to etcd 3.5.2 it is that of the entry. Every member learns the token
by applying the entry. No member stores it, and each forgets it some time after a client last used
it there. While the applied index is below the token's index, this member cannot tell whether the
token is valid (`index_of`). Members of etcd accept one of both indexes; this member accepts both.

Source: etcd `server/auth/simple_token.go`.
"""

from __future__ import annotations

from typing import Final, Protocol

from keyraft.auth.identity import Identity
from keyraft.base import errors
from keyraft.base.clock import Loop, Random

PREFIX_LETTERS: Final = 16
TTL_S: Final = 300.0  # where the flag says 0
TOKENS_MAX: Final = 100_000  # about 300 bytes each; beyond them the longest unused are forgotten
_SWEEP_TOKENS_MIN: Final = 1_024
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_INDEX_DIGITS_MAX: Final = 20


class TokenAheadError(Exception):
    """A simple token whose log entry is not yet applied here.

    `may_be`: the next entry may be the token's, and no later one.
    """

    def __init__(self, index: int, may_be: bool = False) -> None:
        super().__init__(index)
        self.index = index
        self.may_be = may_be


class TokenProvider(Protocol):
    """Makes and recognises tokens of one kind."""

    learned: bool
    """Whether a member knows a token only after it has applied the token's entry."""

    def prefix(self) -> str:
        """The random part of a token, which is made before its entry is proposed."""

    def assign(
        self, username: str, prefix: str, index: int, revision: int, *, by_entry: bool = False
    ) -> str:
        """The token of the Authenticate entry at `index`. Raises RawError.

        `by_entry`: a simple token carries that index, as up to etcd 3.5.2, instead of the one
        before.
        """

    def identify(self, token: bytes, revision: int) -> Identity | None:
        """The token's user; None when the token is unknown, of another kind, or has expired.

        `revision` is the present one of the users.
        """

    def known(self, token: bytes, revision: int) -> Identity | None:
        """`identify` for a token that was identified before in the same form; None also for others.

        The short way: nothing is verified and taken apart.
        """

    def index_of(self, token: bytes) -> int:
        """The index of the entry that makes the token known here; 0 when none does."""

    def forget(self, username: str | None = None) -> None:
        """Invalidates the tokens of a user, or all tokens."""


class NoTokens:
    """`--auth-token=`: no tokens are given."""

    learned = False

    def prefix(self) -> str:
        """No token has a random part."""
        return ""

    def assign(
        self, username: str, prefix: str, index: int, revision: int, *, by_entry: bool = False
    ) -> str:
        """Refuses, as the original does."""
        raise errors.AuthFailedError

    def identify(self, token: bytes, revision: int) -> Identity | None:
        """No token is valid."""
        return None

    known = identify

    def index_of(self, token: bytes) -> int:
        """No entry makes a token."""
        return 0

    def forget(self, username: str | None = None) -> None:
        """Does nothing: there are no tokens."""


class _Token:
    __slots__ = ("expires_s", "identity", "numbers")

    def __init__(self, identity: Identity, index: int, expires_s: float) -> None:
        self.identity = identity
        self.numbers = (b"%d" % (index - 1), b"%d" % index)
        self.expires_s = expires_s  # on the loop's clock


class SimpleTokens:
    """The simple tokens that this member knows."""

    learned = True

    def __init__(self, loop: Loop, chance: Random, ttl_s: float = TTL_S) -> None:
        """`ttl_s`: how long a token lives after its last use."""
        self._time = loop.time
        self._chance = chance
        self._ttl_s = ttl_s if ttl_s > 0 else TTL_S
        self._tokens: dict[bytes, _Token] = {}  # by the letters
        self._shown: dict[bytes, _Token] = {}  # those of them that were shown, whole
        self._sweep_at = _SWEEP_TOKENS_MIN

    def __len__(self) -> int:
        return len(self._tokens)

    def prefix(self) -> str:
        """16 random letters."""
        draw = self._chance.randrange
        return "".join(_LETTERS[draw(0, len(_LETTERS))] for _ in range(PREFIX_LETTERS))

    def assign(
        self, username: str, prefix: str, index: int, revision: int, *, by_entry: bool = False
    ) -> str:
        """Remembers the token under both of its indexes."""
        if len(self._tokens) >= self._sweep_at:
            self._sweep()
        identity = Identity(username.encode(), revision)
        self._tokens[prefix.encode()] = _Token(identity, index, self._time() + self._ttl_s)
        return f"{prefix}.{index if by_entry else index - 1}"

    def identify(self, token: bytes, revision: int) -> Identity | None:
        """The token's user; the token's time to live starts again."""
        letters, _, number = token.partition(b".")
        known = self._tokens.get(letters)
        if known is None or number not in known.numbers:
            return None
        now_s = self._time()
        if known.expires_s < now_s:
            self._drop(letters)
            return None
        self._shown[token] = known
        return self.known(token, revision)

    def known(self, token: bytes, revision: int) -> Identity | None:
        """The token's time to live starts again here, too."""
        known = self._shown.get(token)
        if known is None:
            return None
        now_s = self._time()
        if known.expires_s < now_s:
            return None  # `identify` drops it
        known.expires_s = now_s + self._ttl_s
        identity = known.identity
        if identity.revision != revision:
            identity = known.identity = Identity(identity.username, revision)
        return identity

    def index_of(self, token: bytes) -> int:
        """The number behind the only dot."""
        parts = token.split(b".")
        if len(parts) != 2 or not parts[1].isdigit() or len(parts[1]) > _INDEX_DIGITS_MAX:
            return 0
        return int(parts[1])

    def forget(self, username: str | None = None) -> None:
        """As the user is deleted or has a new password, or authentication is switched off."""
        if username is None:
            self._tokens.clear()
            self._shown.clear()
            return
        name = username.encode()
        for letters in [
            letters for letters, known in self._tokens.items() if known.identity.username == name
        ]:
            self._drop(letters)

    def _drop(self, letters: bytes) -> None:
        for number in self._tokens.pop(letters).numbers:
            self._shown.pop(letters + b"." + number, None)

    def _sweep(self) -> None:
        """Forgets expired tokens, and the longest unused ones above TOKENS_MAX."""
        now_s = self._time()
        kept = {each: known for each, known in self._tokens.items() if known.expires_s >= now_s}
        if len(kept) >= TOKENS_MAX:
            newest = sorted(kept.items(), key=lambda each: each[1].expires_s)
            kept = dict(newest[len(newest) // 2 :])
        self._tokens = kept
        self._shown.clear()
        self._sweep_at = min(TOKENS_MAX, max(_SWEEP_TOKENS_MIN, 2 * len(kept)))
