"""Users, roles and permissions. Pure.

`store` says who may do what, `accounts` changes users and roles, `tokens` (and `jwt`, imported by
who wants it) know who asks, `ranges` and `records` are the forms in memory and on the disk.
"""

from keyraft.auth.accounts import NO_PASSWORD_USER, ROOT, Accounts
from keyraft.auth.identity import NOBODY, Identity
from keyraft.auth.options import OptionsError, TokenOptions, parse_options
from keyraft.auth.store import AuthStore, LeaseKeys, TokenAheadError
from keyraft.auth.tokens import NoTokens, SimpleTokens, TokenProvider

__all__ = [
    "NOBODY",
    "NO_PASSWORD_USER",
    "ROOT",
    "Accounts",
    "AuthStore",
    "Identity",
    "LeaseKeys",
    "NoTokens",
    "OptionsError",
    "SimpleTokens",
    "TokenAheadError",
    "TokenOptions",
    "TokenProvider",
    "parse_options",
]
