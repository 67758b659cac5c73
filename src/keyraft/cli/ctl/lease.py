"""lease grant, revoke, timetolive, list, keep-alive."""

from __future__ import annotations

from keyraft.base.gotext import parse_int
from keyraft.cli.ctl.context import FOREVER_S, Context, error_text
from keyraft.cli.ctl.exits import BAD_ARGS, BAD_CONNECTION, ERROR, Exit


def _lease_id(text: str) -> int:
    try:
        return parse_int(text, 16)
    except ValueError as error:
        raise Exit(BAD_ARGS, f"bad lease ID arg ({error}), expecting ID in Hex") from None


def _one(context: Context, complaint: str) -> str:
    if len(context.arguments) != 1:
        raise Exit(BAD_ARGS, complaint)
    return context.arguments[0]


async def grant(context: Context) -> None:
    """Makes a lease."""
    from keyraft.client.errors import EtcdError, RawError

    try:
        ttl_s = parse_int(_one(context, "lease grant command needs TTL argument"))
    except ValueError as error:
        raise Exit(BAD_ARGS, f"bad TTL ({error})") from None
    async with context.client() as client:
        try:
            response = await client.leases.grant(ttl_s)
        except (EtcdError, RawError) as error:
            raise Exit(ERROR, f"failed to grant lease ({error_text(error)})") from None
    context.printer.lease_grant(response)


async def revoke(context: Context) -> None:
    """Ends a lease."""
    from keyraft.client.errors import EtcdError, RawError

    lease_id = _lease_id(_one(context, "lease revoke command needs 1 argument"))
    async with context.client() as client:
        try:
            response = await client.leases.revoke(lease_id)
        except (EtcdError, RawError) as error:
            raise Exit(ERROR, f"failed to revoke lease ({error_text(error)})") from None
    context.printer.lease_revoke(lease_id, response)


async def time_to_live(context: Context) -> None:
    """Shows how long a lease lives."""
    from keyraft.client.errors import EtcdError, RawError

    text = _one(context, "lease timetolive command needs lease ID as argument")
    async with context.client() as client:
        try:
            response = await client.leases.time_to_live(
                _lease_id(text), keys=context["keys"], timeout_s=FOREVER_S
            )
        except (EtcdError, RawError) as error:
            raise Exit(BAD_CONNECTION, error_text(error)) from None
    context.printer.lease_time_to_live(response, context["keys"])


async def list_all(context: Context) -> None:
    """Shows all leases."""
    from keyraft.client.errors import EtcdError, RawError

    async with context.client() as client:
        try:
            response = await client.leases.list(timeout_s=FOREVER_S)
        except (EtcdError, RawError) as error:
            raise Exit(BAD_CONNECTION, error_text(error)) from None
    context.printer.leases(response)


async def keep_alive(context: Context) -> None:
    """Renews a lease, once or until it is gone."""
    from keyraft.client.errors import EtcdError, RawError

    lease_id = _lease_id(_one(context, "lease keep-alive command needs lease ID as argument"))
    async with context.client() as client:
        if context["once"]:
            try:
                once = await client.leases.keep_alive_once(lease_id, timeout_s=FOREVER_S)
            except (EtcdError, RawError) as error:
                raise Exit(BAD_CONNECTION, error_text(error)) from None
            context.printer.lease_keep_alive(once)
            return
        async for response in client.leases.keep_alive(lease_id).responses():
            context.printer.lease_keep_alive(response)
    if context.printer.form == "simple":
        print(f"lease {lease_id:016x} expired or revoked.")
