"""No secret in a log at any level, in an error, in an answer to anybody else; no file for others.

A member at debug level, which tells of every request, and with umask 0; a tool at debug level.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from keyraft.client import Client, errors
from keyraft.net import Http1Client
from tests.support.programs import OURS
from tests.support.server import Server, environment

pytestmark = pytest.mark.real

PASSWORD = "sesame-open-9f3b"
WRONG = "sesame-shut-77aa"
NEW = "sesame-moved-21cd"
VALUE = "value-of-a-secret-5e0e"
IN_ENVIRONMENT = "from-the-environment-ab12"
LOGGED = ("--log-level=debug", "--warning-unary-request-duration=1ns")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keys")
    key = rsa.generate_private_key(65_537, 2048)
    (place / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (place / "pub.pem").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return place


@pytest.fixture(params=["simple", "jwt"])
def member(request: pytest.FixtureRequest, tmp_path: Path, keys: Path) -> Iterator[Server]:
    flags = [*LOGGED, f"--data-dir={tmp_path / 'data'}", f"--audit-log={tmp_path / 'audit'}"]
    if request.param == "jwt":
        flags.append(
            f"--auth-token=jwt,pub-key={keys / 'pub.pem'},priv-key={keys / 'key.pem'},"
            "sign-method=RS256,ttl=5m"
        )
    variables = f"ETCD_ROOT_PASSWORD={IN_ENVIRONMENT}"
    server = Server(
        OURS, tmp_path / "data", flags=flags, prefix=("env", variables, "sh", "-c", UMASK, "sh")
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


UMASK = 'umask 0; exec "$@"'


async def use(member: Server) -> tuple[set[str], list[str]]:
    """Does everything that has to do with a secret: (the secrets, what was said of it)."""
    secrets = {PASSWORD, WRONG, NEW, VALUE, IN_ENVIRONMENT}
    said: list[str] = []
    async with Client(member.endpoint) as client:
        for name in ("root", "alice"):
            await client.auth.user_add(name, PASSWORD)
        await client.auth.role_add("root")
        await client.auth.user_grant_role("root", "root")
        await client.auth.enable()
    async with Client(member.endpoint, user="root", password=PASSWORD) as root:
        await root.put("k", VALUE)
        await root.get("k")
        await root.auth.user_change_password("alice", NEW)
        token = (await root.auth.authenticate("root", PASSWORD)).token
        secrets.add(token.partition(".")[0] if token.count(".") == 1 else token)
        async with root.watch("k") as watch:
            await root.put("k", VALUE + "2")
            async for _ in watch:
                break
    refused = [
        Client(member.endpoint, user="alice", password=WRONG),
        Client(member.endpoint, user=WRONG, password=PASSWORD),
        Client(member.endpoint, token=token[:-2] + "xx"),
        Client(member.endpoint, user="alice", password=NEW),
    ]
    for client in refused:
        async with client:
            with pytest.raises(errors.EtcdError) as failed:
                await client.put("k", VALUE)
            said.append(f"{failed.value!s} {failed.value!r}")
    secrets.discard(WRONG)  # it is a name, too, above
    http = Http1Client()
    peer = f"http://127.0.0.1:{member.peer_port}"
    for url, path, headers in (
        (f"http://{member.endpoint}", "/metrics", {}),
        (f"http://{member.endpoint}", "/health", {"Authorization": token}),
        (peer, "/members/promote/7", {"Authorization": token}),
        (peer, "/members/promote/7", {"Authorization": PASSWORD}),
    ):
        method = "POST" if "promote" in path else "GET"
        answer = await http.request(method, url, path, headers=headers, answer_bytes_max=1 << 22)
        said.append(answer.body.decode())
    login = {"name": "root", "password": NEW}
    for path, asked, headers in (
        ("/v3/auth/authenticate", login, {}),
        ("/v3/auth/authenticate", {"name": "root", "password": [NEW]}, {}),
        ("/v3/kv/range", {"key": "aw==", "limit": NEW}, {"Authorization": token[:-2] + "xx"}),
        ("/v3/kv/range", {"key": "aw=="}, {"Authorization": f"Bearer {PASSWORD}"}),
    ):
        answer = await http.request(
            "POST",
            f"http://{member.endpoint}",
            path,
            headers=headers,
            body=json.dumps(asked).encode(),
        )
        assert answer.status >= 400
        if "range" not in path:  # a field that cannot be read is quoted to who sent it
            said.append(answer.body.decode())
    http.close()
    return secrets, said


def tool(member: Server, *words: str) -> str:
    """What our etcdctl says at debug level."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "keyraft.cli.etcdctl",
            "--debug",
            f"--endpoints={member.endpoint}",
            *words,
        ],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_no_secret_is_told_and_no_file_is_for_others(
    member: Server, keys: Path, request: pytest.FixtureRequest
) -> None:
    secrets, said = asyncio.run(use(member))
    if request.node.callspec.params["member"] == "simple":
        said.append(tool(member, f"--user=root:{PASSWORD}x", "user", "list"))
        said.append(tool(member, "--user=alice", f"--password={NEW}", "put", "k", "other"))
        assert "permission denied" in said[-1]
    member.stop()
    log = member.log
    assert '"level":"debug"' in log and "request stats" in log
    audit = member.data_dir.with_name("audit")
    audited = audit.read_text()
    for method in ("KV/Put", "Auth/Authenticate", "Auth/UserChangePassword", "Watch/Watch"):
        assert method in audited
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600
    secrets |= set((keys / "key.pem").read_text().splitlines()[1:-1])
    for secret in secrets:
        assert secret not in log, re.findall(f".*{re.escape(secret)}.*", log)[:2]
        assert secret not in audited, re.findall(f".*{re.escape(secret)}.*", audited)[:2]
        assert not [text for text in said if secret in text], secret
    assert "ETCD_ROOT_PASSWORD" in log
    for place, directories, files in os.walk(member.data_dir):
        for name in [*directories, *files]:
            mode = (Path(place) / name).stat().st_mode
            wanted = 0o700 if stat.S_ISDIR(mode) else 0o600
            assert stat.S_IMODE(mode) == wanted, (place, name, oct(mode))
    assert stat.S_IMODE(member.data_dir.stat().st_mode) == 0o700
