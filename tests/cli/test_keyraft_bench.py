"""`keyraft bench` against servers with users: a token for every connection, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from keyraft.cli.bench import bench
from keyraft.client.sync import Client
from tests.support.server import ORACLE, OURS, Server, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]

PUTS = 40


@pytest.fixture(scope="module", params=["original", "ours"])
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server whose only user is root."""
    command = ORACLE if request.param == "original" else OURS
    server = Server(command, tmp_path_factory.mktemp("bench") / "data")
    server.start()
    with Client(server.endpoint) as client:
        client.auth.user_add("root", "pw")
        client.auth.user_grant_role("root", "root")
        client.auth.enable()
    yield server
    server.kill()


def run(server: Server, *words: str) -> Result:
    first = [f"--endpoints={server.endpoint}", "--conns=2", "--clients=4"]
    return CliRunner().invoke(bench, [*first, *words])


def test_a_user_puts_and_reads(guarded: Server) -> None:
    for load in (
        ["put", f"--total={PUTS}", "--key-space-size=7"],
        ["txn", f"--total={PUTS}", "--key-space-size=7", "--txn-ops=2"],
        ["range", "key", f"--total={PUTS}"],
    ):
        result = run(guarded, "--user=root:pw", *load)
        assert result.exit_code == 0, result.output
        assert "Requests/sec:" in result.output and "Error" not in result.output


def test_who_names_nobody_is_refused(guarded: Server) -> None:
    result = run(guarded, "put", f"--total={PUTS}")
    assert result.exit_code == 1
    assert f"  [{PUTS}]\tetcdserver: user name is empty\n" in result.output


def test_a_wrong_password_ends_the_run(guarded: Server) -> None:
    result = run(guarded, "--user=root:other", "put", f"--total={PUTS}")
    assert result.exit_code == 1
    assert "authentication failed, invalid user ID or password" in result.output
    assert "Summary" not in result.output
