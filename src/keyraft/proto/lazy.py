"""The messages for those who import them long before they make one.

The classes cost a fifth of what importing the client does, protobuf's own modules most of it. Who
takes a module's name from here pays when it first asks the module for something.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyraft.proto import auth_pb2 as auth_pb2
    from keyraft.proto import mvcc_pb2 as mvcc_pb2
    from keyraft.proto import rpc_pb2 as rpc_pb2
else:

    class _LazyModule(ModuleType):
        """A module that is imported when something is first asked of it."""

        def __getattr__(self, name: str) -> Any:
            module = importlib.import_module(self.__name__)
            self.__dict__.update(module.__dict__)
            return getattr(module, name)

    auth_pb2 = _LazyModule("keyraft.proto.auth_pb2")
    mvcc_pb2 = _LazyModule("keyraft.proto.mvcc_pb2")
    rpc_pb2 = _LazyModule("keyraft.proto.rpc_pb2")
