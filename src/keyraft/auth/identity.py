"""Who asks."""

from __future__ import annotations

from typing import Final


class Identity:
    """A user as a token or a certificate names it, and the revision of the users it was read at.

    Revision 0 is nobody's: a request without credentials.
    """

    __slots__ = ("revision", "username")

    def __init__(self, username: bytes, revision: int) -> None:
        self.username = username
        self.revision = revision


NOBODY: Final = Identity(b"", 0)
