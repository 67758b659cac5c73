"""What every member runs around its deterministic core, real or simulated: start, durable log.

Files, loop and clock are handed in.
"""
