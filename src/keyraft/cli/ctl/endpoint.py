"""Commands about single members: endpoint health, status, hashkv; defrag, alarm, move-leader."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from keyraft.base.gotext import parse_uint
from keyraft.cli.ctl.context import Context, error_text
from keyraft.cli.ctl.elsewhere import become_etcdutl
from keyraft.cli.ctl.exits import BAD_ARGS, ERROR, Exit
from keyraft.cli.ctl.gofmt import duration
from keyraft.cli.ctl.printers.base import EndpointHealth, complain, line

if TYPE_CHECKING:
    from keyraft.client import Client
    from keyraft.proto import rpc_pb2


async def health(context: Context) -> None:
    """Reads a key at every endpoint at once, and its alarms."""
    endpoints = await context.cluster_endpoints()
    context.tls()  # what is wrong with its files is no member's illness
    found = await asyncio.gather(*(_health(context, endpoint) for endpoint in endpoints))
    context.printer.health(list(found))
    if any(one.error for one in found):
        raise Exit(ERROR, "unhealthy cluster")


async def _health(context: Context, endpoint: str) -> EndpointHealth:
    from keyraft.client.errors import EtcdError, PermissionDeniedError, RawError

    try:
        async with context.client(endpoint) as client:
            started = time.monotonic()
            error = ""
            try:
                await client.get("health")
            except PermissionDeniedError:
                pass  # permission denied is fine: the read went through consensus
            except (EtcdError, RawError) as problem:
                error = error_text(problem)
            took = duration(time.monotonic() - started)
            if not error:
                error = await _alarms(client)
    except Exit as end:  # of building the client
        return EndpointHealth(endpoint, False, "", end.text)
    return EndpointHealth(endpoint, not error, took, error)


async def _alarms(client: Client) -> str:
    from keyraft.client.errors import EtcdError, RawError
    from keyraft.proto import rpc_pb2

    try:
        raised = (await client.maintenance.alarms()).alarms
    except (EtcdError, RawError):
        return "Unable to fetch the alarm list"
    names = {rpc_pb2.NOSPACE: "NOSPACE ", rpc_pb2.CORRUPT: "CORRUPT "}
    if not raised:
        return ""
    return "Active Alarm(s): " + "".join(names.get(one.alarm, "UNKNOWN ") for one in raised)


async def status(context: Context) -> None:
    """Shows the status of each endpoint."""
    from keyraft.client.errors import EtcdError, RawError

    found: list[tuple[str, rpc_pb2.StatusResponse]] = []
    endpoints = await context.cluster_endpoints()
    for endpoint in endpoints:
        async with context.client(endpoint) as client:
            try:
                found.append((endpoint, await client.maintenance.status()))
            except (EtcdError, RawError) as error:
                reason = error_text(error)
                complain(f"Failed to get the status of endpoint {endpoint} ({reason})")
    context.printer.status(found)
    if len(found) < len(endpoints):
        raise Exit(ERROR)


async def hash_kv(context: Context) -> None:
    """Shows the hash over each endpoint's keys."""
    from keyraft.client.errors import EtcdError, RawError

    found: list[tuple[str, rpc_pb2.HashKVResponse]] = []
    reason = ""
    for endpoint in await context.cluster_endpoints():
        async with context.client(endpoint) as client:
            try:
                answer = await client.maintenance.hash_kv(revision=context["rev"])
                found.append((endpoint, answer))
            except (EtcdError, RawError) as error:
                reason = error_text(error)
                complain(f"Failed to get the hash of endpoint {endpoint} ({reason})")
    context.printer.hash_kv(found)
    if reason:
        raise Exit(ERROR, reason)


async def defrag(context: Context) -> None:
    """Rewrites each endpoint's database without free pages, one after the other.

    DEVIATION: with --data-dir, which 3.5 had, only the directory is defragmented. The original then
    also defragments the endpoints, which the operator did not name.
    """
    from keyraft.client.errors import EtcdError, RawError

    if context["data-dir"]:
        become_etcdutl("defrag", f"--data-dir={context['data-dir']}")

    failed = False
    for endpoint in await context.cluster_endpoints():
        async with context.client(endpoint) as client:
            started = time.monotonic()
            try:
                await client.maintenance.defragment(endpoint)
            except (EtcdError, RawError) as error:
                failed = True
                took = duration(time.monotonic() - started)
                complain(
                    f"Failed to defragment etcd member[{endpoint}]. took {took}. "
                    f"({error_text(error)})"
                )
                continue
            took = duration(time.monotonic() - started)
            line(f"Finished defragmenting etcd member[{endpoint}]. took {took}")
    if failed:
        raise Exit(ERROR)


async def alarm_list(context: Context) -> None:
    """Shows the alarms that are raised."""
    if context.arguments:
        raise Exit(BAD_ARGS, "alarm list command accepts no arguments")
    async with context.client() as client:
        response = await client.maintenance.alarms()
    context.printer.alarms(response)


async def alarm_disarm(context: Context) -> None:
    """Disarms all alarms."""
    if context.arguments:
        raise Exit(BAD_ARGS, "alarm disarm command accepts no arguments")
    async with context.client() as client:
        response = await client.maintenance.disarm()
    context.printer.alarms(response)


async def move_leader(context: Context) -> None:
    """Finds the leader among the endpoints and asks it to transfer the leadership."""
    if len(context.arguments) != 1:
        raise Exit(BAD_ARGS, "move-leader command needs 1 argument")
    try:
        target = parse_uint(context.arguments[0], 16)
    except ValueError as error:
        raise Exit(BAD_ARGS, str(error)) from None
    for endpoint in context.endpoints:
        async with context.client(endpoint) as client:
            state = await client.maintenance.status()
            if state.header.member_id == state.leader:
                response = await client.maintenance.move_leader(target)
                context.printer.move_leader(state.leader, target, response)
                return
    raise Exit(BAD_ARGS, f"no leader endpoint given at [{' '.join(context.endpoints)}]")
