"""The `etcd` command's exit codes and streams."""

from __future__ import annotations

import pytest

from keyraft.cli.etcd import main


def test_version_is_four_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "etcd Version: 3.7.1"
    assert [line.split(":")[0] for line in lines[1:]] == ["Git SHA", "Go Version", "Go OS/Arch"]


def test_help_has_usage_on_stderr_and_flags_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("Usage:\n\n  etcd [flags]\n")
    assert "  --listen-client-urls 'http://localhost:2379'\n" in captured.out


def test_an_unknown_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nosuch"]) == 2
    assert capsys.readouterr().err.startswith("flag provided but not defined: -nosuch\nUsage:\n")


def test_a_bad_configuration_ends_with_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--heartbeat-interval=1000"]) == 1
    error = capfd.readouterr().err
    assert '"msg":"failed to verify flags","error":"--election-timeout[1000ms] should be' in error


def test_a_data_directory_that_is_none_ends_with_1(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--data-dir=/dev/null"])
    assert caught.value.code == 1
    assert '"level":"fatal"' in capfd.readouterr().err.splitlines()[-1]
