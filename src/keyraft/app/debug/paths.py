"""The paths under /debug on the client port of a member with `--enable-pprof`.

| path | gives |
|---|---|
| /debug/pprof/ | what there is |
| /debug/pprof/profile?seconds=30 | where the member used the processor in that time |
| /debug/pprof/heap?seconds=5 | what was allocated in that time and is still there |
| /debug/pprof/goroutine | the stacks of all threads and tasks |
| /debug/pprof/cmdline, symbol | as Go's |
| /debug/requests | the calls that were slow, the newest first, and what waits now |
| /config/local/log | GET: the level of the log; PUT `{"Level": "DEBUG"}` changes it, as in etcd 3.3 |

A profile is a gzipped pprof message; with `format=speedscope` a file for speedscope.app, with
`debug=1` a text. One profile at a time is made. Anybody who may reach the client port may ask.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from keyraft.app.debug import sampling
from keyraft.app.debug.profile import Profile, as_pprof, as_speedscope, as_text
from keyraft.app.request_stats import RequestStats
from keyraft.base import http_status
from keyraft.grpc import CallEnd, HttpRequest, Router
from keyraft.grpc import status as codes
from keyraft.logs.zap import LEVELS, ZapLogger
from keyraft.server import Member

Header = tuple[bytes, bytes]
Query = Mapping[str, list[str]]

PPROF: Final = "/debug/pprof/"
REQUESTS: Final = "/debug/requests"
LOG: Final = "/config/local/log"
SECONDS_MAX: Final = 300.0
SLOW_CALLS_KEPT: Final = 200
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_HTML: Final = (b"content-type", b"text/html; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")
_BYTES: Final = (b"content-type", b"application/octet-stream")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_GO: Final = (b"x-go-pprof", b"1")
_KINDS: Final[Mapping[str, tuple[float, Callable[[float, threading.Event], Profile]]]] = {
    "profile": (30.0, sampling.processor),
    "heap": (5.0, sampling.memory),
}
_INDEX: Final = {
    "cmdline": "the command line",
    "goroutine": "the stacks of all threads and tasks",
    "heap": "what is allocated in the given seconds and is still there; slows the member down",
    "profile": "where the member uses the processor in the given seconds",
    "symbol": "nothing: names are in the profiles",
}


class ProfilePaths:
    """Everything under /debug/pprof. Owned by the loop; a profile is made by a thread that lives as
    long as it."""

    def __init__(self) -> None:
        self._profiling: threading.Event | None = None

    def handle(self, request: HttpRequest, extra: list[Header], path: str, query: Query) -> bool:
        """Answers, now or later; False for another path."""
        if not path.startswith(PPROF) and path != PPROF[:-1]:
            return False
        self._pprof(request, extra, path[len(PPROF) :], query)
        return True

    def _pprof(self, request: HttpRequest, extra: list[Header], name: str, query: Query) -> None:
        if not name:
            rows = "".join(
                f"<tr><td><a href='{PPROF}{one}'>{one}</a></td><td>{text}</td></tr>\n"
                for one, text in _INDEX.items()
            )
            page = f"<html><body>\n<table>\n{rows}</table>\n</body></html>\n"
            request.respond(http_status.OK, [_HTML, _NOSNIFF, *extra], page.encode())
        elif name == "cmdline":
            body = "\0".join(sys.argv).encode("utf-8", "surrogateescape")
            request.respond(http_status.OK, [_TEXT, _NOSNIFF, *extra], body)
        elif name == "symbol":
            request.respond(http_status.OK, [_TEXT, _NOSNIFF, *extra], b"num_symbols: 1\n")
        elif name == "goroutine":
            _form(name, query, sampling.stacks()).answer(request, extra)
        elif name in _KINDS:
            self._profile(request, extra, name, query)
        else:
            _refuse(request, extra, http_status.NOT_FOUND, "Unknown profile")

    def _profile(self, request: HttpRequest, extra: list[Header], name: str, query: Query) -> None:
        usual_s, make = _KINDS[name]
        try:
            seconds = float(query.get("seconds", [""])[0] or usual_s)
        except ValueError:
            seconds = usual_s  # as Go's
        if not 0 < seconds <= SECONDS_MAX:
            why = f"profile duration must be within (0, {SECONDS_MAX:g}] seconds"
            _refuse(request, extra, http_status.BAD_REQUEST, why)
            return
        if self._profiling is not None:
            why = f"Could not enable {name} profiling: a profile is being made already"
            _refuse(request, extra, http_status.INTERNAL_SERVER_ERROR, why)
            return
        loop = asyncio.get_running_loop()
        ended = self._profiling = threading.Event()
        request.on_close = ended.set

        def made(file: _File) -> None:
            self._profiling = None
            file.answer(request, extra)

        def work() -> None:
            file = _form(name, query, make(seconds, ended))
            loop.call_soon_threadsafe(made, file)

        threading.Thread(target=work, name="keyraft-profile", daemon=True).start()


class DebugPaths:
    """One member's. Owned by the loop."""

    def __init__(
        self,
        member: Member,
        router: Router,
        log: ZapLogger,
        stats: RequestStats,
        slow_s: float,
    ) -> None:
        """`slow_s`: calls that take longer are kept for /debug/requests."""
        self._member = member
        self._log = log
        self._stats = stats
        self._slow: deque[tuple[float, CallEnd]] = deque(maxlen=SLOW_CALLS_KEPT)
        self._profiles = ProfilePaths()
        router.ends.listen(self._slow_call, slow_s)

    def handle(self, request: HttpRequest, extra: list[Header], path: str, query: Query) -> bool:
        """Answers, now or later; False for a path that is not one of these."""
        if self._profiles.handle(request, extra, path, query):
            return True
        if path == REQUESTS:
            body = json.dumps(self._requests(), indent=1).encode()
            request.respond(http_status.OK, [_JSON, *extra], body + b"\n")
        elif path == LOG:
            self._level(request, extra)
        else:
            return False
        return True

    # --- requests -----------------------------------------------------------------------------

    def _slow_call(self, call: CallEnd) -> None:
        # Without the messages, which may be large.
        self._slow.appendleft((time.time(), call._replace(request=b"", reply=b"")))

    def _requests(self) -> dict[str, object]:
        member = self._member
        longest_s = member.loop.time() - member.waiting.oldest_s() if member.waiting else 0.0
        return {
            "proposals_waiting": len(member.waiting),
            "proposals_waiting_longest_s": round(longest_s, 3),
            "reads_in_slices": len(member.slices),
            "slow": [
                {
                    "ended_unix_s": round(unix_s, 3),
                    "method": call.path,
                    "peer": call.peer,
                    "took_s": round(call.took_s, 6),
                    "code": codes.CODE_NAMES[call.code],
                    "error": call.text,
                    "received_bytes": call.received_bytes,
                    "sent_bytes": call.sent_bytes,
                }
                for unix_s, call in self._slow
            ],
        }

    # --- the level of the log -----------------------------------------------------------------

    def _level(self, request: HttpRequest, extra: list[Header]) -> None:
        if request.method == "GET":
            body = json.dumps({"Level": self._log.level.upper()}).encode() + b"\n"
            request.respond(http_status.OK, [_JSON, *extra], body)
            return
        if request.method != "PUT":
            _refuse(request, extra, http_status.METHOD_NOT_ALLOWED, "Method Not Allowed")
            return
        try:
            asked = json.loads(request.body)
            level = str(asked["Level"]).lower()
        except (ValueError, TypeError, KeyError, RecursionError):
            why = 'the body must be like {"Level": "DEBUG"}'
            _refuse(request, extra, http_status.BAD_REQUEST, why)
            return
        if level not in LEVELS:
            _refuse(request, extra, http_status.BAD_REQUEST, f"unknown level; {', '.join(LEVELS)}")
            return
        self._log.set_level(level)
        self._stats.follow_level()
        self._log.warn("the level of the log was changed", level=level, remote=request.peer)
        request.respond(http_status.NO_CONTENT, extra, b"")


class _File(NamedTuple):
    """An answer's body, and what it is."""

    headers: tuple[Header, ...]
    body: bytes

    def answer(self, request: HttpRequest, extra: list[Header]) -> None:
        request.respond(http_status.OK, [*self.headers, _NOSNIFF, *extra], self.body)


def _form(name: str, query: Query, profile: Profile) -> _File:
    """The profile as it is asked for."""
    if query.get("format") == ["speedscope"]:
        file = _attached(f"{name}.speedscope.json")
        return _File((_JSON, file), as_speedscope(profile, f"keyraft {name}"))
    if query.get("debug", ["0"])[0] not in ("", "0"):
        return _File((_TEXT,), as_text(profile))
    return _File((_BYTES, _attached(name)), as_pprof(profile))


def _attached(name: str) -> Header:
    return b"content-disposition", f'attachment; filename="{name}"'.encode()


def _refuse(request: HttpRequest, extra: list[Header], code: int, why: str) -> None:
    headers = [_TEXT, _NOSNIFF, _GO, *extra]
    if code == http_status.METHOD_NOT_ALLOWED:
        headers.append((b"allow", b"GET, PUT"))
    request.respond(code, headers, why.encode() + b"\n")
