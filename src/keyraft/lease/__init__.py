"""The lessor. Pure."""
