"""The caller of a request."""

from __future__ import annotations

from typing import Final


class Identity:
    """The user that a token or a certificate names, and the auth revision at that moment.

    Revision 0 stands for a request without credentials.
    """

    __slots__ = ("revision", "username")

    def __init__(self, username: bytes, revision: int) -> None:
        self.username = username
        self.revision = revision


NOBODY: Final = Identity(b"", 0)
