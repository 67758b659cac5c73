"""Generates `src/keyraft/proto/*_pb2.py` and their stubs from the `.proto` sources (`make gen`).

The generated modules are changed in three ways: they import each other from inside the package;
they register in the package's own descriptor pool, so that a program may import Keyraft's client
beside another etcd library whose messages bear the same names; and their classes are made by the
package's own builder, which is imported faster than protobuf's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent.parent / "src" / "keyraft" / "proto"


def generate(out: Path) -> None:
    """Writes every module and stub into `out`; raises RuntimeError when protoc refuses."""
    sources = sorted(str(path.name) for path in PROTO.glob("*.proto"))
    include = str(Path(grpc_tools.__file__).parent / "_proto")
    code = protoc.main(
        [
            "protoc",
            f"-I{PROTO}",
            f"-I{include}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            *sources,
        ]
    )
    if code != 0:
        raise RuntimeError(f"protoc ended with {code}")
    for path in [*out.glob("*_pb2.py"), *out.glob("*_pb2.pyi")]:
        text = path.read_text()
        text = re.sub(
            r"^import (\w+)_pb2 as ", r"from keyraft.proto import \1_pb2 as ", text, flags=re.M
        )
        text = text.replace(
            "from google.protobuf import descriptor_pool as _descriptor_pool\n",
            "from keyraft.proto import _pool as _descriptor_pool\n",
        )
        text = text.replace(
            "from google.protobuf.internal import builder as _builder\n",
            "from keyraft.proto import _builder\n",
        )
        text = text.replace("from google.protobuf import symbol_database as _symbol_database\n", "")
        text = text.replace("_sym_db = _symbol_database.Default()\n", "")
        path.write_text(text)


def main() -> None:
    """Generates in place; with --check only compares and exits 1 when something is stale."""
    with TemporaryDirectory() as folder:
        out = Path(folder)
        generate(out)
        stale = []
        for path in sorted(out.iterdir()):
            target = PROTO / path.name
            if not target.exists() or target.read_bytes() != path.read_bytes():
                stale.append(path.name)
                if "--check" not in sys.argv:
                    target.write_bytes(path.read_bytes())
        print("stale: " + " ".join(stale) if stale else "generated code is current")
        if stale and "--check" in sys.argv:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
