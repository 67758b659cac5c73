"""The heads of requests, parsed by httptools and checked by the rules of Go's server; the heads of
answers.

The request line is parsed here, because httptools knows only some methods and Go accepts any token.
Where a body ends is decided here, too, because nothing may be read beyond it. httptools parses the
fields and the target. Source: Go `net/http` `readRequest`, `readTransfer`; RFC 9112.
"""

from __future__ import annotations

import re
import time
from typing import Final

import httptools

from keyraft.base import http_status

from .phrases import HTTP_PHRASES

Header = tuple[bytes, bytes]

CHUNKED: Final = -1
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VERSION: Final = re.compile(rb"HTTP/([0-9])\.([0-9])\Z")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HOST: Final = re.compile(rb"[-!$%&'()*+,.:;=@\[\]_~0-9A-Za-z]*\Z")
_FRAMING: Final = frozenset(
    (b"host", b"connection", b"content-length", b"transfer-encoding", b"expect")
)
_NONE: Final[list[bytes]] = []
_WITHOUT_BODY: Final = frozenset({204, 304})
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


class RefusedError(Exception):
    """A request that is refused, with the answer to its client (Go `conn.serve`)."""

    def __init__(self, status: int, detail: str = "", body: str | None = None) -> None:
        """`detail` stands in the status line, too; `body` replaces the usual one."""
        phrase = HTTP_PHRASES[status]
        self.line = f"{status} {phrase}: {detail}" if detail else f"{status} {phrase}"
        self.body = self.line if body is None else body
        super().__init__(self.line)

    @property
    def answer(self) -> bytes:
        """The complete answer."""
        kind = "Content-Type: text/plain; charset=utf-8" if self.body else "Content-Length: 0"
        return f"HTTP/1.1 {self.line}\r\n{kind}\r\nConnection: close\r\n\r\n{self.body}".encode()


class Http1RequestHead:
    """One request before its body; names of fields in lower case.

    Nobody changes it once it is parsed: requests with equal bytes share it.
    """

    __slots__ = (
        "_framing",
        "expects_continue",
        "headers",
        "keep_alive",
        "length",
        "method",
        "minor",
        "target",
    )

    def __init__(self, method: bytes, minor: int) -> None:
        self.method = method.decode("latin-1")
        self.target = ""
        self.headers: list[Header] = []
        self._framing: dict[bytes, list[bytes]] = {}  # the fields that this module looks at
        self.minor = minor  # of HTTP/1
        self.keep_alive = True
        self.length = 0  # of the body; CHUNKED for a chunked one
        self.expects_continue = False

    # --- called by httptools ------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """The target, or a part of it."""
        self.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field."""
        name = name.lower()
        value = value.rstrip(b" \t")
        self.headers.append((name, value))
        if name in _FRAMING:
            self._framing.setdefault(name, []).append(value)

    # --- after it is whole --------------------------------------------------------------------

    def judge(self) -> None:
        """Decides length and keep-alive; raises RefusedError."""
        target = self.target
        if _BAD_ESCAPE.search(target.partition("?")[0].encode("latin-1")):
            raise RefusedError(http_status.BAD_REQUEST)
        hosts = self._framing.get(b"host", _NONE)
        if len(hosts) > 1:
            raise RefusedError(http_status.BAD_REQUEST)
        self._frame()
        if not hosts and self.minor >= 1 and self.method != "CONNECT":
            raise RefusedError(http_status.BAD_REQUEST, "missing required Host header")
        if hosts and not _HOST.match(hosts[0]):
            raise RefusedError(http_status.BAD_REQUEST, "malformed Host header")
        if not target.startswith("/") and target != "*":
            self._absolute(target)

    def _frame(self) -> None:
        values = self._framing.get
        self.keep_alive = self.minor >= 1
        if b"connection" in self._framing:
            connection = {
                token.strip().lower()
                for value in self._framing[b"connection"]
                for token in value.split(b",")
            }
            self.keep_alive = (
                self.keep_alive or b"keep-alive" in connection
            ) and b"close" not in connection
        lengths = values(b"content-length", _NONE)
        codings = values(b"transfer-encoding", _NONE) if self.minor >= 1 else _NONE
        if codings:
            if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
                raise RefusedError(
                    http_status.NOT_IMPLEMENTED, body="Unsupported transfer encoding"
                )
            self.length = CHUNKED
            if lengths:
                self.keep_alive = False  # RFC 9112 §6.1: it may be request smuggling
        elif lengths:
            self.length = int(lengths[0])
        for value in values(b"expect", _NONE)[:1]:
            expect = value.strip().lower()
            self.expects_continue = expect == b"100-continue"
            if not self.expects_continue and expect:
                raise RefusedError(http_status.EXPECTATION_FAILED, body="")

    def _absolute(self, target: str) -> None:
        """ "http://host/path" is the path, and the host whatever the field says (RFC 9112 §3.2.2)."""
        authority, slash, path = target.partition("://")[2].partition("/")
        self.target = slash + path
        host = authority.encode("latin-1")
        self.headers = [field for field in self.headers if field[0] != b"host"]
        self.headers.insert(0, (b"host", host))


def parse_request(raw: bytes) -> Http1RequestHead:
    """The head of a request, its empty line included; raises RefusedError."""
    line, _, fields = raw.partition(b"\n")
    words = line.removesuffix(b"\r").split(b" ", 2)
    if len(words) < 3 or not _METHOD.match(words[0]):
        raise RefusedError(http_status.BAD_REQUEST)
    version = _VERSION.match(words[2])
    if version is None:
        raise RefusedError(http_status.BAD_REQUEST)
    head = Http1RequestHead(words[0], int(version[2]))
    parser = httptools.HttpRequestParser(head)
    # `Http1RequestHead` decides where the body ends. Go accepts lines that end in LF alone.
    parser.set_dangerous_leniencies(
        lenient_optional_cr_before_lf=True,
        lenient_chunked_length=True,
        lenient_transfer_encoding=True,
    )
    try:
        parser.feed_data(b"POST %b HTTP/1.1\r\n%b" % (words[1], fields))
    except httptools.HttpParserUpgrade:
        pass  # an upgrade is ignored
    except httptools.HttpParserError:
        raise RefusedError(http_status.BAD_REQUEST) from None
    if version[1] != b"1":
        raise RefusedError(http_status.VERSION_NOT_SUPPORTED, "unsupported protocol version")
    head.judge()
    return head


def answer_head(minor: int, status: int, headers: list[Header], close: bool) -> bytes:
    """The head of an answer; `headers` with names in lower case.

    The names go out as Go writes them.
    """
    lines = [b"HTTP/1.%d %d %b" % (minor, status, HTTP_PHRASES.get(status, "").encode())]
    lines += [name.title() + b": " + value for name, value in headers]
    lines.append(_date())
    if close and minor:
        lines.append(b"Connection: close")
    elif not close and not minor:
        lines.append(b"Connection: keep-alive")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def has_body(method: str, status: int) -> bool:
    """Whether an answer of this status has a body at all."""
    return method != "HEAD" and status >= http_status.OK and status not in _WITHOUT_BODY


_date_of: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The Date line, made once a second."""
    global _date_of
    now_s = int(time.time())
    if _date_of[0] != now_s:
        t = time.gmtime(now_s)
        text = (
            f"Date: {_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year}"
            f" {t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
        )
        _date_of = (now_s, text.encode())
    return _date_of[1]
