"""Keyraft and the original by turns on one machine, in one run (`make bench`)."""
