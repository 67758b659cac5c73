"""A profile: stacks with their weights, and the two forms in which it is told.

Source: `proto/profile.proto` of github.com/google/pprof; the file format of speedscope.app.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from keyraft.base.varints import plain_varint


class CodePlace(NamedTuple):
    """Where a stack stands in one of its functions."""

    function: str
    file: str
    line: int


Stack = tuple[CodePlace, ...]
"""The innermost place first."""


class Profile(NamedTuple):
    """Weights by stack."""

    units: tuple[tuple[str, str], ...]
    """What the values of a stack are: (kind, unit) of each; the last is what is looked at."""
    period: int
    """Between two samples, in the last unit; 0 when nothing was sampled."""
    values: Mapping[Stack, tuple[int, ...]]
    unix_ns: int
    """When it began."""
    duration_ns: int


def as_pprof(profile: Profile) -> bytes:
    """The gzipped message that `go tool pprof` reads."""
    texts: dict[str, int] = {"": 0}
    functions: dict[tuple[str, str], int] = {}
    places: dict[CodePlace, int] = {}
    body = bytearray()

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    for kind, unit in profile.units:
        body += _message(1, _number(1, text(kind)) + _number(2, text(unit)))
    for stack, values in profile.values.items():
        ids = [places.setdefault(place, len(places) + 1) for place in stack]
        body += _message(2, _packed(1, ids) + _packed(2, values))
    for place, ident in places.items():
        function = functions.setdefault(place[:2], len(functions) + 1)
        line = _message(4, _number(1, function) + _number(2, place.line))
        body += _message(4, _number(1, ident) + line)
    for (name, file), ident in functions.items():
        named = _number(2, text(name)) + _number(3, text(name)) + _number(4, text(file))
        body += _message(5, _number(1, ident) + named)
    kind, unit = profile.units[-1]
    period_type = _message(11, _number(1, text(kind)) + _number(2, text(unit)))
    for value in texts:
        body += _message(6, value.encode("utf-8", "replace"))
    body += _number(9, profile.unix_ns) + _number(10, profile.duration_ns)
    body += period_type + _number(12, profile.period)
    return gzip.compress(bytes(body), 6, mtime=0)


_SPEEDSCOPE_UNITS: Final = {"nanoseconds": "nanoseconds", "bytes": "bytes"}


def as_speedscope(profile: Profile, name: str) -> bytes:
    """The JSON that speedscope opens; its weights are the last values."""
    frames: dict[CodePlace, int] = {}
    samples = [
        [frames.setdefault(place, len(frames)) for place in reversed(stack)]
        for stack in profile.values
    ]
    weights = [values[-1] for values in profile.values.values()]
    told = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "shared": {
            "frames": [
                {"name": place.function, "file": place.file, "line": place.line} for place in frames
            ]
        },
        "profiles": [
            {
                "type": "sampled",
                "name": name,
                "unit": _SPEEDSCOPE_UNITS.get(profile.units[-1][1], "none"),
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        ],
        "name": name,
        "exporter": "keyraft",
    }
    return json.dumps(told, separators=(",", ":")).encode()


def as_text(profile: Profile) -> bytes:
    """The stacks, the heaviest first, for a reader."""
    lines = [" ".join(f"{kind}/{unit}" for kind, unit in profile.units), ""]
    heaviest = sorted(profile.values.items(), key=lambda item: item[1][-1], reverse=True)
    for stack, values in heaviest:
        lines.append(" ".join(map(str, values)))
        lines += [f"#\t{place.function}\t{place.file}:{place.line}" for place in stack]
        lines.append("")
    return "\n".join(lines).encode("utf-8", "replace")


def _number(field: int, value: int) -> bytes:
    return plain_varint(field << 3) + plain_varint(value) if value else b""


def _message(field: int, body: bytes) -> bytes:
    return plain_varint(field << 3 | 2) + plain_varint(len(body)) + body


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _message(field, b"".join(map(plain_varint, values)))
