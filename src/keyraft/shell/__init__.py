"""What every member runs around its deterministic core, in life as in the simulator: the first
words and the last ones, the durable log. The world (files, loop, clock) is handed in."""
