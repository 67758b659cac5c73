"""The failpoints that etcd's suites ask a member for."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conformance.failpoints import PANIC_STATUS, Failpoints
from tests.support.ports import free_ports
from tests.support.programs import ROOT
from tests.support.server import Server, etcdctl, needs_oracle


def points(*died: list[str]) -> Failpoints:
    return Failpoints(("here", "there"), died[0].append if died else None)


def test_terms_are_carried_out_in_their_order_and_number():
    died: list[str] = []
    one = points(died)
    assert one.hit("here") == 0.0
    one.set("here", '2*sleep(100)->1*panic->sleep("1m1.5s")')
    assert [one.hit("here") for _ in range(4)] == [0.1, 0.1, 0.0, 61.5]
    assert died == ["here"]
    one.set("here", "1*sleep(5)")
    assert [one.hit("here"), one.hit("here")] == [0.005, 0.0]
    one.set("here", "0%panic")
    assert one.hit("here") == 0.0 and died == ["here"]


def test_a_point_may_say_what_to_return():
    one = points()
    assert one.text("here") is None
    one.set("here", '1*return("no space")->sleep(3)')
    assert [one.text("here"), one.text("here")] == ["no space", None]


@pytest.mark.parametrize("terms", ["", "run", "sleep", "sleep(soon)", 'sleep("5 apples")', "3*"])
def test_what_is_no_term_is_refused(terms):
    with pytest.raises(ValueError, match="failpoint"):
        points().set("here", terms)


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_they_are_set_listed_and_ended_by_http():
    one = points()
    with one.serve("127.0.0.1:0") as server:
        port = server.server_address[1]
        assert ask(port, "PUT", "/here", b"sleep(10)") == (204, "")
        assert ask(port, "GET", "/") == (200, "here=sleep(10)\nthere=\n")
        assert one.hit("here") == 0.01
        assert ask(port, "DELETE", "/here") == (204, "")
        assert one.hit("here") == 0.0
        assert ask(port, "DELETE", "/here")[0] == 400
        assert ask(port, "PUT", "/nowhere", b"panic")[0] == 400
        assert ask(port, "PUT", "/here", b"run")[0] == 400
        server.shutdown()


@pytest.mark.real
@needs_oracle()
def test_a_member_dies_where_it_is_told_and_comes_again(tmp_path: Path, monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setenv("GOFAIL_HTTP", f"127.0.0.1:{port}")
    monkeypatch.setenv("PYTHONPATH", "")
    code = "import sys; sys.path.append(sys.argv.pop(1)); import runpy; runpy.run_module("
    code += "'tests.conformance.etcd_with_failpoints', run_name='__main__')"
    member = Server((sys.executable, "-c", code, str(ROOT)), tmp_path / "data")
    member.start()
    try:
        for point in ("raftBeforeSave", "raftAfterSave", "beforeCommit", "afterCommit"):
            assert etcdctl(member.endpoint, "put", point, "before").returncode == 0
            assert ask(port, "PUT", f"/{point}", b"panic") == (204, "")
            etcdctl(member.endpoint, "--command-timeout=1s", "put", point, "perhaps")
            assert member.wait() == PANIC_STATUS
            assert f"panic: failpoint {point}" in member.log
            member.start()
            kept = etcdctl(member.endpoint, "get", point, "--print-value-only").stdout
            assert kept in (b"before\n", b"perhaps\n")
    finally:
        member.kill()
