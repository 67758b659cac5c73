"""A batch of ended calls as the lines of the audit log. Pure.

A batch is a tuple of what `marshal` takes, so that it crosses to the audit process quickly:

    clock     seconds to add to the loop's time to get Unix time
    lost      how many calls have no line because there was no room, before these
    answered  unary calls over gRPC that were answered, as columns: origins, index into them, request,
              head of the reply, begin in the loop's time
    marks     up to which of them, and when that many had been answered, in turn
    others    [(origin, request, head of the reply or None, code, error text, end, duration)]

An origin is (method, user, certificate, remote, via, stage); the stage is "" for unary calls. A
request is the message's bytes, or what `fields.details` made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring as quoted
from time import gmtime, strftime

from keyraft.audit.fields import details, plain_key
from keyraft.base.answer_heads import HEADER, header_revision, second_number
from keyraft.base.varints import CodecError

ERROR_CHARACTERS_MAX = 1_024
_TXN = "/etcdserverpb.KV/Txn"
_GRANT = "/etcdserverpb.Lease/LeaseGrant"

Origin = tuple[str, str, str, str, str, str]
Columns = tuple[list[Origin], list[int], "list[bytes | str]", list[bytes], list[float]]
Other = tuple[Origin, "bytes | str", "bytes | None", int, str, float, float]
Batch = tuple[float, int, Columns, list[float], list[Other]]


class AuditLines:
    """Makes the lines; remembers the second that it wrote last."""

    def __init__(self, code_names: Sequence[str]) -> None:
        self._codes = tuple(f'"code":"{name}"' for name in code_names)
        self._second = -1
        self._stamp = ""

    def lines(self, batch: Batch) -> bytes:
        """All lines of a batch, each with its end."""
        clock, lost, (origins, *columns), marks, others = batch
        out: list[str] = []
        if lost:
            out.append(f'{{"time":"{self._time(marks[-1] + clock)}","lost":{lost}}}\n')
        heads = [_head(origin) for origin in origins]
        methods = [origin[0] for origin in origins]
        known, said = b"", self._codes[0]
        due = zip(marks[::2], marks[1::2])
        upto, end = next(due)
        stamp = self._time(end + clock)
        for number, (which, request, reply, began) in enumerate(zip(*columns)):
            while number >= upto:
                upto, end = next(due)
                stamp = self._time(end + clock)
            method = methods[which]
            key = plain_key(method, request)
            if key is None:
                line = self._line(heads[which], method, request, reply, 0, "")
            else:
                # What the answer says is often the same as that of the one before.
                if reply != known:
                    known = reply
                    said = ",".join((self._codes[0], *_answered(method, reply)))
                line = f'{heads[which]},"request":{{"key":{quoted(key)}}},{said}'
            out.append(f'{{"time":"{stamp}",{line},"took_ms":{(end - began) * 1e3:.3f}}}\n')
        for origin, request, head, code, text, end, took in others:
            line = self._line(_head(origin), origin[0], request, head, code, text)
            stamp = self._time(end + clock)
            out.append(f'{{"time":"{stamp}",{line},"took_ms":{took * 1e3:.3f}}}\n')
        return "".join(out).encode("utf-8", "replace")

    def _line(
        self,
        head: str,
        method: str,
        request: bytes | str,
        reply: bytes | None,
        code: int,
        text: str,
    ) -> str:
        shown = request if isinstance(request, str) else details(method, request)
        pieces = [head, f'"request":{shown}'] if shown else [head]
        known = 0 <= code < len(self._codes)
        pieces.append(self._codes[code] if known else f'"code":"Code({code})"')
        if text:
            pieces.append(f'"error":{quoted(text[:ERROR_CHARACTERS_MAX])}')
        if reply:
            pieces += _answered(method, reply)
        return ",".join(pieces)

    def _time(self, unix_s: float) -> str:
        second = int(unix_s)
        if second != self._second:
            self._second = second
            self._stamp = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        return f"{self._stamp}.{int((unix_s - second) * 1e6):06d}Z"


def _head(origin: Origin) -> str:
    names = ("method", "user", "certificate", "remote", "via", "stage")
    pairs = zip(names, origin if origin[5] else origin[:5])
    return ",".join(f'"{name}":{quoted(value)}' for name, value in pairs)


def _answered(method: str, reply: bytes) -> list[str]:
    """The revision in an answer's header, and what the request alone does not say."""
    found: list[str] = []
    if reply[:1] != HEADER:
        return found
    try:
        revision = header_revision(reply)
        if revision:
            found.append(f'"revision":{revision}')
        if method == _TXN:
            found.append(f'"succeeded":{"true" if second_number(reply) else "false"}')
        elif method == _GRANT:
            found.append(f'"granted":"{second_number(reply):x}"')
    except CodecError:
        pass
    return found
