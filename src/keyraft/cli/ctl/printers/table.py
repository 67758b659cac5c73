"""Boxes, for members and endpoints only."""

from __future__ import annotations

from keyraft.cli.ctl.printers import rows
from keyraft.cli.ctl.printers.base import EndpointHealth, Printer, write
from keyraft.proto import rpc_pb2


def boxed(header: list[str], body: list[list[str]]) -> str:
    """A table: the header in capitals and centred, the rows to the right."""
    titles = [title.replace("_", " ").upper() for title in header]
    widths = [max(map(len, column)) for column in zip(titles, *body, strict=True)]

    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (width + 2) for width in widths) + right + "\n"

    def row(cells: list[str]) -> str:
        return "│" + "│".join(f" {cell} " for cell in cells) + "│\n"

    centred = [_centred(title, width) for title, width in zip(titles, widths, strict=True)]
    out = rule("┌", "┬", "┐") + row(centred)
    if body:
        out += rule("├", "┼", "┤")
        for cells in body:
            out += row([cell.rjust(width) for cell, width in zip(cells, widths, strict=True)])
    return out + rule("└", "┴", "┘")


def _centred(text: str, width: int) -> str:
    left = (width - len(text)) // 2
    return " " * left + text + " " * (width - len(text) - left)


class TablePrinter(Printer):
    """`--write-out table`."""

    form = "table"

    def members(self, response: rpc_pb2.MemberListResponse) -> None:
        write(boxed(rows.MEMBER_HEADER, rows.members(response)))

    def health(self, found: list[EndpointHealth]) -> None:
        write(boxed(rows.HEALTH_HEADER, rows.health(found)))

    def status(self, found: list[tuple[str, rpc_pb2.StatusResponse]]) -> None:
        write(boxed(rows.STATUS_HEADER, rows.status(found)))

    def hash_kv(self, found: list[tuple[str, rpc_pb2.HashKVResponse]]) -> None:
        write(boxed(rows.HASH_HEADER, rows.hash_kv(found)))
