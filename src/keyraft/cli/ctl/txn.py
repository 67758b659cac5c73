"""txn: three blocks of lines on standard input, each ended by an empty one."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from keyraft.base.gotext import parse_int, unquote
from keyraft.cli.ctl.command import Command
from keyraft.cli.ctl.context import FOREVER_S, Context
from keyraft.cli.ctl.exits import BAD_ARGS, INVALID_INPUT, Exit
from keyraft.cli.ctl.flags import CommandHelpWanted, FlagError, parse
from keyraft.cli.ctl.gofmt import words
from keyraft.cli.ctl.kv import delete_request, put_request, range_request

if TYPE_CHECKING:
    from keyraft.proto import rpc_pb2

T = TypeVar("T")

_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_COMPARE: Final = re.compile(rf"\s*({_QUOTED})\)\s*(\S+)\s+({_QUOTED})")


async def txn(context: Context) -> None:
    """Reads a transaction and carries it out."""
    from keyraft.proto import rpc_pb2

    if context.arguments:
        raise Exit(BAD_ARGS, "txn command does not accept argument")
    request = rpc_pb2.TxnRequest()
    async with context.client() as client:
        _prompt(context, "compares:")
        request.compare.extend(_block(compare))
        _prompt(context, "success requests (get, put, del):")
        request.success.extend(_block(operation))
        _prompt(context, "failure requests (get, put, del):")
        request.failure.extend(_block(operation))
        response = await client.commit(request, FOREVER_S)
    context.printer.txn(response)


def _prompt(context: Context, text: str) -> None:
    if context["interactive"]:
        print(text, flush=True)


def _block(read: Callable[[str], T]) -> list[T]:
    """The lines up to an empty one; code 3 when the input ends before it."""
    found: list[T] = []
    while True:
        line = sys.stdin.readline()
        if not line.endswith("\n"):
            raise Exit(INVALID_INPUT, "EOF")
        line = line.strip()
        if not line:
            return found
        found.append(read(line))


def compare(line: str) -> rpc_pb2.Compare:
    """A condition such as `mod("key") > "0"`; code 3 for one that cannot be read."""
    from keyraft.proto import rpc_pb2

    target, parenthesis, rest = line.partition("(")
    match = _COMPARE.match(rest)
    if not parenthesis:
        raise Exit(INVALID_INPUT, f"malformed comparison: {line}")
    if match is None:
        raise Exit(INVALID_INPUT, f'malformed comparison: {line}; got {target}("")  ""')
    try:
        key, constant = unquote(match[1]), unquote(match[3])
    except ValueError as error:
        raise Exit(INVALID_INPUT, f"malformed comparison: {line} ({error})") from None
    fields = {
        "ver": "version",
        "version": "version",
        "c": "create_revision",
        "create": "create_revision",
        "m": "mod_revision",
        "mod": "mod_revision",
        "val": "value",
        "value": "value",
        "lease": "lease",
    }
    field = fields.get(target)
    if field is None:
        raise Exit(INVALID_INPUT, f"malformed comparison: {line} (unknown target {target})")
    results = {
        "=": rpc_pb2.Compare.EQUAL,
        "!=": rpc_pb2.Compare.NOT_EQUAL,
        ">": rpc_pb2.Compare.GREATER,
        "<": rpc_pb2.Compare.LESS,
    }
    # DEVIATION: the original crashes on an operator that it does not know.
    if match[2] not in results:
        raise Exit(INVALID_INPUT, f"malformed comparison: {line} (unknown operator {match[2]})")
    made = rpc_pb2.Compare(key=key, result=results[match[2]])
    targets = {
        "version": rpc_pb2.Compare.VERSION,
        "create_revision": rpc_pb2.Compare.CREATE,
        "mod_revision": rpc_pb2.Compare.MOD,
        "value": rpc_pb2.Compare.VALUE,
        "lease": rpc_pb2.Compare.LEASE,
    }
    made.target = targets[field]
    if field == "value":
        made.value = constant
        return made
    try:
        # DEVIATION: up to 3.7.1 the original crashes on a lease; later ones read hexadecimal.
        number = parse_int(constant.decode("utf-8", "replace"), 16 if field == "lease" else 10)
    except ValueError:
        raise Exit(INVALID_INPUT, f"invalid txn compare request: {line}") from None
    setattr(made, field, number)
    return made


def operation(line: str) -> rpc_pb2.RequestOp:
    """A get, put or del as on the command line; code 3 for one that cannot be read."""
    from keyraft.cli.ctl.tree import DEL, GET, PUT
    from keyraft.proto import rpc_pb2

    try:
        typed = words(line)
    except ValueError as error:
        raise Exit(INVALID_INPUT, str(error)) from None
    if len(typed) < 2:
        raise Exit(INVALID_INPUT, f"invalid txn compare request: {line}")
    command, rest = _find((PUT, GET, DEL), typed, line)
    try:
        values, arguments = parse(command.flags, rest)
    except (FlagError, CommandHelpWanted):
        raise Exit(INVALID_INPUT, f"invalid txn request: {line}") from None
    if command is GET:
        return rpc_pb2.RequestOp(request_range=range_request(values, arguments))
    if command is PUT:
        return rpc_pb2.RequestOp(request_put=put_request(values, arguments))
    return rpc_pb2.RequestOp(request_delete_range=delete_request(values, arguments))


def _find(known: tuple[Command, ...], typed: list[str], line: str) -> tuple[Command, list[str]]:
    found = [command for command in known if command.name == typed[0]] or [
        command for command in known if command.name.startswith(typed[0])
    ]
    if len(found) != 1:
        raise Exit(INVALID_INPUT, f"invalid txn request: {line}")
    return found[0], typed[1:]
