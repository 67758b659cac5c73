"""A word names one thing: no two classes of the package or the simulator share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import Final

from tests import tidy

ROOT: Final = Path(__file__).parents[1]

_FACE: Final = (2, "`client.sync` has a blocking face of each class of the client, with its name")
SHARED: Final = {
    "Auth": _FACE,
    "Client": _FACE,
    "Cluster": _FACE,
    "Lease": _FACE,
    "Leases": (3, "the client's calls about leases, their blocking face, and the services' port"),
    "Maintenance": _FACE,
    "Space": _FACE,
    "Txn": _FACE,
    "Watch": _FACE,
    "NotLeaderError": (
        2,
        "etcd's error of a member, and what its recipe calls ErrElectionNotLeader",
    ),
}
"""Names of several classes: how many, and why they may share it."""


def _places() -> dict[str, list[str]]:
    places: dict[str, list[str]] = defaultdict(list)
    for folder in ("src", "sim"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in tidy.statements(tidy.parsed(path)):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return places


def test_no_two_classes_share_a_name() -> None:
    shared = {name: where for name, where in _places().items() if len(where) > 1}
    assert {name: where for name, where in shared.items() if name not in SHARED} == {}
    counts = {name: len(where) for name, where in shared.items()}
    assert counts == {name: count for name, (count, _) in SHARED.items()}, "an exception is stale"
