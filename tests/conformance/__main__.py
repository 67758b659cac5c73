"""Runs etcd's own test suites, and those of Kubernetes' storage, against our programs.

    make conformance ETCD=FOLDER SUITE=e2e
    PYTHONPATH=src:. python -m tests.conformance FOLDER e2e --run 'TestCurl' --slice 1/2

FOLDER is a checkout of etcd or of k8s.io/apiserver, or with --release a Git repository of etcd that
has that tag. Needs Go, and curl for some tests. What each test wrote, and the results, stay in the temporary place that is
printed; a second call goes on with what has not passed yet.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path

from . import apiserver, excuses, running, table
from .apiserver import Apiserver
from .checkout import SUITES, Checkout
from .running import Result

TRIES = 2
"""A machine that does other things fails a test for its time now and then."""
ONCE = ("robustness",)
"""A second try would hide what only a run in many shows."""


class Results:
    """What is known of a suite, in files that slices share."""

    def __init__(self, folder: Path, suite: str, part: str) -> None:
        self._folder = folder
        self._suite = suite
        self._own = folder / f"{suite}-{part.replace('/', 'of')}.json"

    def all(self) -> dict[str, Result]:
        """Of every slice; the newest file's word counts."""
        known: dict[str, Result] = {}
        files = [f for f in self._folder.glob("*-*of*.json") if self._is_own(f)]
        for file in sorted(files, key=lambda f: f.stat().st_mtime):
            kept = json.loads(file.read_text())
            known |= {name: Result(**each) for name, each in kept.items()}
        return known

    def add(self, name: str, result: Result) -> None:
        """Written at once."""
        self._folder.mkdir(exist_ok=True)
        kept = json.loads(self._own.read_text()) if self._own.exists() else {}
        kept[name] = result.kept()
        self._own.write_text(json.dumps(kept, indent=1))

    def _is_own(self, file: Path) -> bool:
        return re.fullmatch(rf"{re.escape(self._suite)}-\d+of\d+\.json", file.name) is not None


def main() -> int:
    """The exit status: 1 if something failed that nothing excuses."""
    parser = argparse.ArgumentParser(prog="tests.conformance")
    parser.add_argument("checkout", type=Path)
    parser.add_argument("suite", choices=sorted((*SUITES, *apiserver.SUITES)))
    parser.add_argument("--release", default="", help="a tag, of a Git repository")
    parser.add_argument("--before", type=Path, help="the original etcd of the release before")
    parser.add_argument("--failpoints", action="store_true", help="etcd answers on GOFAIL_HTTP")
    parser.add_argument("--run", default=".", help="only tests whose names match")
    parser.add_argument("--slice", default="1/1", help="the first half: 1/2")
    parser.add_argument("--place", type=Path, help="where the copy and the results lie")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds that a test may take")
    parser.add_argument("--anew", action="store_true", help="also what has passed already")
    parser.add_argument("--table", action="store_true", help="runs nothing")
    given = parser.parse_args()

    place = given.place or Path(tempfile.gettempdir()) / "keyraft-conformance"
    kind = Apiserver if Apiserver.is_one(given.checkout) else Checkout
    checkout = kind(given.checkout, place, given.release)
    results = Results(checkout.folder / "results", given.suite, given.slice)
    if not given.table:
        _run(given, checkout, results)
    known = excuses.read(excuses.FILE.read_text())
    lines, failed = table.render(results.all(), known, checkout.release, given.suite)
    print("\n".join(lines))
    return 1 if failed else 0


def _run(given: argparse.Namespace, checkout: Checkout | Apiserver, results: Results) -> None:
    program, flags = checkout.prepare(given.suite, given.before, given.failpoints)
    folder = checkout.tests(given.suite)
    logs = checkout.folder / "logs" / given.suite
    logs.mkdir(parents=True, exist_ok=True)
    print(f"the tests' words: {logs}", flush=True)
    part, parts = map(int, given.slice.split("/"))
    known = results.all()
    for name in running.names(program, folder)[part - 1 :: parts]:
        done = known.get(name)
        if not re.search(given.run, name) or (done and done.verdict != "FAIL" and not given.anew):
            continue
        for attempt in range(1, 2 if given.suite in ONCE else TRIES + 1):
            log = logs / f"{name}{'.again' * (attempt - 1)}.log"
            result = running.run(program, folder, name, flags, given.limit, log)
            result.tries = attempt
            if result.verdict != "FAIL":
                break
        results.add(name, result)
        print(f"{result.verdict} {result.seconds:7.1f} s  {name}", *result.failed(), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
