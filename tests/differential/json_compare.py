"""What of two answers of the gateway must be equal, and what differs between releases of etcd.

`KNOWN` names each way in which 3.7, and so Keyraft, differs from 3.5. Against 3.7 itself nothing is
let pass.
"""

from __future__ import annotations

import base64
import copy
import http.client
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.differential.json_requests import JsonRequest

_MASKED: Final = frozenset(
    (
        *("cluster_id", "member_id", "raft_term", "raftTerm", "raftIndex", "raftAppliedIndex"),
        *("dbSize", "dbSizeInUse", "leader", "version", "hash", "token", "memberID"),
    )
)
_LEASE: Final = re.compile(rb"/[0-9a-f]{15,16}$")
RESET: Final = "stream terminated by RST_STREAM with error code: CANCEL"
"""A deadline, if the server noticed it first."""
_HEADERS: Final = (
    "content-type",
    "grpc-metadata-content-type",
    "www-authenticate",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "x-content-type-options",
    "location",
    "allow",
)


@dataclass
class Answer:
    """One answer: its status, the headers that count, and its body as JSON values or as text."""

    status: int
    headers: dict[str, str]
    values: list[Any]
    text: str

    @property
    def refusal(self) -> tuple[int, str] | None:
        """gRPC's code and text, if it is one."""
        value = self.values[0] if len(self.values) == 1 else None
        if isinstance(value, dict) and isinstance(value.get("message"), str) and "code" in value:
            return value["code"], value["message"]
        return None


def ask(port: int, request: JsonRequest) -> Answer:
    """Sends a request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(request.method, request.path, request.body, request.headers)
        response = connection.getresponse()
        body = response.read()
    except http.client.RemoteDisconnected:
        return Answer(0, {}, [], "")
    finally:
        connection.close()
    headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
    text = body.decode("utf-8", "replace").replace("\xa0", " ")
    values: list[Any] = []
    if "json" in headers.get("content-type", ""):
        values = _joined([masked(json.loads(line)) for line in text.splitlines() if line.strip()])
        text = ""
    return Answer(response.status, headers, values, text)


def masked(value: Any, name: str = "") -> Any:
    """Without what no two clusters share."""
    if isinstance(value, dict):
        if name == "members":
            return "members"
        return {key: masked(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        if name == "keys":  # of a lease, in no order
            return sorted(value)
        if name == "members":
            return len(value)
        return [masked(inner, name) for inner in value]
    if name == "blob":
        return "blob"
    if name in _MASKED or (name in ("ID", "lease") and len(str(value)) > 15):
        return name
    if name in ("key", "name") and isinstance(value, str):
        return _without_lease(value)
    if (name, value) == ("message", RESET):
        return "context deadline exceeded"
    if name == "TTL" and str(value) not in ("0", "-1"):
        return name
    return value


def _hash_of_nothing(answer: Answer) -> bool:
    """The original remembers a hash of no revision, and answers with it for the latest."""
    value = answer.values[0] if answer.values else None
    return isinstance(value, dict) and "hash" in value and value.get("compact_revision") == "-1"


def _joined(values: list[Any]) -> list[Any]:
    """Lines with events as one; how many events of the past share a line, nobody says."""
    out: list[Any] = []
    events: list[Any] = []
    for value in values:
        result = value.get("result") if isinstance(value, dict) else None
        if isinstance(result, dict) and "events" in result:
            events += [(result.get("watch_id"), event) for event in result["events"]]
        else:
            out.append(value)
    return [*out, {"events": events}] if events else out


def _without_lease(key: str) -> str:
    """The key of a lock or a candidate ends with its lease."""
    try:
        raw = base64.b64decode(key)
    except ValueError:
        return key
    return _LEASE.sub(b"/lease", raw).decode("latin-1")


def _forget_leases(value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            _forget_leases(one)
    elif isinstance(value, dict):
        if "value" not in value and "mod_revision" in value:
            value.pop("lease", None)
        for one in value.values():
            _forget_leases(one)


def same(request: JsonRequest, theirs: Answer, ours: Answer) -> bool:
    """Whether the answers are equal."""
    if request.path.startswith("/v3/maintenance/snapshot") and theirs.status == ours.status == 200:
        return True
    if _hash_of_nothing(theirs):
        return True
    if b'"keysOnly"' in request.body or b'"keys_only"' in request.body:
        # DEVIATION: 3.7 finds keys without their rows, and so without their leases.
        theirs, ours = copy.deepcopy(theirs), copy.deepcopy(ours)
        for value in (*theirs.values, *ours.values):
            _forget_leases(value)
    return (theirs.status, theirs.headers, theirs.values, theirs.text) == (
        ours.status,
        ours.headers,
        ours.values,
        ours.text,
    )


# --- 3.5 and 3.7 ----------------------------------------------------------------------------------

_READERS_37: Final = re.compile(
    r"proto: |invalid character |unexpected EOF|unexpected end|Failed to decode"
)


def _by_reader(answer: Answer) -> bool:
    """Whether the body was refused before any method saw it."""
    refusal = answer.refusal
    return refusal is not None and refusal[0] == 3 and bool(_READERS_37.match(refusal[1]))


def _old_error(theirs: Answer, ours: Answer) -> bool:
    """3.5 says each refusal twice."""
    old, new = theirs.refusal, ours.refusal
    if old is None or old != new or theirs.status != ours.status:
        return False
    return "error" in theirs.values[0]


def _old_reader(theirs: Answer, ours: Answer) -> bool:
    return ours.status == theirs.status == 400 and _by_reader(ours)


def _new_refusal(theirs: Answer, ours: Answer) -> bool:
    return ours.status == 400 and _by_reader(ours)


def _old_404(theirs: Answer, ours: Answer) -> bool:
    return theirs.status == ours.status == 404 and ours.refusal == (5, "Not Found")


def _old_405(theirs: Answer, ours: Answer) -> bool:
    return theirs.status == 405 and ours.status == 501


def _old_redirect(theirs: Answer, ours: Answer) -> bool:
    return theirs.status == 301 and ours.status == 307


def _panic(theirs: Answer, ours: Answer) -> bool:
    return theirs.status == 0 and ours.status != 0


def _new_enum(theirs: Answer, ours: Answer) -> bool:
    refusal = theirs.refusal
    return refusal is not None and refusal[1].startswith("unknown value ")


def _new_base64(theirs: Answer, ours: Answer) -> bool:
    refusal = theirs.refusal
    return refusal is not None and refusal[1].startswith("illegal base64 data")


def _hash_kv(theirs: Answer, ours: Answer) -> bool:
    return theirs.status == 404 and bool(ours.values) and theirs.text == "Not Found\n"


def _more_status(theirs: Answer, ours: Answer) -> bool:
    new = ("storageVersion", "dbSizeQuota", "downgradeInfo")
    return _values_differ(theirs, ours, lambda value: [value.pop(name, None) for name in new])


def _stream_error(theirs: Answer, ours: Answer) -> bool:
    """A stream that fails: 3.5 tells HTTP's status too, and before the first message it answers as
    if it were no stream."""
    if not theirs.values or not ours.values or theirs.status not in (ours.status, 500):
        return False
    old, new = theirs.values[-1].get("error"), ours.values[-1].get("error")
    if not isinstance(new, dict) or theirs.values[:-1] != ours.values[:-1]:
        return False
    if isinstance(old, dict):  # a deadline may be Unknown there
        codes = (new["code"], 2)
        return old["grpc_code"] in codes and old["message"] == new["message"]
    return theirs.refusal == (new["code"], new["message"])


def _watch_of_the_past(theirs: Answer, ours: Answer) -> bool:
    reasons = [value.get("result", {}).get("cancel_reason") for value in ours.values]
    return "etcdserver: mvcc: required revision has been compacted" in reasons


def _old_stream_reader(theirs: Answer, ours: Answer) -> bool:
    return theirs.status == 500 and ours.status in (200, 504) and theirs.refusal is not None


def _root_role(theirs: Answer, ours: Answer) -> bool:
    permission = {"permType": "READWRITE", "range_end": "\0"}
    return bool(ours.values) and ours.values[0].get("perm") in (
        [permission],
        [{**permission, "range_end": "AA=="}],
    )


def _no_progress(theirs: Answer, ours: Answer) -> bool:
    return (
        any(value.get("result", {}).get("watch_id") == "-1" for value in theirs.values)
        and len(ours.values) == len(theirs.values) - 1
    )


def _auth_status(theirs: Answer, ours: Answer) -> bool:
    return theirs.status == 401 and bool(ours.values) and "authRevision" in ours.values[0]


def _permission_first(theirs: Answer, ours: Answer) -> bool:
    return ours.refusal == (3, "etcdserver: invalid auth management") and theirs.status == 400


def _values_differ(theirs: Answer, ours: Answer, leave_out: Callable[[Any], Any]) -> bool:
    """Whether nothing differs but what `leave_out` removes."""
    old, new = copy.deepcopy(theirs.values), copy.deepcopy(ours.values)
    for value in (*old, *new):
        leave_out(value)
    return theirs.status == ours.status and old == new


KNOWN: Final[dict[str, Callable[[Answer, Answer], bool]]] = {
    "a refusal's field `error` is gone": _old_error,
    "protojson's words for what it refuses": _old_reader,
    "protojson refuses what jsonpb took": _new_refusal,
    "an unknown path is refused in JSON": _old_404,
    "a wrong method is 501 in JSON": _old_405,
    "names that an enum does not have are passed over": _new_enum,
    "base64 in any alphabet, with or without padding": _new_base64,
    "HashKV has a path of its own": _hash_kv,
    "Status tells more": _more_status,
    "the end of a stream that failed": _stream_error,
    "a watch from a negative revision is refused": _watch_of_the_past,
    "a stream whose requests cannot be read ends by its deadline": _old_stream_reader,
    "the root role has its permissions": _root_role,
    "a request for progress without a watch is not answered": _no_progress,
    "AuthStatus needs no token": _auth_status,
    "permissions are looked at before their role": _permission_first,
    "3.5 drops the connection": _panic,
    "a path is redirected with 307": _old_redirect,
}


def known(theirs: Answer, ours: Answer) -> str | None:
    """The name of a difference between 3.5 and 3.7."""
    return next((name for name, rule in KNOWN.items() if rule(theirs, ours)), None)
