"""A real Prometheus: where it is, and real scrapes told to it as if minutes lay between them.

`promtool test rules` evaluates the rules over series with times of our choosing, so that an alert
that waits ten minutes takes no time. The values are those that members have shown.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.programs import ROOT

RULES: Final = ROOT / "contrib" / "prometheus" / "rules.yml"
DASHBOARD: Final = ROOT / "contrib" / "grafana" / "keyraft.json"
JOB: Final = "keyraft"
_INSTALLED: Final = ROOT / ".venv" / "oracle" / "prometheus" / "usr" / "bin"
_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$", re.M)


def program(name: str) -> str:
    """`prometheus` or `promtool`; skips where neither the path nor `make setup` has one."""
    found = os.environ.get("KEYRAFT_PROMETHEUS", "")
    places = [found, str(_INSTALLED), os.environ.get("PATH", "")]
    place = shutil.which(name, path=os.pathsep.join(filter(None, places)))
    if place is None:
        pytest.skip(f"no {name} here: make setup could not install Prometheus")
    return place


def rules() -> list[dict[str, Any]]:
    """All alerts of the rules file."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def named(rule: Mapping[str, Any]) -> str:
    """An alert by name and severity, as tests speak of it."""
    return f"{rule['alert']}:{rule['labels']['severity']}"


def samples(page: str) -> dict[tuple[str, str], str]:
    """The samples of a page by name and labels, as they are written there."""
    return {(name, labels): value for name, labels, value in _SAMPLE.findall(page)}


class Timeline:
    """Scrapes of some members, a virtual minute after each other, and what must fire when."""

    def __init__(self, instances: Iterable[str]) -> None:
        self._instances = tuple(instances)
        texts = " ".join(rule["expr"] for rule in rules())
        self._names = set(re.findall(r"[a-z_]+[a-z]", texts))
        self._minutes: list[dict[str, str]] = []  # series -> value
        self._expected: dict[int, tuple[frozenset[str], str]] = {}

    def scraped(self, pages: Mapping[str, str | None]) -> None:
        """The next minute: a page of each member, None of one that gave none."""
        found: dict[str, str] = {}
        for instance in self._instances:
            page = pages[instance]
            own = f'job="{JOB}",instance="{instance}"'
            found[f"up{{{own}}}"] = "0" if page is None else "1"
            for (name, labels), value in samples(page or "").items():
                if name in self._names:
                    found[f"{name}{{{own}{',' if labels else ''}{labels}}}"] = value
        self._minutes.append(found)

    def hold(self, minutes: int) -> None:
        """Nothing changes for a while."""
        self._minutes += [self._minutes[-1]] * minutes

    def expect(self, *alerts: str, beside: frozenset[str] = frozenset()) -> None:
        """What fires now, and nothing else but, perhaps, what is named in `beside`."""
        names = {one.partition(":")[0] for one in alerts}
        unasked = "|".join(sorted(beside - names))
        self._expected[len(self._minutes) - 1] = frozenset(alerts), unasked

    def _tells(self, series: str) -> bool:
        """A counter that never moves has no rate; Prometheus need not hear of thousands."""
        if not re.search(r"^[a-z_]+(_bucket|_handled_total)\b", series):
            return True
        return len({minute[series] for minute in self._minutes if series in minute}) > 1

    def check(self, folder: Path) -> None:
        """Asks Prometheus."""
        series = sorted(filter(self._tells, {name for minute in self._minutes for name in minute}))
        expr = 'group by (alertname, severity) (ALERTS{{alertstate="firing", alertname!~"{}"}})'
        test = {
            "interval": "1m",
            "input_series": [
                {"series": one, "values": _runs([minute.get(one) for minute in self._minutes])}
                for one in series
            ],
            "promql_expr_test": [
                {
                    "expr": expr.format(unasked),
                    "eval_time": f"{minute}m",
                    "exp_samples": [
                        {
                            "labels": '{{alertname="{}", severity="{}"}}'.format(*one.split(":")),
                            "value": 1,
                        }
                        for one in sorted(alerts)
                    ],
                }
                for minute, (alerts, unasked) in self._expected.items()
            ],
        }
        file = folder / "timeline.json"  # JSON is YAML
        file.write_text(
            json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]})
        )
        done = subprocess.run(
            [program("promtool"), "test", "rules", str(file)],
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]


def _runs(values: list[str | None]) -> str:
    """A series in promtool's notation: runs of equal values, and where a series ends."""
    parts: list[str] = []
    start = 0
    while start < len(values):
        value = values[start]
        end = start
        while end < len(values) and values[end] == value:
            end += 1
        count = end - start
        if value is not None:
            parts.append(f"{value}+0x{count - 1}")
        elif start:
            parts.append("stale" + (f" _x{count - 1}" if count > 1 else ""))
        else:
            parts.append(f"_x{count}")
        start = end
    return " ".join(parts)
