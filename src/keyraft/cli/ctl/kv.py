"""get, put, del, compaction."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from keyraft.base.gotext import parse_int, quote
from keyraft.cli.ctl.context import Context
from keyraft.cli.ctl.exits import BAD_ARGS, BAD_FEATURE, ERROR, Exit
from keyraft.cli.ctl.flags import Values
from keyraft.cli.ctl.gofmt import raw

if TYPE_CHECKING:
    from keyraft.proto import rpc_pb2

RANGE_DELETE_PAUSE_S: Final = 2
_TOO_MANY: Final = (
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set"
)
_EXCLUSIVE: Final = "`{}` and `{}` cannot be set at the same time, choose one"
_PUT_USAGE: Final = "put command needs 1 argument and input from stdin or 2 arguments"


def serializable(option: str) -> bool:
    """Whether --consistency is "s"; exit code 4 for an invalid value."""
    if option not in ("l", "s"):
        raise Exit(BAD_FEATURE, f"unknown consistency flag {quote(option)}")
    return option == "s"


def _key_range(values: Values, arguments: list[str]) -> tuple[bytes, bytes]:
    """(key, range_end) of get and del."""
    from keyraft.client.requests import FROM_KEY, prefix_end

    key = raw(arguments[0])
    if values["prefix"]:
        return (key, prefix_end(key)) if key else (FROM_KEY, FROM_KEY)
    if values["from-key"]:
        return key or FROM_KEY, FROM_KEY
    return key, raw(arguments[1]) if len(arguments) > 1 else b""


def _check_range(values: Values, arguments: list[str]) -> None:
    if values["prefix"] and values["from-key"]:
        raise Exit(BAD_ARGS, _EXCLUSIVE.format("--prefix", "--from-key"))


def range_request(values: Values, arguments: list[str]) -> rpc_pb2.RangeRequest:
    """The request of a get; wrong arguments end the command."""
    from keyraft.proto import rpc_pb2

    if not arguments:
        raise Exit(
            BAD_ARGS,
            "get command needs one argument as key and an optional argument as range_end",
        )
    _check_range(values, arguments)
    if values["keys-only"] and values["count-only"]:
        raise Exit(BAD_ARGS, _EXCLUSIVE.format("--keys-only", "--count-only"))
    request = rpc_pb2.RangeRequest(serializable=serializable(values["consistency"]))
    if len(arguments) > 1 and (values["prefix"] or values["from-key"]):
        raise Exit(BAD_ARGS, _TOO_MANY)
    request.limit = values["limit"]
    request.revision = max(values["rev"], 0)
    orders = {
        "": rpc_pb2.RangeRequest.NONE,
        "ASCEND": rpc_pb2.RangeRequest.ASCEND,
        "DESCEND": rpc_pb2.RangeRequest.DESCEND,
    }
    order = orders.get(values["order"].upper())
    if order is None:
        raise Exit(BAD_FEATURE, f"bad sort order {values['order']}")
    targets = {
        "": rpc_pb2.RangeRequest.KEY,
        "CREATE": rpc_pb2.RangeRequest.CREATE,
        "KEY": rpc_pb2.RangeRequest.KEY,
        "MODIFY": rpc_pb2.RangeRequest.MOD,
        "VALUE": rpc_pb2.RangeRequest.VALUE,
        "VERSION": rpc_pb2.RangeRequest.VERSION,
    }
    target = targets.get(values["sort-by"].upper())
    if target is None:
        raise Exit(BAD_FEATURE, f"bad sort target {values['sort-by']}")
    if target == rpc_pb2.RangeRequest.KEY and order == rpc_pb2.RangeRequest.ASCEND:
        order = rpc_pb2.RangeRequest.NONE  # the server returns this order anyway
    request.sort_order, request.sort_target = order, target
    request.key, request.range_end = _key_range(values, arguments)
    request.keys_only = values["keys-only"]
    request.count_only = values["count-only"]
    _bounds(values, request)
    return request


def _bounds(values: Values, request: rpc_pb2.RangeRequest) -> None:
    for name, low_field, high_field in (
        ("Create", "min_create_revision", "max_create_revision"),
        ("Mod", "min_mod_revision", "max_mod_revision"),
    ):
        low: int = values[f"min-{name.lower()}-rev"]
        high: int = values[f"max-{name.lower()}-rev"]
        if low > high > 0:
            raise Exit(BAD_FEATURE, f"getMin{name}Rev(={low}) > getMax{name}Rev(={high})")
        setattr(request, low_field, max(low, 0))
        setattr(request, high_field, max(high, 0))


async def get(context: Context) -> None:
    """Reads a key or a range."""
    request = range_request(context.values, context.arguments)
    async with context.client() as client:
        if context["stream"]:
            from keyraft.proto import rpc_pb2

            response = rpc_pb2.RangeResponse()
            async for part in client.get_stream(request):
                response.MergeFrom(part)
        else:
            response = await client.range(request)
    printer = context.printer
    if context["count-only"] and printer.form != "fields":
        raise Exit(BAD_ARGS, "--count-only is only for `--write-out=fields`")
    if context["print-value-only"]:
        from keyraft.cli.ctl.printers.simple import SimplePrinter

        if not isinstance(printer, SimplePrinter):
            raise Exit(BAD_ARGS, "print-value-only is only for `--write-out=simple`")
        printer.value_only = True
    printer.get(response)


def put_request(values: Values, arguments: list[str]) -> rpc_pb2.PutRequest:
    """The request of a put; wrong arguments end the command."""
    from keyraft.proto import rpc_pb2

    if not arguments:
        raise Exit(BAD_ARGS, _PUT_USAGE)
    if values["ignore-value"] and len(arguments) > 1:
        raise Exit(BAD_ARGS, "put command needs only 1 argument when 'ignore-value' is set")
    value = b""
    if not values["ignore-value"]:
        value = raw(arguments[1]) if len(arguments) > 1 else sys.stdin.buffer.read()
        if not value and len(arguments) == 1:
            raise Exit(BAD_ARGS, _PUT_USAGE)
    try:
        lease = parse_int(values["lease"], 16)
    except ValueError as error:
        raise Exit(BAD_ARGS, f"bad lease ID ({error}), expecting ID in Hex") from None
    return rpc_pb2.PutRequest(
        key=raw(arguments[0]),
        value=value,
        lease=lease,
        prev_kv=values["prev-kv"],
        ignore_value=values["ignore-value"],
        ignore_lease=values["ignore-lease"],
    )


async def put(context: Context) -> None:
    """Writes a key."""
    request = put_request(context.values, context.arguments)
    async with context.client() as client:
        response = await client.put(
            request.key,
            request.value,
            lease=request.lease,
            prev_kv=request.prev_kv,
            ignore_value=request.ignore_value,
            ignore_lease=request.ignore_lease,
        )
    context.printer.put(response)


def delete_request(values: Values, arguments: list[str]) -> rpc_pb2.DeleteRangeRequest:
    """The request of a del; a range without --range first waits, so that it can be interrupted."""
    from keyraft.cli.ctl.printers.base import complain
    from keyraft.proto import rpc_pb2

    if len(arguments) not in (1, 2):
        raise Exit(
            BAD_ARGS,
            "del command needs one argument as key and an optional argument as range_end",
        )
    _check_range(values, arguments)
    if len(arguments) > 1:
        if values["prefix"] or values["from-key"]:
            raise Exit(BAD_ARGS, _TOO_MANY)
        if not values["range"]:
            complain(
                f"Warning: Keys between {quote(raw(arguments[0]))} and "
                f"{quote(raw(arguments[1]))} will be deleted. Please interrupt the command "
                "within next 2 seconds to cancel. You can provide `--range` flag to avoid the "
                "delay."
            )
            time.sleep(RANGE_DELETE_PAUSE_S)
    key, range_end = _key_range(values, arguments)
    return rpc_pb2.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=values["prev-kv"])


async def delete(context: Context) -> None:
    """Deletes a key or a range."""
    request = delete_request(context.values, context.arguments)
    async with context.client() as client:
        response = await client.delete(
            request.key, request.range_end or None, prev_kv=request.prev_kv
        )
    context.printer.delete(response)


async def compaction(context: Context) -> None:
    """Compacts all revisions before one."""
    if len(context.arguments) != 1:
        raise Exit(BAD_ARGS, "compaction command needs 1 argument")
    try:
        revision = parse_int(context.arguments[0])
    except ValueError as error:
        raise Exit(ERROR, str(error)) from None
    async with context.client() as client:
        await client.compact(revision, physical=context["physical"])
    print("compacted revision", revision)
