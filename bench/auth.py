"""What users cost: puts and ranges without them, with simple tokens and with JWTs, by turns.

    python -m bench.auth [--turns 2] [--requests 40000]

A user may read and write the prefix that the key is under, so a permission is looked up for every
request, and every request shows a token. Beside the rates stands how many tokens a second one
client is given, which is what a password costs (`--bcrypt-cost` as by default).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.loads import PUT, RANGE, h2load, put_request, range_request
from bench.medians import Medians
from bench.servers import ORIGINAL, OURS, Server
from keyraft.client.sync import Client

CONNECTIONS: Final = 20
STREAMS: Final = 50
VALUE_BYTES: Final = 256
RSA_BITS: Final = 2_048
LOGINS: Final = 20
WARM_UP: Final = 3_000
Rows = dict[str, float]


def token_flags(folder: Path) -> dict[str, str]:
    """`--auth-token` for both kinds; the keys are new."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=RSA_BITS)
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    jwt = f"jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=10m"
    return {"simple": "simple", "JWT": jwt}


def rates(server: Server, requests: int, name: str, token: str) -> Rows:
    """Puts and linearizable ranges a second."""
    put, get = put_request(VALUE_BYTES), range_request(serializable=False)
    h2load(server.endpoint, PUT, put, WARM_UP, CONNECTIONS, STREAMS, token)
    return {
        f"{label}, {name} (1/s)": h2load(
            server.endpoint, path, request, requests, CONNECTIONS, STREAMS, token
        )[0]
        for label, path, request in (("put", PUT, put), ("range", RANGE, get))
    }


def enable(server: Server) -> None:
    """Root, and a user who may do what the load does."""
    with Client(server.endpoint) as client:
        client.auth.user_add("root", "pw")
        client.auth.user_grant_role("root", "root")
        client.auth.role_add("bench")
        client.auth.role_grant("bench", "readwrite", "bench", prefix=True)
        client.auth.user_add("user", "pw")
        client.auth.user_grant_role("user", "bench")
        client.auth.enable()


def logins(server: Server) -> tuple[str, float]:
    """The user's newest token, and how many of them one client is given in a second."""
    with Client(server.endpoint) as client:
        begin_s = time.perf_counter()
        for _ in range(LOGINS):
            token = client.auth.authenticate("user", "pw").token
        return token, LOGINS / (time.perf_counter() - begin_s)


def measure(label: str, command: tuple[str, ...], kind: str, flag: str, requests: int) -> Rows:
    """One life of one server: without users, then with them."""
    with Server(label, command, None, (f"--auth-token={flag}",)) as server:
        server.start()
        rows = rates(server, requests, f"no users, beside {kind}", "")
        enable(server)
        token, per_s = logins(server)
        rows |= rates(server, requests, f"{kind} token", token)
        rows[f"{kind} tokens given (1/s)"] = per_s
        server.stop()
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.auth")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--requests", type=int, default=40_000)
    options = parser.parse_args()
    medians = Medians()
    with tempfile.TemporaryDirectory() as folder:
        for kind, flag in token_flags(Path(folder)).items():
            for _ in range(options.turns):
                for label, command in (("etcd", ORIGINAL), ("keyraft", OURS)):
                    medians.add(label, measure(label, command, kind, flag, options.requests))
    medians.show()


if __name__ == "__main__":
    main()
