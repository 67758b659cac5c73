"""Log lines in the forms of etcd's loggers: zap's JSON or tab-separated console text, or plain.

A line has level, time (microseconds, local zone), logger, caller, message and fields, in this
order. After 100 lines with one level and message within a second only every hundredth is
written, as etcd samples too, so that a fault that repeats cannot drown the disk. A line is one
`write`, so lines of several processes on one pipe do not mix.

DEVIATION: errors carry no stack trace of the logger's own call. The `caller` field names the place,
and a refusal to start stays one clear line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import FrameType
from typing import Any, Final, NoReturn, Protocol

from keyraft.base.durations import format_duration

LEVELS: Final = {
    "debug": -1,
    "info": 0,
    "warn": 1,
    "error": 2,
    "dpanic": 3,
    "panic": 4,
    "fatal": 5,
}
JOURNAL: Final = "systemd/journal"
PLAIN: Final = "capnslog"  # a form of its own: see `logs/plain.py`
SAMPLE_FIRST: Final = 100  # lines of one message in one second that are all written
SAMPLE_THEREAFTER: Final = 100  # then one in so many
SAMPLED_MESSAGES_MAX: Final = 4_096  # messages that are counted at a time
_AS_THEY_ARE: Final = frozenset(("trace_id", "step_count"))  # the original's few with underscores
_CONTROL: Final = {code: f"\\u{code:04x}" for code in range(0x20)} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    ord("\\"): "\\\\",
    ord('"'): '\\"',
}


class LoggingError(ValueError):
    """The logging flags make no sense; the message is etcd's."""


class Duration(int):
    """Nanoseconds that are logged as "1m30s"."""


class LogOutput(Protocol):
    """Where lines go."""

    def write(self, line: bytes) -> None:
        """Takes one whole line; never raises."""


class DescriptorOutput:
    """An open file descriptor: standard error, standard output or an appended file."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, line: bytes) -> None:
        """Writes; a reader that is gone, or a full disk, must not stop the member."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line)


class ZapLogger:
    """The `Logger` of a running member."""

    __slots__ = ("_configured", "_form", "_level", "_name", "_outputs", "_sampled", "_second")

    def __init__(
        self,
        outputs: Sequence[LogOutput],
        level: str = "info",
        form: str = "json",
        name: str = "",
    ) -> None:
        self._outputs = tuple(outputs)
        self._level = self._configured = LEVELS[level]
        self._form = form
        self._name = name
        self._second = 0
        self._sampled: dict[tuple[str, str], int] = {}

    def named(self, name: str) -> ZapLogger:
        """The same logger under a name ("raft")."""
        child = ZapLogger(self._outputs, "info", self._form, name)
        child._level = child._configured = self._level
        return child

    def toggle_debug(self) -> str:
        """Changes the level to debug, or back to the one that was configured; the level now."""
        debug = LEVELS["debug"]
        self._level = self._configured if self._level == debug else debug
        return self.level

    @property
    def level(self) -> str:
        """The level from which lines are written."""
        return next(name for name, number in LEVELS.items() if number == self._level)

    def set_level(self, name: str) -> None:
        """Changes the level; one of LEVELS."""
        self._level = LEVELS[name]

    def is_enabled(self, level: str) -> bool:
        """Whether lines of this level are written at all."""
        return LEVELS[level] >= self._level

    def debug(self, message: str, **fields: object) -> None:
        """Details for debugging."""
        if self._level <= -1:
            self._write("debug", message, fields)

    def info(self, message: str, **fields: object) -> None:
        """What an operator wants to find afterwards."""
        if self._level <= 0:
            self._write("info", message, fields)

    def warn(self, message: str, **fields: object) -> None:
        """What an operator should look at."""
        if self._level <= 1:
            self._write("warn", message, fields)

    def error(self, message: str, **fields: object) -> None:
        """What failed."""
        if self._level <= 2:
            self._write("error", message, fields)

    def panic(self, message: str, **fields: object) -> None:
        """A bug; the caller stops the member."""
        if self._level <= 4:
            self._write("panic", message, fields)

    def fatal(self, message: str, **fields: object) -> NoReturn:
        """The last line; ends the process with exit code 1."""
        self._write("fatal", message, fields)
        raise SystemExit(1)

    def _write(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        now = time.time()
        if level != "fatal" and not self._passes_sampling(level, message, int(now)):
            return
        caller = caller_of(sys._getframe(2))
        line = self.format(now, level, caller, message, fields)
        for output in self._outputs:
            output.write(line)

    def _passes_sampling(self, level: str, message: str, second: int) -> bool:
        if second != self._second or len(self._sampled) >= SAMPLED_MESSAGES_MAX:
            self._second = second
            self._sampled.clear()
        count = self._sampled.get((level, message), 0) + 1
        self._sampled[level, message] = count
        return count <= SAMPLE_FIRST or (count - SAMPLE_FIRST) % SAMPLE_THEREAFTER == 0

    def format(
        self, unix_s: float, level: str, caller: str, message: str, fields: Mapping[str, object]
    ) -> bytes:
        """The whole line with its end."""
        if self._form == PLAIN:
            from keyraft.logs.plain import plain_line  # few want it

            return plain_line(unix_s, level, caller, message, fields)
        stamp = time_stamp(unix_s)
        if self._form == "console":
            words = [stamp, level, self._name, caller, message] if self._name else None
            words = words or [stamp, level, caller, message]
            if fields:
                pairs = (f"{_name(key)}: {_value(fields[key], ', ')}" for key in fields)
                words.append("{" + ", ".join(pairs) + "}")
            text = "\t".join(words)
        else:
            pieces = [f'"level":"{level}"', f'"ts":"{stamp}"']
            if self._name:
                pieces.append(f'"logger":{_text(self._name)}')
            pieces.append(f'"caller":{_text(caller)}')
            pieces.append(f'"msg":{_text(message)}')
            pieces += [f"{_name(key)}:{_value(fields[key], ',')}" for key in fields]
            text = "{" + ",".join(pieces) + "}"
        return text.encode("utf-8", "replace") + b"\n"


def caller_of(frame: FrameType) -> str:
    """The caller of a log line: folder, file and line."""
    parts = frame.f_code.co_filename.rsplit("/", 2)
    return f"{'/'.join(parts[-2:])}:{frame.f_lineno}"


def time_stamp(unix_s: float) -> str:
    """A time as lines show it: microseconds, local zone."""
    moment = datetime.fromtimestamp(unix_s).astimezone()
    zone = moment.strftime("%z")
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + ("Z" if zone == "+0000" else zone)


def _name(key: str) -> str:
    return _text(key if key in _AS_THEY_ARE else key.replace("_", "-"))


def _text(value: str) -> str:
    return f'"{value.translate(_CONTROL)}"'


def _value(value: object, separator: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Duration):
        return _text(format_duration(value))
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, bytes):
        return _text(value.decode("utf-8", "replace"))
    if isinstance(value, list | tuple):
        return "[" + separator.join(_value(item, separator) for item in value) + "]"
    return _text(str(value))


def build_logger(
    outputs: Sequence[str], level: str, form: str, rotate: bool, rotation_json: str
) -> ZapLogger:
    """The logger that the flags describe; raises LoggingError or OSError. `form`: "json",
    "console" or PLAIN.

    `outputs` holds "default", "stderr", "stdout", "systemd/journal" or paths of files.
    """
    if len(outputs) > 1 and "default" in outputs:
        raise LoggingError('multi logoutput for "default" is not supported yet')
    if level not in LEVELS:
        raise LoggingError(f'unrecognized level: "{level}"')
    if form not in ("json", "console", PLAIN, ""):
        raise LoggingError(f"unknown log format: {form}, supported values json, console")
    rotation = _rotation(outputs, rotation_json) if rotate else None
    opened: list[LogOutput] = []
    for name in sorted(set(outputs)) if "/dev/null" not in outputs else ():
        if name in ("default", "stderr"):
            opened.append(DescriptorOutput(2))
        elif name == "stdout":
            opened.append(DescriptorOutput(1))
        elif name == JOURNAL:
            opened.append(_journal(outputs))
        elif rotation is not None:
            from keyraft.logs.outputs import RotatingOutput

            opened.append(RotatingOutput(name, rotation))
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            opened.append(DescriptorOutput(os.open(name, flags, 0o666)))
    return ZapLogger(opened, level, form or "json")


def _rotation(outputs: Sequence[str], rotation_json: str) -> Mapping[str, Any]:
    files = [name for name in outputs if name not in ("default", "stderr", "stdout")]
    if len(files) > 1 or (len(outputs) == 1 and not files):
        raise LoggingError(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined"
        )
    try:
        settings = json.loads(rotation_json)
    except ValueError as error:
        at_end = isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip())
        reason = "unexpected end of JSON input" if at_end else str(error)
        raise LoggingError(f"improperly formatted log rotation config: {reason}") from None
    if settings is not None and not isinstance(settings, dict):
        raise _wrong_rotation(settings, "value of type embed.logRotationConfig")
    for key, value in (settings or {}).items():
        kind = _ROTATION.get(key.lower())
        if kind is not None and value is not None and type(value) is not kind:
            name, go_type = key.lower(), "string" if kind is str else kind.__name__
            where = f"struct field logRotationConfig.Logger.{name} of type {go_type}"
            raise _wrong_rotation(value, where)
    return {key.lower(): value for key, value in (settings or {}).items()}


_ROTATION: Final = {
    "filename": str,
    "maxsize": int,
    "maxage": int,
    "maxbackups": int,
    "localtime": bool,
    "compress": bool,
}
"""The settings of lumberjack, whose keys match in any case; others are ignored."""


def _wrong_rotation(value: object, where: str) -> LoggingError:
    kinds = {bool: "bool", str: "string", list: "array", dict: "object"}
    got = kinds.get(type(value)) or ("number" if isinstance(value, int) else f"number {value}")
    return LoggingError(
        f"invalid log rotation config: json: cannot unmarshal {got} into Go {where}"
    )


def _journal(outputs: Sequence[str]) -> LogOutput:
    """Raises LoggingError where there is none, and beside other outputs."""
    from keyraft.logs.outputs import JOURNAL_SOCKET, JournalOutput

    if len(set(outputs)) > 1:
        listed = " ".join(f'"{name}"' for name in sorted(set(outputs)))
        raise LoggingError(
            f"running with systemd/journal but other '--log-outputs' values ([{listed}]) are "
            "configured with 'default'; override 'default' value with something else"
        )
    try:
        return JournalOutput()
    except OSError as error:
        raise LoggingError(
            f"can't find journal (dial unixgram {JOURNAL_SOCKET}: connect: "
            f"{(error.strerror or '').lower()})"
        ) from None


DEFAULT_LOGGER: Final = ZapLogger((DescriptorOutput(2),))
"""The logger until the flags are read: JSON on standard error."""
