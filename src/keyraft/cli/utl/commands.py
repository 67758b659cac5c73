"""What each command of etcdutl does: asks `offline`, prints, ends with etcd's exit codes."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from keyraft.cli.ctl.exits import BAD_ARGS, BAD_FEATURE, ERROR, Exit
from keyraft.cli.utl.main import UtlContext

if TYPE_CHECKING:
    from keyraft.offline.source import ProgressCallback

FORMATS: Final = ("simple", "fields", "json", "protobuf", "table")
_DRAW_S: Final = 0.1  # between two redrawings of a progress line
_PATIENCE_S: Final = 1.0  # shorter work shows no progress


class Console:
    """Log lines on standard error in the original's console form."""

    def debug(self, message: str, **fields: object) -> None:
        """Writes nothing."""

    def info(self, message: str, **fields: object) -> None:
        """One line."""
        self._line("info", message, fields)

    def warn(self, message: str, **fields: object) -> None:
        """One line."""
        self._line("warn", message, fields)

    def error(self, message: str, **fields: object) -> None:
        """One line."""
        self._line("error", message, fields)

    def _line(self, level: str, message: str, fields: dict[str, object]) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        words = [now, level, "etcdutl", message]
        if fields:
            named = {name.replace("_", "-"): value for name, value in fields.items()}
            words.append(json.dumps(named))
        print(*words, sep="\t", file=sys.stderr)


def _progress(what: str, form: str = "simple") -> ProgressCallback:
    """A progress line on standard error if that is a terminal; cleared at the end.

    Short work has none, nor has output for programs: both streams may be the same terminal.
    """
    from keyraft.base.sizes import size

    shown = sys.stderr.isatty() and form in ("simple", "table")
    last = time.monotonic() + _PATIENCE_S - _DRAW_S
    drawn = False

    def show(done: int, total: int) -> None:
        nonlocal last, drawn
        now = time.monotonic()
        ended = done >= total
        if not shown or (not drawn if ended else now - last < _DRAW_S):
            return
        last, drawn = now, not ended
        line = "" if ended else f"{what} {size(done)} of {size(total)}"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()

    return show


def _format(context: UtlContext, *, supported: tuple[str, ...]) -> str:
    name = context.text("write-out")
    if name not in FORMATS:
        raise Exit(BAD_FEATURE, "unsupported output format")
    if name not in supported:
        raise Exit(BAD_FEATURE, f"{name} not supported as output format")
    return name


_READABLE: Final = ("simple", "fields", "json", "table")


def snapshot_status(context: UtlContext) -> None:
    """Prints hash, revision, keys, size and version of a snapshot."""
    if len(context.arguments) != 1:
        raise Exit(BAD_ARGS, "snapshot status requires exactly one argument")
    path = context.arguments[0]
    _require(path)
    form = _format(context, supported=_READABLE)
    from keyraft.base.sizes import size
    from keyraft.offline.source import OfflineError
    from keyraft.offline.status import status

    try:
        found = status(path, context.seconds("timeout"), _progress("checking", form))
    except (OfflineError, OSError) as error:
        raise Exit(ERROR, str(error)) from None
    if form == "json":
        _print_json(
            {
                "hash": found.hash,
                "revision": found.revision,
                "totalKey": found.keys,
                "totalSize": found.size_bytes,
                "version": found.version,
            }
        )
    elif form == "fields":
        print('"Hash" :', found.hash)
        print('"Revision" :', found.revision)
        print('"Keys" :', found.keys)
        print('"Size" :', found.size_bytes)
        print('"Version" :', found.version)
    else:
        _print_row(
            form,
            ["hash", "revision", "total keys", "total size", "version"],
            [
                f"{found.hash:x}",
                str(found.revision),
                str(found.keys),
                size(found.size_bytes),
                found.version,
            ],
        )


def hash_kv(context: UtlContext) -> None:
    """Prints the history hash of a database."""
    form = _format(context, supported=_READABLE)
    _require(context.arguments[0])
    from keyraft.offline import hashkv
    from keyraft.offline.source import OfflineError

    try:
        found = hashkv.hash_kv(
            context.arguments[0], context.number("rev"), context.seconds("timeout")
        )
    except (OfflineError, OSError) as error:
        raise Exit(ERROR, str(error)) from None
    if form == "json":
        _print_json(
            {
                "hash": found.hash,
                "hashRevision": found.revision,
                "compactRevision": found.compact_revision,
            }
        )
    elif form == "fields":
        print('"Hash" :', found.hash)
        print('"Hash revision" :', found.revision)
        print('"Compact revision" :', found.compact_revision)
    else:
        _print_row(
            form,
            ["hash", "hash revision", "compact revision"],
            [str(found.hash), str(found.revision), str(found.compact_revision)],
        )


def snapshot_restore(context: UtlContext) -> None:
    """Makes a data directory from a snapshot."""
    if len(context.arguments) != 1:
        raise Exit(BAD_ARGS, "snapshot restore requires exactly one argument")
    bump, mark = context.number("bump-revision"), context.is_set("mark-compacted")
    if bool(bump) != mark:
        raise Exit(BAD_ARGS, "--mark-compacted required if --revision-bump > 0")
    from keyraft.offline.restore import RestorePlan, restore
    from keyraft.offline.source import OfflineError

    plan = RestorePlan(
        snapshot=context.arguments[0],
        data_dir=context.text("data-dir") or context.text("name") + ".etcd",
        wal_dir=context.text("wal-dir"),
        name=context.text("name"),
        initial_cluster=context.text("initial-cluster"),
        initial_cluster_token=context.text("initial-cluster-token"),
        peer_urls=context.text("initial-advertise-peer-urls"),
        skip_hash_check=context.is_set("skip-hash-check"),
        bump_revision=bump,
        mark_compacted=mark,
    )
    try:
        restore(plan, Console(), _progress("restoring"))
    except OfflineError as error:
        raise Exit(ERROR, str(error)) from None


def defrag(context: UtlContext) -> None:
    """Defragments the database of a stopped member."""
    from keyraft.offline import defrag as work
    from keyraft.offline.source import OfflineError

    path = context.text("data-dir")
    begin = time.monotonic()
    try:
        before, after = work.defrag(path, context.seconds("timeout"))
    except OfflineError as error:
        raise Exit(ERROR, f"Failed to defragment etcd data[{path}] ({error})") from None
    Console().info(
        "finished defragmenting directory",
        path=path,
        current_db_size_bytes_diff=after - before,
        current_db_size_bytes=after,
        took=f"{time.monotonic() - begin:.3f}s",
    )


def migrate(context: UtlContext) -> None:
    """Sets the storage version of a stopped member's database; writes it for the original."""
    from keyraft.offline import handback
    from keyraft.offline import migrate as work
    from keyraft.offline.source import OfflineError

    to_original = context.is_set("to-original")
    data_dir, wal_dir = context.text("data-dir"), context.text("wal-dir")
    timeout_s = context.seconds("timeout")
    wanted = context.text("target-version")
    if wanted or not to_original:
        try:
            target = work.parse_target(wanted)
        except OfflineError as error:
            raise Exit(BAD_ARGS, str(error)) from None
        try:
            work.migrate(data_dir, wal_dir, target, context.is_set("force"), timeout_s, Console())
        except OfflineError as error:
            raise Exit(ERROR, str(error)) from None
    if to_original:
        try:
            handback.hand_back(data_dir, wal_dir, timeout_s, Console())
        except OfflineError as error:
            raise Exit(ERROR, str(error)) from None


def version(context: UtlContext) -> None:
    """Prints the version."""
    from keyraft.base.version import VERSION

    print("etcdutl version:", VERSION)
    print("API version:", VERSION.rpartition(".")[0])


def completion(context: UtlContext) -> None:
    """Prints a script for one of bash, zsh, fish, powershell."""
    from keyraft.cli.ctl.completion import SHELLS, script
    from keyraft.cli.utl.tree import ROOT

    if len(context.arguments) != 1 or context.arguments[0] not in SHELLS:
        given = context.arguments[0] if context.arguments else ""
        raise Exit(ERROR, f'invalid argument "{given}" for "etcdutl completion"')
    print(script(ROOT, context.arguments[0]))


def help_(context: UtlContext) -> None:
    """Prints the usage of the command that the arguments name."""
    from keyraft.cli.ctl.command import UnknownCommand, find
    from keyraft.cli.utl.main import usage
    from keyraft.cli.utl.tree import ROOT

    try:
        command, _ = find(ROOT, context.arguments)
    except UnknownCommand:
        topic = " ".join(context.arguments)
        raise Exit(ERROR, f"Unknown help topic [`{topic}`]") from None
    sys.stdout.write(usage(command))


def _require(path: str) -> None:
    try:
        os.stat(path)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise Exit(ERROR, f"stat {path}: {reason}") from None


def _print_json(value: dict[str, object]) -> None:
    print(json.dumps(value, separators=(",", ":")))


def _print_row(form: str, header: list[str], row: list[str]) -> None:
    if form == "simple":
        print(", ".join(row))
        return
    from keyraft.cli.ctl.printers.table import boxed

    sys.stdout.write(boxed(header, [row]))
