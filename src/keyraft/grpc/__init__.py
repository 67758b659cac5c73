"""HTTP/2 and gRPC, fed bytes and returning bytes. Pure."""
