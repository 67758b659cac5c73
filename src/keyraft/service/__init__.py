"""The gRPC services, registered on a router."""
