"""Which of a peer's URLs to use next: the one that worked, until it does not."""

from __future__ import annotations

from collections.abc import Iterable


class URLPicker:
    """Stays with one URL until it is reported unreachable, then goes on to the next."""

    __slots__ = ("_picked", "_urls")

    def __init__(self, urls: Iterable[str]) -> None:
        self._urls = list(urls)
        self._picked = 0

    @property
    def urls(self) -> list[str]:
        """All URLs of the peer, in its own order."""
        return list(self._urls)

    def update(self, urls: Iterable[str]) -> None:
        """The peer is now at these URLs."""
        self._urls = list(urls)
        self._picked = 0

    def pick(self) -> str:
        """The URL to try now, without a path."""
        return self._urls[self._picked].rstrip("/")

    def unreachable(self, url: str) -> None:
        """What was picked did not answer."""
        if self._urls and url == self._urls[self._picked].rstrip("/"):
            self._picked = (self._picked + 1) % len(self._urls)
