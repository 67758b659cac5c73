"""downgrade validate, enable, cancel."""

from __future__ import annotations

from keyraft.cli.ctl.context import Context
from keyraft.cli.ctl.exits import BAD_ARGS, Exit


async def _ask(context: Context, name: str, version: str) -> None:
    from keyraft.proto import rpc_pb2

    action = {
        "validate": rpc_pb2.DowngradeRequest.VALIDATE,
        "enable": rpc_pb2.DowngradeRequest.ENABLE,
        "cancel": rpc_pb2.DowngradeRequest.CANCEL,
    }[name]
    async with context.client() as client:
        response = await client.maintenance.downgrade(action, version)
    context.printer.downgrade(name, response)


def _version(context: Context) -> str:
    if not context.arguments:
        raise Exit(BAD_ARGS, "TARGET_VERSION not provided")
    if len(context.arguments) > 1:
        raise Exit(BAD_ARGS, "too many arguments")
    if not context.arguments[0]:
        raise Exit(BAD_ARGS, "target version not provided")
    return context.arguments[0]


async def validate(context: Context) -> None:
    """Asks whether the cluster can be downgraded to a version."""
    await _ask(context, "validate", _version(context))


async def enable(context: Context) -> None:
    """Begins a downgrade to a version."""
    await _ask(context, "enable", _version(context))


async def cancel(context: Context) -> None:
    """Cancels the downgrade."""
    await _ask(context, "cancel", "")
