"""bbolt's file format: a reader, its consistency check, and a bulk writer (format.py)."""

from keyraft.storage.bolt.check import Visitor, check, free_pages
from keyraft.storage.bolt.format import PAGE_BYTES, BoltError, Meta
from keyraft.storage.bolt.reader import BoltFile, Bucket, Leaf
from keyraft.storage.bolt.update import Update
from keyraft.storage.bolt.writer import Buckets, measure, write_file, write_stream

__all__ = [
    "PAGE_BYTES",
    "BoltError",
    "BoltFile",
    "Bucket",
    "Buckets",
    "Leaf",
    "Meta",
    "Update",
    "Visitor",
    "check",
    "free_pages",
    "measure",
    "write_file",
    "write_stream",
]
