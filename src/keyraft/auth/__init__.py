"""Users, roles and permissions. Pure.

`store` decides who may do what, `accounts` changes users and roles, `tokens` and `jwt` (imported
only where needed) identify callers, `ranges` is the form of permissions in memory and `records`
that on the disk.
"""

from keyraft.auth.accounts import NO_PASSWORD_USER, ROOT, Accounts
from keyraft.auth.identity import NOBODY, Identity
from keyraft.auth.options import OptionsError, TokenOptions, parse_options
from keyraft.auth.store import AuthStore, LeaseKeys
from keyraft.auth.tokens import NoTokens, SimpleTokens, TokenAheadError, TokenProvider

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
