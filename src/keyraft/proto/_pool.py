"""The package's own descriptor pool: our messages never collide with another etcd library's."""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool

_POOL = DescriptorPool()


def Default() -> DescriptorPool:
    """The pool that generated modules register in (named as protobuf's own function is)."""
    return _POOL
