"""What people and other programs write: configuration, flags, addresses, tokens, lines typed."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from random import Random
from typing import Any
from unittest import mock

from keyraft.auth import SimpleTokens
from keyraft.auth.jwt import JWTTokens, load_keys
from keyraft.auth.options import OptionsError, parse_options
from keyraft.base.durations import DurationError, format_duration, parse_duration
from keyraft.base.errors import EtcdError
from keyraft.base.gotext import parse_bool, parse_int, parse_uint, quote, unquote
from keyraft.base.log import NullLogger
from keyraft.base.urls import URLError, parse_url, parse_urls_map
from keyraft.cli.ctl import kv, txn, watch
from keyraft.cli.ctl.exits import Exit
from keyraft.cli.ctl.flags import CommandHelpWanted, FlagError
from keyraft.cli.ctl.flags import parse as parse_command
from keyraft.cli.ctl.gofmt import words
from keyraft.cli.ctl.tree import WATCH
from keyraft.client import endpoint
from keyraft.cluster.versions import VersionError, parse_downgrade_target, parse_version
from keyraft.config.building import build_config
from keyraft.config.config import ConfigError
from keyraft.config.file import parse_config_file
from keyraft.config.flagset import HelpWanted, UsageError, parse_arguments
from keyraft.gateway import Gateway
from keyraft.grpc.deadline import parse_timeout
from keyraft.grpc.status import decode_text, encode_text

from ..target import Choices, Target

# --- configuration ----------------------------------------------------------------------------


def read_config(data: bytes) -> None:
    """A configuration file, and what is made of it."""
    with contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO())):
        try:
            file = parse_config_file(data)
            file.values["log-outputs"] = ("/dev/null",)  # others would be files anywhere
            build_config(file.values, file.explicit)
        except (ConfigError, SystemExit):
            pass


def read_flags(data: bytes) -> None:
    """A command line: an argument a line."""
    with contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO())):
        try:
            flags = parse_arguments(data.decode("utf-8", "surrogateescape").split("\n"))
            flags.values["log-outputs"] = ("/dev/null",)
            build_config(flags.values, frozenset(flags.explicit))
        except (UsageError, HelpWanted, ConfigError):
            pass


_YAML = (
    b"name: m\ndata-dir: d\nlisten-client-urls: http://127.0.0.1:2379\n"
    b"initial-cluster: m=http://127.0.0.1:2380\nclient-transport-security:\n  cert-file: a\n"
    b"  client-cert-auth: true\nauto-compaction-retention: '1h'\nlog-level: info\n"
    b"feature-gates: CompactHashCheck=true\nquota-backend-bytes: 100\n"
)


def _aliases(n: int) -> bytes:
    lines = [b"a0: &a0 [x, x, x]"]
    lines += [b"a%d: &a%d [*a%d, *a%d, *a%d]" % (i, i, i - 1, i - 1, i - 1) for i in range(1, n)]
    return b"\n".join([*lines, b"name: *a%d" % (n - 1)])


# --- addresses, numbers, versions -----------------------------------------------------------------


def _expecting(
    errors: type[BaseException] | tuple[type[BaseException], ...], *parsers: Callable[[str], Any]
) -> Callable[[str], None]:
    def run(text: str) -> None:
        for parse in parsers:
            try:
                parse(text)
            except errors:
                pass

    return run


_ADDRESSES = _expecting(URLError, parse_url, parse_urls_map)
_VERSIONS = _expecting((VersionError, EtcdError), parse_version, parse_downgrade_target)
_NUMBERS = _expecting(ValueError, parse_bool, parse_int, parse_uint, endpoint.parse, unquote)


def read_words(data: bytes) -> None:
    """Addresses, numbers, durations, versions, quoted texts; what is written is read again."""
    text = data.decode("utf-8", "surrogateescape")
    for read in (_ADDRESSES, _VERSIONS, _NUMBERS):
        read(text)
    try:
        nanoseconds = parse_duration(text)
    except DurationError:
        pass
    else:
        assert parse_duration(format_duration(nanoseconds)) == nanoseconds, text
    assert unquote(quote(data)) == data
    parse_timeout(data)
    try:
        plain = data.decode()
    except UnicodeDecodeError:
        pass
    else:
        assert decode_text(encode_text(plain)) == plain, plain
    decode_text(data)


# --- tokens -------------------------------------------------------------------------------------

_SECRET = b"a secret of thirty-two bytes and more"
_KEYS = load_keys("HS256", _SECRET, _SECRET)


def read_tokens(data: bytes) -> None:
    """Tokens as they are; and claims of any kind, rightly signed."""
    simple = SimpleTokens(_Still(), Random(1))
    simple.assign("root", "abcdefghijklmnop", 7, 1)
    jwt = JWTTokens(_KEYS, 300.0, lambda: 1_700_000_000.0)
    for token in (data, data.partition(b".")[2], _signed(data)):
        for provider in (simple, jwt):
            provider.index_of(token)
            found = provider.identify(token, 1)
            if found is not None:
                found.username.decode()
                assert provider.identify(token, 1) == found
    try:
        parse_options(data.decode("utf-8", "surrogateescape"))
    except OptionsError:
        pass


class _Still:
    def time(self) -> float:
        return 5.0


def _signed(claims: bytes) -> bytes:
    signed = b".".join(
        urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"HS256","typ":"JWT"}', claims)
    )
    signature = hmac.digest(_SECRET, signed, hashlib.sha256)
    return signed + b"." + urlsafe_b64encode(signature).rstrip(b"=")


# --- etcdctl --------------------------------------------------------------------------------------


def read_lines(data: bytes) -> None:
    """Lines typed to `etcdctl txn` and `etcdctl watch`."""
    text = data.decode("utf-8", "surrogateescape").replace("\n", " ")

    def nothing() -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO())

    pause = mock.patch.object(kv, "RANGE_DELETE_PAUSE_S", 0.0)  # time to change one's mind
    typed_later = mock.patch.object(sys, "stdin", nothing())  # a value that is not in the line
    out, err = contextlib.redirect_stdout(nothing()), contextlib.redirect_stderr(nothing())
    with pause, typed_later, out, err:
        for read in (txn.compare, txn.operation):
            try:
                read(text)
            except Exit:
                pass
    try:
        typed = words(text)
        _, arguments = parse_command(WATCH.flags, typed[1:])
        watch.split(arguments, typed)
    except (ValueError, CommandHelpWanted, FlagError, watch.BadWatch):
        pass


# --- plain HTTP on the client port ------------------------------------------------------------------


class _Health:
    has_leader = True
    is_learner = False

    def alarms(self) -> tuple[str, ...]:
        return ("NOSPACE",)

    def disk(self) -> str:
        return ""

    def read(self, serializable: bool, done: Callable[[str], None]) -> None:
        done("")

    def versions(self) -> tuple[str, str]:
        return "3.7.0", "3.7.0"


class _Asked:
    """A request; its answer must come, once."""

    def __init__(self, choices: Choices) -> None:
        self.method = choices.choice(("GET", "GET", "GET", "POST", "OPTIONS", "HEAD"))
        self.scheme = choices.choice(("http", "https"))
        self.peer = "127.0.0.1:1"
        self.common_name = None
        target, _, rest = choices.rest().partition(b"\n")
        host, _, origin = rest.partition(b"\n")
        self.target = target.translate(None, b"\0\r\n").decode("latin-1")  # grpc.field_validity
        self.headers = [(b"host", host), (b"origin", origin)]
        self.answers: list[int] = []

    def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        for name, value in headers:
            assert all(32 <= byte < 127 for byte in name + value), (name, value)
        self.answers.append(status)


def ask_gateway(data: bytes) -> None:
    """A target, a host and an origin of any kind."""
    for hosts in (("*",), ("here", "localhost")):
        gateway = Gateway(NullLogger(), ("http://there",), hosts)
        gateway.serve(_Health(), [])  # type: ignore[arg-type]
        asked = _Asked(Choices(data))
        gateway.handle(asked)  # type: ignore[arg-type]
        assert len(asked.answers) == 1, asked.answers


ALL = (
    Target(
        "config_file",
        read_config,
        lambda: [_YAML, b"{}", b'{"name": "m", "cors": "*"}', _aliases(5)],
        (
            b"&a ",
            b"*a",
            b"!!python/object:os.system ",
            b"!!binary ",
            b"<<: ",
            b"? ",
            b"|\n",
            b"1_0",
        ),
        held_bytes=4 << 20,
        held_per_byte=2_000,
        seconds_per_byte=1e-4,
        grown={
            "keys": lambda n: b"".join(b"k%d: v\n" % k for k in range(n)),
            "one key": lambda n: b"k: v\n" * n,
            "aliases": lambda n: _aliases(max(1, n // 20)),
        },
    ),
    Target(
        "flags",
        read_flags,
        lambda: [
            b"--name=m\n--data-dir\nd\n-log-level=debug",
            b"--initial-cluster=m=http://a:1\n--initial-advertise-peer-urls\nhttp://a:1",
            b"--quota-backend-bytes=1\n--auto-compaction-retention=1h\n--client-cert-auth",
            b"--feature-gates=CompactHashCheck=true\n--cipher-suites=TLS_AES_128_GCM_SHA256",
        ],
        (b"--", b"=", b"\n", b"99999999999999999999", b"1h1h", b"http://[::1", b"\xed\xa0\x80"),
        held_bytes=4 << 20,
    ),
    Target(
        "words",
        read_words,
        lambda: [
            b"http://127.0.0.1:2379/path",
            b"a=http://a:1,b=https://[::1]:2",
            b"unix:///run/x",
            b"1h2m3.5s",
            b"3.5.1-rc.0+git",
            b'"a\\x00\\u1234\\n"',
            b"0x1f",
            b"99999999S",
            b"%F0%9F%92%A9%",
        ],
        (b"[::1]", b"\xc2\xb2", b"\xd9\xa1", b"\\U0010ffff", b"\\777", b"9" * 20, b"_"),
        grown={
            "digits": lambda n: b"9" * n,
            "durations": lambda n: b"1h" * n,
            "escapes": lambda n: b'"' + b"\\x00" * n + b'"',
            "urls": lambda n: b",".join(b"n%d=http://a%d:1" % (k, k) for k in range(n)),
        },
    ),
    Target(
        "tokens",
        read_tokens,
        lambda: [
            b"abcdefghijklmnop.6",
            b'{"username":"root","revision":1,"exp":1800000000}',
            b'{"username":"\\ud800","revision":1.5,"exp":1e308,"nbf":null}',
            b"jwt,pub-key=a,priv-key=b,sign-method=RS256,ttl=5m",
        ],
        (b"1e999", b"NaN", b"Infinity", b'"username":', b'"revision":', b"[[[[[[[[", b"true"),
        grown={"brackets": lambda n: b"[" * n, "dots": lambda n: b"." * n},
    ),
    Target(
        "etcdctl_lines",
        read_lines,
        lambda: [
            b'mod("key") > "0"',
            b'val("k\\x00") = "v"',
            b'lease("k") != "1f"',
            b"put k1 'some value' --lease=5",
            b"get --prefix --rev=5 k",
            b'del "k" --from-key',
            b"watch --prefix a b --rev 5 -- echo x",
        ],
        (b'"', b"'", b"\\", b"--", b'("', b'") ', b"=", b"--lease=", b"\\ud800"),
        grown={
            "quotes": lambda n: b'val("' + b'\\"' * n,
            "apostrophes": lambda n: b"put " + b"'" * n,
            "words": lambda n: b"put a" + b" b" * n,
            "spaces": lambda n: b'val("k")' + b" " * n,
        },
    ),
    Target(
        "gateway",
        ask_gateway,
        lambda: [
            b"\0\0/health?exclude=NOSPACE&serializable=true\nhere:2379\nhttp://there",
            b"\0\0/readyz?verbose&exclude=x\n[::1]:5\n",
            b"\0\0/livez/serializable_read\nlocalhost\n",
            b"\0\0/version\n\n",
        ],
        (b"%00", b"%0d%0a", b"http://[", b"//", b"?", b";", b"&exclude="),
        grown={"parameters": lambda n: b"\0\0/health?" + b"a=b&" * n},
    ),
)
