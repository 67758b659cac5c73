"""The JSON gateway: etcd's methods as JSON over HTTP/1.1, HTTP/2 and websockets.

A request becomes the same bytes that a gRPC client would have sent, and is given to the same router;
nothing here knows what a method means. `fields` has a table for each message, made from its
descriptor; `encoding` and `decoding` go by it. `scanner` and `protojson` are the slow, exact readers,
which also find the words for what is wrong.

Sources: grpc-gateway 2.29 (`runtime/`), protobuf-go 1.36 (`encoding/protojson`), Go's
`encoding/json` (`scanner.go`), which etcd 3.7 is built with.
"""

from keyraft.gateway.json.gateway import JsonGateway

__all__ = ["JsonGateway"]
