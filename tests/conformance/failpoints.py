"""Places at which a member can be told to die or to wait, as etcd's suites tell it (gofail).

A failpoint has a name and, while it is on, terms: `panic`, `sleep(100)` (milliseconds),
`sleep("1s")`, `return("text")`, each perhaps with `3*` (so many times) or `50%` (so often) before it, and `->` before
what follows. Terms come in the variable GOFAIL_FAILPOINTS and by HTTP on the address GOFAIL_HTTP:
GET / lists all, PUT /NAME sets, DELETE /NAME ends (github.com/etcd-io/gofail, `runtime/http.go`).

A panic ends the process at once with Go's status 2; nothing is flushed or told.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Final

PANIC_STATUS: Final = 2
_TERM = re.compile(
    r"(?:(?P<percent>[\d.]+)%)?(?:(?P<count>\d+)\*)?(?P<kind>off|panic|return|sleep)(?:\((?P<value>[^)]*)\))?"
)
_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Term:
    """One step of a failpoint's terms."""

    def __init__(self, text: str) -> None:
        found = _TERM.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"failpoint: cannot parse {text!r}")
        self.kind = found["kind"]
        self.share = float(found["percent"]) / 100 if found["percent"] else 1.0
        self.left = int(found["count"]) if found["count"] else -1
        """Times that it may still act; negative: always."""
        self.seconds = _seconds(found["value"]) if self.kind == "sleep" else 0.0
        self.text = (found["value"] or "").strip('"') if self.kind == "return" else None


def _seconds(value: str | None) -> float:
    """Of an integer of milliseconds, or of a duration in quotes."""
    if value is None:
        raise ValueError("failpoint: sleep needs a time")
    if value.isdecimal():
        return int(value) / 1000
    parts = re.findall(r"([\d.]+)(ns|us|µs|ms|s|m|h)", value.strip('"'))
    if not parts or "".join(map("".join, parts)) != value.strip('"'):
        raise ValueError(f"failpoint: cannot parse the time {value!r}")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


class Failpoints:
    """All points of a process, by name. The loop's thread asks, the HTTP server's threads set."""

    def __init__(self, names: tuple[str, ...], die: Callable[[str], None] | None = None) -> None:
        self._terms: dict[str, tuple[str, list[Term]]] = {}
        self._names = names
        self._die = die or _panic
        self._chance = Random()
        self._lock = threading.Lock()

    def set(self, name: str, text: str) -> None:
        """Raises KeyError for a name that there is not, ValueError for terms that are none."""
        if name not in self._names:
            raise KeyError(name)
        terms = [Term(word) for word in text.split("->")]
        with self._lock:
            self._terms[name] = text, terms

    def end(self, name: str) -> None:
        """Raises KeyError for one that is not on."""
        with self._lock:
            del self._terms[name]

    def list(self) -> str:
        """Every name with its terms, a line each."""
        on = dict(self._terms)
        return "".join(f"{name}={on[name][0] if name in on else ''}\n" for name in self._names)

    def hit(self, name: str) -> float:
        """Dies if it shall; returns how many seconds to wait."""
        term = self._term(name)
        return term.seconds if term is not None else 0.0

    def text(self, name: str) -> str | None:
        """Dies if it shall; returns what a function shall return instead of working."""
        term = self._term(name)
        return term.text if term is not None else None

    def _term(self, name: str) -> Term | None:
        if name not in self._terms:
            return None
        with self._lock:
            _, terms = self._terms.get(name, ("", []))
            term = next((one for one in terms if one.left), None)
            if term is None or (term.share < 1 and self._chance.random() >= term.share):
                return None
            term.left -= term.left > 0
        if term.kind == "panic":
            self._die(name)
        return term

    def serve(self, address: str) -> ThreadingHTTPServer:
        """Answers on `address` (host:port) from now on."""
        host, _, port = address.rpartition(":")
        points = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, points.list())

            def do_PUT(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                try:
                    points.set(self.path[1:], text)
                except (KeyError, ValueError):
                    self._answer(400, f"failed to set failpoint {self.path[1:]}\n")
                else:
                    self._answer(204, "")

            def do_DELETE(self) -> None:
                try:
                    points.end(self.path[1:])
                except KeyError:
                    self._answer(400, "failed to delete failpoint: it is disabled\n")
                else:
                    self._answer(204, "")

            def _answer(self, status: int, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *words: object) -> None:
                """Nothing: the member's log is its own."""

        server = ThreadingHTTPServer((host, int(port)), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


def _panic(name: str) -> None:
    os.write(sys.stderr.fileno(), f"panic: failpoint {name}\n".encode())
    os._exit(PANIC_STATUS)
