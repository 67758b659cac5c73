"""The audit log: who asked what of this member, and what came of it (docs/AUDIT.md).

`trail` and `outbox` are the member's side; `writer` runs in a process of its own, with `lines`,
`fields` and `files`. Nothing here is loaded without `--audit-log`.
"""
