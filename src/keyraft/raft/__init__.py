"""The consensus core. Pure.

`types` are the values, `codec` their bytes; `RawNode` is one member's Raft.
"""
