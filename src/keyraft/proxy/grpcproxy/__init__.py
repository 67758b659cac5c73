"""`etcd grpc-proxy`: a proxy that understands gRPC, in front of a cluster.

Many clients' watches, renewals and reads become few for the cluster (docs/ARCHITECTURE.md, "The
gRPC proxy").
"""

from keyraft.proxy.grpcproxy.options import OptionError, ProxyOptions
from keyraft.proxy.grpcproxy.run import GrpcProxy, run_proxy

__all__ = ["GrpcProxy", "OptionError", "ProxyOptions", "run_proxy"]
