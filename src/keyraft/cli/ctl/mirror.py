"""make-mirror: copies a cluster's keys to another, then every change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from keyraft.cli.ctl.context import FOREVER_S, Context, error_text
from keyraft.cli.ctl.exits import BAD_ARGS, ERROR, Exit
from keyraft.cli.ctl.gofmt import raw
from keyraft.cli.ctl.printers.base import line

if TYPE_CHECKING:
    from keyraft.client import Client
    from keyraft.proto import rpc_pb2

REPORT_S: Final = 30
COPIES_AT_ONCE: Final = 64  # puts under way while the first copy is made


class Mirror:
    """One run; `total` counts keys written and deleted."""

    def __init__(self, context: Context, source: Client, target: Client) -> None:
        self._source = source
        self._target = target
        self._prefix = raw(context["prefix"])
        self._ops_max: int = context["max-txn-ops"]
        self._revision = max(context["rev"] - 1, 0)
        self._new_prefix = raw(context["dest-prefix"])
        # DEVIATION: with --rev the original ignores the prefix and overwrites other keys.
        if not context["no-dest-prefix"] and not self._new_prefix:
            self._new_prefix = self._prefix
        self.total = 0

    def _key(self, key: bytes) -> bytes:
        return self._new_prefix + key.removeprefix(self._prefix)

    async def run(self) -> None:
        """Copies the present keys, then follows changes; ends only with an error."""
        revision = self._revision
        if not revision:
            revision = await self._copy()
        async with self._source.watch(
            self._prefix, prefix=True, start_revision=revision + 1
        ) as watch:
            async for response in watch.responses():
                await self._apply(response)

    async def _copy(self) -> int:
        """Copies all keys as of one revision, which it returns."""
        first = await self._source.get("mirror", count_only=True)
        revision = first.header.revision
        under_way: set[asyncio.Task[object]] = set()
        async for kv in self._source.scan(self._prefix, prefix=True, revision=revision):
            if len(under_way) >= COPIES_AT_ONCE:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            put = self._target.put(self._key(kv.key), kv.value, timeout_s=FOREVER_S)
            under_way.add(asyncio.ensure_future(put))
            self.total += 1
        await asyncio.gather(*under_way)
        return revision

    async def _apply(self, response: rpc_pb2.WatchResponse) -> None:
        """Writes changes, those of one revision in one transaction if it is not too big."""
        from keyraft.client import delete, put
        from keyraft.proto import mvcc_pb2

        operations: list[rpc_pb2.RequestOp] = []
        revision = 0
        for event in response.events:
            if operations and (
                event.kv.mod_revision > revision or len(operations) == self._ops_max
            ):
                await self._commit(operations)
                operations = []
            revision = event.kv.mod_revision
            key = self._key(event.kv.key)
            deleted = event.type == mvcc_pb2.Event.DELETE
            operations.append(delete(key) if deleted else put(key, event.kv.value))
            self.total += 1
        if operations:
            await self._commit(operations)

    async def _commit(self, operations: list[rpc_pb2.RequestOp]) -> None:
        await self._target.txn().then(*operations).commit(FOREVER_S)


async def make_mirror(context: Context) -> None:
    """Mirrors until it is stopped."""
    from keyraft.client import TLS, Client
    from keyraft.client.errors import EtcdError, RawError

    if len(context.arguments) != 1:
        raise Exit(BAD_ARGS, "make-mirror takes one destination argument")
    user, password = _destination_user(context)
    cert, key, ca = (context[f"dest-{name}"] for name in ("cert", "key", "cacert"))
    secure = bool(cert or key or ca) or not context["dest-insecure-transport"]
    tls = TLS(ca, cert, key) if secure else None
    if context["no-dest-prefix"] and context["dest-prefix"]:
        raise Exit(
            BAD_ARGS,
            "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
        )
    target = Client(context.arguments[0], tls=tls, user=user, password=password)
    async with context.client() as source, target:
        mirror = Mirror(context, source, target)
        report = asyncio.ensure_future(_report(mirror))
        try:
            await mirror.run()
        except (EtcdError, RawError) as error:
            raise Exit(ERROR, error_text(error)) from None
        finally:
            report.cancel()


async def _report(mirror: Mirror) -> None:
    while True:
        await asyncio.sleep(REPORT_S)
        line(str(mirror.total))


def _destination_user(context: Context) -> tuple[str, str]:
    user: str = context["dest-user"]
    if not user or context["dest-password"]:
        return user, context["dest-password"]
    name, colon, password = user.partition(":")
    if colon:
        return name, password
    from keyraft.cli.ctl.password import ask

    return user, ask("Destination Password: ")
