"""member add, remove, update, list, promote."""

from __future__ import annotations

from keyraft.base.gotext import parse_uint, quote
from keyraft.cli.ctl.context import Context
from keyraft.cli.ctl.exits import BAD_ARGS, Exit
from keyraft.cli.ctl.kv import serializable


def _member_id(context: Context) -> int:
    if len(context.arguments) != 1:
        raise Exit(BAD_ARGS, "member ID is not provided")
    try:
        return parse_uint(context.arguments[0], 16)
    except ValueError as error:
        raise Exit(BAD_ARGS, f"bad member ID arg ({error}), expecting ID in Hex") from None


def _peer_urls(context: Context) -> list[str]:
    urls: str = context["peer-urls"]
    if not urls:
        raise Exit(BAD_ARGS, "member peer urls not provided")
    return urls.split(",")


async def add(context: Context) -> None:
    """Adds a member and shows what it is to be started with."""
    if not context.arguments:
        raise Exit(BAD_ARGS, "member name not provided")
    if len(context.arguments) > 1:
        hints = [word for word in context.arguments if word.lower().startswith("http")]
        hint = "".join(f", did you mean --peer-urls={word}" for word in hints)
        raise Exit(BAD_ARGS, "too many arguments" + hint)
    name = context.arguments[0]
    urls = _peer_urls(context)
    async with context.client() as client:
        response = await client.cluster.add(urls, learner=context["learner"])
    context.printer.member_add(response)
    if context.printer.form != "simple":
        return
    cluster = [
        f"{name if member.ID == response.member.ID else member.name}={url}"
        for member in response.members
        for url in member.peerURLs
    ]
    print()
    print(f"ETCD_NAME={quote(name)}")
    print(f"ETCD_INITIAL_CLUSTER={quote(','.join(cluster))}")
    print(f"ETCD_INITIAL_ADVERTISE_PEER_URLS={quote(context['peer-urls'])}")
    print('ETCD_INITIAL_CLUSTER_STATE="existing"')


async def remove(context: Context) -> None:
    """Removes a member."""
    member_id = _member_id(context)
    async with context.client() as client:
        response = await client.cluster.remove(member_id)
    context.printer.member_remove(member_id, response)


async def update(context: Context) -> None:
    """Changes a member's peer URLs."""
    member_id = _member_id(context)
    urls = _peer_urls(context)
    async with context.client() as client:
        response = await client.cluster.update(member_id, urls)
    context.printer.member_update(member_id, response)


async def list_all(context: Context) -> None:
    """Shows all members."""
    linearizable = not serializable(context["consistency"])
    async with context.client() as client:
        response = await client.cluster.members(linearizable=linearizable)
    context.printer.members(response)


async def promote(context: Context) -> None:
    """Makes a learner a voter."""
    member_id = _member_id(context)
    async with context.client() as client:
        response = await client.cluster.promote(member_id)
    context.printer.member_promote(member_id, response)
