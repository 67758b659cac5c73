"""Limits that more than one folder knows, with units and sources (etcd's flags and constants)."""

from __future__ import annotations

from typing import Final

REQUEST_BYTES_MAX: Final = 1_572_864  # --max-request-bytes: one proposal
GRPC_OVERHEAD_BYTES: Final = 524_288  # what a gRPC message may exceed a proposal by
TXN_OPS_MAX: Final = 128  # --max-txn-ops
QUOTA_BACKEND_BYTES: Final = 2_147_483_648  # --quota-backend-bytes
APPLY_GAP_ENTRIES_MAX: Final = 5_000  # committed - applied above this: too many requests
SNAPSHOT_COUNT: Final = 10_000  # --snapshot-count, entries
SNAPSHOT_CATCHUP_ENTRIES: Final = 5_000  # entries kept in memory behind a snapshot
BACKEND_BATCH_INTERVAL_S: Final = 0.1
BACKEND_BATCH_OPS: Final = 10_000
PREFIX_LIMITS: Final = b"\0keyraft/limit/"  # the keys that keep the limits of prefixes
LOOP_SLICE_S: Final = 0.005  # no piece of work holds the loop for longer
