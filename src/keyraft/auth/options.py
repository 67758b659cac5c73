"""What `--auth-token` says: `simple`, or `jwt,name=value,...`.

Source: etcd `server/auth/store.go` (decomposeOpts), `server/auth/options.go`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from keyraft.base.durations import SECOND, DurationError, parse_duration

SIMPLE: Final = "simple"
JWT: Final = "jwt"
NONE: Final = ""  # no tokens are given
JWT_TTL_S: Final = 300.0
_KNOWN: Final = frozenset(("sign-method", "pub-key", "priv-key", "ttl"))


class OptionsError(ValueError):
    """The member cannot start with these; the message is etcd's."""


INVALID: Final = "auth: invalid auth options"


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """The parsed flag. It names files and does not read them."""

    kind: str
    sign_method: str = ""
    public_key_file: str = ""
    private_key_file: str = ""
    ttl_s: float = JWT_TTL_S
    unknown: tuple[str, ...] = field(default=())


def parse_options(text: str) -> TokenOptions:
    """Raises OptionsError."""
    kind, *words = text.split(",")
    values: dict[str, str] = {}
    for word in words:
        pair = word.split("=")
        if len(pair) != 2 or pair[0] in values:
            raise OptionsError(INVALID)
        values[pair[0]] = pair[1]
    if kind in (SIMPLE, NONE):
        return TokenOptions(kind)
    if kind != JWT:
        raise OptionsError(INVALID)
    ttl_s = JWT_TTL_S
    if values.get("ttl"):
        try:
            ttl_s = parse_duration(values["ttl"]) / SECOND
        except DurationError:
            raise OptionsError(INVALID) from None
    return TokenOptions(
        kind,
        values.get("sign-method", ""),
        values.get("pub-key", ""),
        values.get("priv-key", ""),
        ttl_s,
        tuple(name for name in values if name not in _KNOWN),
    )
