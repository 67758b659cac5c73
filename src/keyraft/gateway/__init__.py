"""The services over JSON and HTTP/1.1."""
