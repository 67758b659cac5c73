"""The house stays tidy: what reading the source can tell is held here, with what is left of the past.

A ratchet turns one way: a list may lose rows and a number may fall; what is new has no place on it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tidy

ROOT = Path(__file__).resolve().parents[1]
LINES_MAX = 500

LARGE = {
    "sim/raft/conversation.py": 613,
    "sim/raft/interaction.py": 543,
    "tests/auth/test_store.py": 570,
    "tests/cli/test_etcdctl_real.py": 638,
    "tests/client/test_client_real.py": 654,
    "tests/grpc/test_server_streams.py": 542,
    "tests/mvcc/test_watch_hub.py": 931,
    "tests/net/test_http1_connection.py": 587,
}
"""Modules above the limit and how long they may be; none is added."""

CIRCLES = 0
"""Circles of imports that the running program goes through."""

REACHED_PAST = {
    "a start pays only for what it needs": {
        "keyraft.auth.jwt",
        "keyraft.auth.options",
        "keyraft.client.auth",
        "keyraft.client.errors",
        "keyraft.client.recipes.election",
        "keyraft.client.requests",
        "keyraft.cli.ctl.printers.base",
        "keyraft.cli.ctl.printers.simple",
        "keyraft.cli.ctl.printers.table",
        "keyraft.raft.errors",
        "keyraft.server.verification",
        "keyraft.storage.transfer.environment",
        "keyraft.storage.transfer.layout",
        "keyraft.storage.transfer.takeover",
    },
    "used by the module's name, as `status.OK` or `codec.decode_entry`": {
        "keyraft.grpc.status",
        "keyraft.raft.codec",
        "keyraft.storage.backend.long_keys",
        "keyraft.storage.bolt.check",
    },
    "a table of names that every store of rows shares": {
        "keyraft.mvcc.backend",
        "keyraft.raft.types",
        "keyraft.raft.limits",
    },
    "offered to one neighbour, and not to all who import the folder": {
        "keyraft.cluster.member",
        "keyraft.mvcc.checkpoint",
        "keyraft.mvcc.cost",
        "keyraft.mvcc.hash",
        "keyraft.mvcc.memory",
        "keyraft.mvcc.store",
        "keyraft.mvcc.wire",
        "keyraft.storage.bolt.format",
        "keyraft.storage.bolt.reader",
        "keyraft.storage.wal.record",
    },
}
"""Modules that others import past the `__init__` of their folder, by the reason."""

UNUSED = {
    "the whole of a table that others wrote": {
        "DeadlineExceededError",
        "IO",
        "RequestCanceledError",
        "TimeoutWaitAppliedIndexError",
    },
    "called by the event loop, the parser or the tls module by this name": {
        "on_header",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "on_url",
        "sslobject_class",
    },
    "a command, found by its name": {
        "alarm_disarm",
        "alarm_list",
        "help_",
        "list_all",
        "make_mirror",
        "snapshot_restore",
        "snapshot_status",
        "user_passwd",
    },
    "the client library's, for its users": {"REPEATABLE_READS", "of_prefix", "try_acquire"},
    "what tests and people look at": {
        "INPUTS",
        "STATES",
        "VALUE_BYTES_MAX",
        "active_peers",
        "connections_open",
        "connections_total",
        "dials_total",
        "file_bytes",
        "received_path",
        "streams_open",
        "streams_total",
        "writer_pid",
    },
    "one at a time what the program does in steps or in many": {
        "check_lease_read",
        "decode_snapshot_meta",
        "delete_keys",
        "load_newest",
    },
}
"""Names that only tests use, by the reason."""

FLAGS = "src/keyraft/config/config.py"
"""Whose fields are held by tests of their own: each is read, or a flag that says it has no effect."""


def allowed(table: dict[str, set[str]]) -> set[str]:
    return set().union(*table.values())


def too_large(root: Path, large: dict[str, int]) -> list[str]:
    found = tidy.sizes(root)
    grown = [
        f"{name}: {lines} lines, at most {large.get(name, LINES_MAX)}"
        for name, lines in found.items()
        if lines > large.get(name, LINES_MAX)
    ]
    small = [f"{name}: takes its row away" for name in large if found.get(name, 0) <= LINES_MAX]
    return grown + small


def unused(root: Path) -> set[str]:
    return {name for name, where in tidy.unused(root).items() if where != FLAGS}


def test_modules_are_small_and_the_large_ones_only_shrink() -> None:
    assert too_large(ROOT, LARGE) == []


def test_modules_do_not_import_in_circles() -> None:
    assert len(tidy.circles(ROOT)) <= CIRCLES, tidy.circles(ROOT)


def test_other_folders_are_imported_through_their_init() -> None:
    assert set(tidy.reached_past(ROOT)) == allowed(REACHED_PAST)


def test_everything_defined_has_a_use() -> None:
    assert unused(ROOT) == allowed(UNUSED)


def test_statuses_are_named() -> None:
    assert tidy.bare_statuses(ROOT) == []


def test_documents_name_files_that_exist() -> None:
    assert tidy.missing_files(ROOT) == []


def test_each_folder_has_its_row_in_the_architecture() -> None:
    assert tidy.folders_without_row(ROOT) == []


# --- and the rows find what is planted ------------------------------------------------------------

HOUSE = {
    "README.md": "It is in `src/keyraft/store/log.py`.\n",
    "docs/ARCHITECTURE.md": "| folder | holds |\n|---|---|\n| `store/` | rows |\n| `server/` | one |\n",
    "src/keyraft/__init__.py": "",
    "src/keyraft/store/__init__.py": "from keyraft.store.log import Log as Log\n",
    "src/keyraft/store/log.py": "class Log:\n    def append(self) -> None: ...\n",
    "src/keyraft/server/__init__.py": "from keyraft.store import Log\n\nLog().append()\n",
}


def house(root: Path) -> Path:
    for name, text in HOUSE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_tidy_house_has_no_rows(tmp_path: Path) -> None:
    root = house(tmp_path)
    assert too_large(root, {}) == [] == tidy.bare_statuses(root)
    assert tidy.circles(root) == []
    assert tidy.reached_past(root) == {} == tidy.unused(root)
    assert tidy.missing_files(root) == [] == tidy.folders_without_row(root)


PLANTED: list[tuple[str, str, str, Callable[[Path], object]]] = [
    ("a large module", "src/keyraft/store/log.py", "x = 1\n" * 501, lambda r: too_large(r, {})),
    (
        "a large one that grew",
        "src/keyraft/store/log.py",
        "x = 1\n" * 601,
        lambda r: too_large(r, {"src/keyraft/store/log.py": 600}),
    ),
    (
        "one that is large no more",
        "src/keyraft/store/log.py",
        "x = 1\n",
        lambda r: too_large(r, {"src/keyraft/store/log.py": 600}),
    ),
    ("a circle", "src/keyraft/store/log.py", "from keyraft.server import Log\n", tidy.circles),
    (
        "a circle inside a function",
        "src/keyraft/store/log.py",
        "def f():\n    import keyraft.server\n",
        tidy.circles,
    ),
    (
        "an import past an init",
        "src/keyraft/server/__init__.py",
        "from keyraft.store.log import Log\n",
        tidy.reached_past,
    ),
    (
        "a relative import past an init",
        "src/keyraft/server/__init__.py",
        "from ..store.log import Log\n",
        tidy.reached_past,
    ),
    (
        "a function nobody calls",
        "src/keyraft/server/__init__.py",
        HOUSE["src/keyraft/server/__init__.py"] + "def f(): ...\n",
        tidy.unused,
    ),
    (
        "a field nobody reads",
        "src/keyraft/server/__init__.py",
        HOUSE["src/keyraft/server/__init__.py"] + "Log().append.self.x = 1\nself.y = 1\n",
        tidy.unused,
    ),
    (
        "a slot nobody reads",
        "src/keyraft/store/log.py",
        'class Log:\n    __slots__ = ("x",)\n    def append(self): self.x = 1\n',
        tidy.unused,
    ),
    ("a code", "src/keyraft/server/__init__.py", "call.fail(5, 'no')\n", tidy.bare_statuses),
    (
        "a class's code",
        "src/keyraft/server/__init__.py",
        "class E:\n    code = 3\n",
        tidy.bare_statuses,
    ),
    (
        "a status",
        "src/keyraft/server/__init__.py",
        "request.respond(404, [])\n",
        tidy.bare_statuses,
    ),
    (
        "a status compared",
        "src/keyraft/server/__init__.py",
        "reply.status == 200\n",
        tidy.bare_statuses,
    ),
    ("a file that went", "README.md", "See `tests/test_gone.py`.\n", tidy.missing_files),
    ("a folder that went", "docs/ARCHITECTURE.md", "See `src/gone/`.\n", tidy.missing_files),
    ("a folder without a row", "src/keyraft/attic/__init__.py", "", tidy.folders_without_row),
]


@pytest.mark.parametrize(
    ("file", "text", "look"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED]
)
def test_what_is_planted_is_found(
    tmp_path: Path, file: str, text: str, look: Callable[[Path], object]
) -> None:
    root = house(tmp_path)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    assert look(root)
