"""The proxies."""
