"""What etcdctl is told about TLS, by flags and by variables, and to which server: one without TLS, one
with it, one that demands certificates, and none."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_SETTLED: Final = ("--command-timeout=1s", "--dial-timeout=1s")


@dataclass(frozen=True, slots=True)
class Case:
    """A command line; {plain}, {secure}, {locked} and {dead} are endpoints, other braces files."""

    words: str
    variables: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join((*(f"{k}={v}" for k, v in self.variables.items()), self.words))


CASES: Final = (
    # Plain endpoints, whatever is said about TLS.
    Case("--endpoints={plain} get k"),
    Case("--endpoints=http://{plain} get k"),
    Case("--endpoints=http://{plain} --insecure-skip-tls-verify get k"),
    Case("--endpoints=http://{plain} --insecure-transport=false get k"),
    Case("--endpoints=http://{plain} --cacert={ca} get k"),
    Case("--endpoints=http://{plain} --cacert={ca} --cert={cert} --key={key} get k"),
    # A server with TLS.
    Case("--endpoints=https://{secure} --cacert={ca} get k"),
    Case("--endpoints={secure} --cacert={ca} get k"),
    Case("--endpoints={secure} --cacert={ca} --insecure-transport=false get k"),
    Case("--endpoints={secure} --insecure-skip-tls-verify --insecure-transport=false get k"),
    Case("--endpoints=https://{secure} --cacert={other} --insecure-skip-tls-verify get k"),
    # One that demands certificates.
    Case("--endpoints=https://{locked} --cacert={ca} --cert={cert} --key={key} get k"),
    Case("--endpoints=https://{locked} --cert={cert} --key={key} --insecure-skip-tls-verify get k"),
    # Files that are missing, empty, or something else.
    Case("--endpoints=https://{locked} --cacert={ca} --cert={cert} get k"),
    Case("--endpoints=https://{locked} --cacert={ca} --key={key} get k"),
    Case("--endpoints=https://{locked} --cacert={ca} --cert={cert} --key={none} get k"),
    Case("--endpoints=https://{locked} --cacert={ca} --cert={none} --key={key} get k"),
    Case("--endpoints=https://{locked} --cacert={none} --cert={cert} --key={key} get k"),
    Case("--endpoints=https://{locked} --cacert={none} --cert={none} --key={none} get k"),
    Case("--endpoints=https://{locked} --cacert={ca} --cert={cert} --key={wrong} get k"),
    Case("--endpoints=https://{locked} --cacert={ca} --cert={key} --key={cert} get k"),
    Case("--endpoints=https://{locked} --cacert={ca} --cert={text} --key={key} get k"),
    Case("--endpoints=https://{locked} --cacert={ca} --cert={cert} --key={text} get k"),
    Case("--endpoints=https://{locked} --cacert={key} --cert={cert} --key={key} get k"),
    Case("--endpoints=https://{locked} --cacert={ca} --cert={void} --key={void} get k"),
    Case("--endpoints=https://{locked} --cacert={folder} --cert={cert} --key={key} get k"),
    Case("--endpoints=https://{locked} --cacert={ca} --cert={folder} --key={key} get k"),
    Case("--endpoints=http://{plain} --cacert={none} get k"),
    Case("--endpoints=http://{plain} --cert={none} --key={none} get k"),
    Case("--endpoints=https://{locked} --cacert= get k"),
    Case("--endpoints=https://{locked} --cert= get k"),
    Case("--endpoints=https://{locked} --key= get k"),
    Case("--endpoints=https://{locked} --cert= --key= --cacert= get k"),
    # Users, whose token is fetched first.
    Case("--endpoints=https://{locked} --cacert={none} --user=a:b get k"),
    # Other commands that dial.
    Case("--endpoints=https://{secure} --cacert={ca} endpoint health"),
    Case("--endpoints=https://{locked} --cacert={ca} --cert={cert} endpoint health"),
    Case("--endpoints=https://{locked} --cacert={none} endpoint health"),
    Case("--endpoints=https://{locked} --cacert={none} member list"),
    Case("--endpoints=https://{locked} --cacert={none} put k v"),
    Case("--endpoints=https://{locked} --cacert={none} lease grant 10"),
    # The same by variables; a flag wins.
    Case("--endpoints=https://{secure} get k", {"ETCDCTL_CACERT": "{ca}"}),
    Case("--cacert={ca} get k", {"ETCDCTL_ENDPOINTS": "https://{secure}"}),
    Case("--endpoints=https://{secure} --cacert={ca} get k", {"ETCDCTL_CACERT": "{none}"}),
    Case("--endpoints=https://{secure} --cacert={none} get k", {"ETCDCTL_CACERT": "{ca}"}),
    Case(
        "get k",
        {
            "ETCDCTL_ENDPOINTS": "https://{locked}",
            "ETCDCTL_CACERT": "{ca}",
            "ETCDCTL_CERT": "{cert}",
            "ETCDCTL_KEY": "{key}",
        },
    ),
    Case("--endpoints=https://{locked} get k", {"ETCDCTL_CERT": "{cert}"}),
    Case("--endpoints=https://{locked} get k", {"ETCDCTL_KEY": "{key}"}),
)

UNVERIFIED: Final = (
    Case("--endpoints=https://{secure} --insecure-skip-tls-verify get k"),
    Case("--endpoints={secure} --insecure-skip-tls-verify get k"),
    Case("--endpoints=https://{secure} get k", {"ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "true"}),
)
"""The original 3.5.1 verifies the server all the same."""

PATIENT: Final = (
    Case("--endpoints={plain} --cacert={ca} get k"),
    Case("--endpoints={plain} --insecure-transport=false get k"),
    Case("--endpoints=https://{plain} get k"),
    Case("--endpoints=http://{secure} --cacert={ca} get k"),
    Case("--endpoints=https://{secure} get k"),
    Case("--endpoints=https://{secure} --insecure-transport get k"),
    Case("--endpoints=https://{secure} --insecure-transport=false get k"),
    Case("--endpoints=https://{secure} --cacert={other} get k"),
    Case("--endpoints=https://{dead} --cacert={ca} get k"),
    Case("--endpoints=https://{dead} --cacert={ca} --insecure-skip-tls-verify get k"),
    Case("--endpoints={secure} get k"),
    Case("--endpoints=https://{locked} --cacert={ca} get k"),
    Case("--endpoints=https://{locked} --cert={cert} --key={key} get k"),
    Case("--endpoints=https://{locked} --cacert={text} --cert={cert} --key={key} get k"),
    Case("--endpoints=https://{locked} --cacert={void} --cert={cert} --key={key} get k"),
    Case("--endpoints=https://{secure} --cacert={other} --user=a:b get k"),
    Case("--endpoints=https://{locked} --cacert={ca} --user=a:b get k"),
    Case("--endpoints=https://{secure} --cacert={other} endpoint health"),
    Case("--endpoints=https://{locked} --cacert={ca} endpoint status"),
    Case("--endpoints=https://{secure} get k", {"ETCDCTL_CACERT": ""}),
    Case("--endpoints=https://{secure} get k", {"ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "maybe"}),
    Case("--endpoints=https://{secure} get k", {"ETCDCTL_INSECURE_TRANSPORT": "false"}),
    Case("--endpoints=https://{secure} get k", {"ETCDCTL_INSECURE_TRANSPORT": "maybe"}),
    Case("--endpoints=https://{locked} get k", {"ETCDCTL_CERT": "", "ETCDCTL_KEY": ""}),
    Case("--endpoints=https://{locked} get k", {"ETCDCTL_CA_FILE": "{ca}"}),
)
"""Those that get no connection, and wait until their time is over."""


def arguments(case: Case, places: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The words and the variables, with endpoints and files in them."""
    words = [*_SETTLED, *(word.format(**places) for word in case.words.split(" "))]
    return words, {name: value.format(**places) for name, value in case.variables.items()}


_MASKS: Final = (
    (re.compile(r'"ts":"[^"]*"'), '"ts":"T"'),
    (re.compile(r'"caller":"[^"]*"'), '"caller":"C"'),
    (re.compile(r',"stacktrace":"[^"]*"'), ""),
    (re.compile(r'("environment-variable":"\w+)=[^"]*"'), r'\1"'),
    # Go guesses why an authority of the same name is another.
    (re.compile(r" \(possibly because of .*?authority certificate .*?\)"), ""),
    (re.compile(r"(error reading server preface: )(EOF|connection reset by peer)"), r"\1cut off"),
    # Whether the alert is read before the write fails is chance.
    (
        re.compile(
            r"connection error: desc = .{1,3}error reading server preface: remote error: tls: certificate required.{1,2}(?=\")"
        ),
        "cut off",
    ),
    (
        re.compile(
            r"write tcp 127\.0\.0\.1:\d+->\S+: write: (broken pipe|connection reset by peer)"
        ),
        "cut off",
    ),
    (re.compile(r'"logger":"[^"]*",'), ""),
    (re.compile(r"etcd-endpoints://0x[0-9a-f]+"), "etcd-endpoints://0x0"),
    (re.compile(r"took = [0-9.]+\w+"), "took = D"),
    (re.compile(r"127\.0\.0\.1:\d+->"), "127.0.0.1:P->"),
    (re.compile(r"\b[0-9a-f]{15,16}\b"), "ID"),
)


def normal(text: str, places: dict[str, str]) -> str:
    """What is printed, without what differs from run to run."""
    for name, place in sorted(places.items(), key=lambda each: -len(each[1])):
        text = text.replace(place, "{" + name + "}")
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text


def write_files(folder: Path) -> dict[str, str]:
    """Files that are none of what they are given for."""
    made = {name: folder / name for name in ("none", "text", "void", "folder")}
    made["text"].write_text("no certificate\n")
    made["void"].write_text("")
    made["folder"].mkdir()
    return {name: str(path) for name, path in made.items()}
