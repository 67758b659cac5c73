"""Logging: structured lines for the operator, written by the `Logger` that is handed in.

`app` hands in the writer of etcd's JSON and console forms; tests hand in a list or `NullLogger`.
Field names are given as etcd spells them, with underscores for hyphens (`member_id` is written
`member-id`).
"""

from __future__ import annotations

from typing import Protocol


class Logger(Protocol):
    """One line a call: a fixed message and named fields; never called on the hot path."""

    def debug(self, message: str, **fields: object) -> None:
        """Details for debugging."""

    def info(self, message: str, **fields: object) -> None:
        """What an operator wants to find afterwards."""

    def warn(self, message: str, **fields: object) -> None:
        """What an operator should look at."""

    def error(self, message: str, **fields: object) -> None:
        """What failed."""


class NullLogger:
    """Says nothing."""

    def debug(self, message: str, **fields: object) -> None:
        """Discards."""

    def info(self, message: str, **fields: object) -> None:
        """Discards."""

    def warn(self, message: str, **fields: object) -> None:
        """Discards."""

    def error(self, message: str, **fields: object) -> None:
        """Discards."""
