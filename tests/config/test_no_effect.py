"""No flag is taken and forgotten: each is read, refuses to start, or says that it does nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import keyraft
from keyraft.config import noeffect
from keyraft.config.arguments import load
from keyraft.config.config import Config, ConfigError
from keyraft.config.feature_gates import GATES
from keyraft.config.flagtable import FLAGS
from keyraft.config.helptext import flags_text
from keyraft.config.noeffect import GATES_WITHOUT_EFFECT, REFUSED, WARNED, check_effects
from keyraft.logs.zap import ZapLogger

SOURCE = Path(keyraft.__file__).parent
# Read by the configuration itself: logging is opened there, gates are asked through `gate`, and
# of what to do when discovery fails only "exit" is left.
READ_INSIDE = {
    "log-outputs",
    "log-level",
    "log-format",
    "logger",
    "enable-log-rotation",
    "log-rotation-config-json",
    "feature-gates",
    "tls-min-version",
    "tls-max-version",
    "cipher-suites",
    "config-file",
    "version",
    "discovery-fallback",
}


class Lines:
    def __init__(self) -> None:
        self.text = ""

    def write(self, line: bytes) -> None:
        self.text += line.decode()


def read_outside() -> set[str]:
    """Every attribute that some module outside the configuration reads from a `config`."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        if path.name.endswith("_pb2.py") or path.parent.name == "config" or "config." not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if name in ("config", "_config"):
                    found.add(node.attr)
    return found | _read_through_properties(found)


def _read_through_properties(found: set[str]) -> set[str]:
    """What the properties and methods of `Config` that somebody calls read in turn."""
    tree = ast.parse((SOURCE / "config" / "config.py").read_text())
    owner = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Config")
    read = {
        function.name: {
            node.attr
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self"
        }
        for function in owner.body
        if isinstance(function, ast.FunctionDef)
    }
    reached, grown = set(found), True
    while grown:
        before = len(reached)
        for name in tuple(reached):
            reached |= read.get(name, set())
        grown = len(reached) > before
    return reached


def effects(*arguments: str) -> tuple[Config, str]:
    lines = Lines()
    config = load([*arguments, "--log-outputs=/dev/null"], {}, ZapLogger((Lines(),)))
    config = config._replace(log=ZapLogger((lines,)))
    check_effects(config)
    return config, lines.text


def test_each_flag_is_read_or_stands_in_a_table() -> None:
    read = read_outside()
    unread = {name for name, flag in FLAGS.items() if flag.field not in read} - READ_INSIDE
    assert unread == REFUSED.keys() | WARNED.keys()


def test_each_gate_is_asked_for_or_stands_in_the_table() -> None:
    asked = {
        node.args[0].value
        for path in SOURCE.rglob("*.py")
        if path.parent.name != "config" and ".gate(" in path.read_text()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") == "gate"
        and isinstance(node.args[0], ast.Constant)
    }
    assert GATES.keys() - asked - {"AllAlpha", "AllBeta"} == GATES_WITHOUT_EFFECT.keys()


def test_what_protects_refuses_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noeffect, "REFUSED", {"discovery-srv": "nobody is found"})
    with pytest.raises(ConfigError) as refused:
        effects("--discovery-srv=x.test")
    assert str(refused.value) == "--discovery-srv is not available: nobody is found"
    assert noeffect.effect_note("discovery-srv") == "Not available here: refuses to start"
    effects("--discovery-srv-name=x")


def test_what_does_nothing_says_so_once() -> None:
    gate = "--feature-gates=TxnModeWriteWithSharedBuffer=false"
    _, told = effects("--socket-reuse-address", "--downgrade-check-time=1s", gate)
    assert told.count("flag has no effect") == 2
    assert '"flag":"--socket-reuse-address"' in told
    assert "listeners always set SO_REUSEADDR" in told
    assert told.count("feature gate has no effect") == 1


def test_who_sets_nothing_hears_nothing() -> None:
    _, told = effects()
    assert "no effect" not in told


def test_the_help_says_it_too() -> None:
    lines = flags_text().splitlines()
    for name in REFUSED:
        assert "Not available here" in _help(lines, name)
    for name, reason in WARNED.items():
        assert f"Without effect here: {reason}." in _help(lines, name)
    assert "here" not in _help(lines, "cert-file")


def _help(lines: list[str], name: str) -> str:
    at = next(i for i, line in enumerate(lines) if line.split(" ")[2:3] == [f"--{name}"])
    return lines[at + 1]
