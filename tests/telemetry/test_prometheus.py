"""A real Prometheus scrapes real members: it takes all that they tell, the alerts are quiet, and
each query of the dashboard has an answer."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster import LocalCluster
from tests.support.ports import free_ports
from tests.support.programs import ROOT
from tests.support.server import OURS, Server, needs_oracle
from tests.telemetry.prometheus import DASHBOARD, JOB, RULES, program
from tests.telemetry.scenes import Caller, page, until
from tools import dashboard

SCRAPES_S = 1  # between two scrapes
real = pytest.mark.real


def test_the_dashboard_is_the_one_that_the_tool_writes() -> None:
    assert DASHBOARD.read_text() == dashboard.text()


class Prometheus:
    """One that scrapes these members, with our rules."""

    def __init__(self, folder: Path, servers: list[Server]) -> None:
        (port,) = free_ports(1)
        self._place = f"127.0.0.1:{port}"
        settings = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
        settings["global"] = {
            "scrape_interval": f"{SCRAPES_S}s",
            "evaluation_interval": f"{SCRAPES_S}s",
        }
        settings["rule_files"] = [str(RULES)]
        (scrapes,) = settings["scrape_configs"]
        assert scrapes["job_name"] == JOB
        scrapes["static_configs"] = [{"targets": [server.endpoint for server in servers]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        self.log = (folder / "prometheus.log").open("wb")
        self.process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={self._place}",
            ],
            stderr=self.log,
        )

    def ask(self, path: str, **words: str) -> Any:
        """What its API says."""
        url = f"http://{self._place}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.loads(answer.read())["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("query", query=expr)["result"]
        return found

    def has(self, expr: str) -> bool:
        """Whether it answers at all yet, and has a result."""
        try:
            return bool(self.query(expr))
        except OSError:
            return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


def queries() -> list[tuple[str, str]]:
    """Panel and expression, as Grafana would ask."""
    return [
        (
            panel["title"],
            target["expr"]
            .replace("$__rate_interval", f"{4 * SCRAPES_S}s")
            .replace("$job", JOB)
            .replace("$instance", ".*"),
        )
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    program("prometheus")
    cluster = LocalCluster(tmp_path_factory.mktemp("three"), OURS, OURS, OURS).start()
    yield cluster
    cluster.stop()


@real
@needs_oracle()
def test_prometheus_likes_what_it_scrapes(three: LocalCluster, tmp_path: Path) -> None:
    servers = list(three.servers.values())
    shown = str(page(three.leader()))
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=shown.encode(), capture_output=True
    )
    # What it finds is etcd's own: gauges that end in _total, counters that do not, milliseconds.
    complaints = done.stderr.decode().splitlines()
    assert all(line.startswith(("etcd_", "promhttp_")) for line in complaints), complaints

    prometheus = Prometheus(tmp_path, servers)
    try:
        caller = Caller(three.leader())

        def unanswered() -> list[str]:
            caller.put(b"k").result()
            caller.get(b"k").result()
            return [title for title, expr in queries() if not prometheus.has(expr)]

        until(lambda: prometheus.has(f'sum(up{{job="{JOB}"}}) == 3'), "it scrapes nobody")
        until(lambda: not unanswered(), "a query has no answer")
        rules = prometheus.ask("rules")["groups"]
        states = {
            rule["name"]: (rule["health"], rule.get("lastError", ""))
            for group in rules
            for rule in group["rules"]
        }
        assert set(states.values()) == {("ok", "")}, states
        targets = prometheus.ask("targets")["activeTargets"]
        assert [target["lastError"] for target in targets] == [""] * 3
        # A member that dies is told of at once, to become an alert in three minutes.
        servers[0].kill()
        down = f'ALERTS{{alertname="etcdMembersDown", instance="{servers[0].endpoint}"}}'
        until(lambda: prometheus.has(down), "nobody misses it")
    finally:
        prometheus.stop()


def test_the_sample_configuration_and_the_rules_are_read() -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "config", str(ROOT / "contrib/prometheus/prometheus.yml")],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
