"""etcd's messages: our `.proto` sources and the code generated from them (`make gen`).

Import the modules (`from keyraft.proto import rpc_pb2`); they register in a descriptor pool of
their own, so another etcd library may live in the same process.
"""
