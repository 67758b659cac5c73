"""The package's own descriptor pool: our messages never collide with another etcd library's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.internal import api_implementation

if TYPE_CHECKING or api_implementation.Type() != "upb":
    from google.protobuf.descriptor_pool import DescriptorPool
else:
    # What the module above hands out, too, after it has imported much that we do not need.
    from google._upb._message import DescriptorPool

_POOL = DescriptorPool()


def Default() -> DescriptorPool:
    """The pool that generated modules register in (named as protobuf's own function is)."""
    return _POOL
