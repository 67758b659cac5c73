from keyraft.proto import rpc_pb2 as _rpc_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UsageRequest(_message.Message):
    __slots__ = ("prefix", "depth", "top", "interval_ms")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    depth: int
    top: int
    interval_ms: int
    def __init__(self, prefix: _Optional[bytes] = ..., depth: _Optional[int] = ..., top: _Optional[int] = ..., interval_ms: _Optional[int] = ...) -> None: ...

class PrefixUsage(_message.Message):
    __slots__ = ("prefix", "keys", "bytes", "history_bytes", "revisions", "writes_per_second")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    WRITES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    keys: int
    bytes: int
    history_bytes: int
    revisions: int
    writes_per_second: float
    def __init__(self, prefix: _Optional[bytes] = ..., keys: _Optional[int] = ..., bytes: _Optional[int] = ..., history_bytes: _Optional[int] = ..., revisions: _Optional[int] = ..., writes_per_second: _Optional[float] = ...) -> None: ...

class UsageResponse(_message.Message):
    __slots__ = ("header", "prefixes", "others", "total", "seconds")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    prefixes: _containers.RepeatedCompositeFieldContainer[PrefixUsage]
    others: PrefixUsage
    total: PrefixUsage
    seconds: float
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., prefixes: _Optional[_Iterable[_Union[PrefixUsage, _Mapping]]] = ..., others: _Optional[_Union[PrefixUsage, _Mapping]] = ..., total: _Optional[_Union[PrefixUsage, _Mapping]] = ..., seconds: _Optional[float] = ...) -> None: ...
