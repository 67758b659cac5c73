"""HTTP/1.1 (RFC 9112) for every port and for the calls between members.

`heads` and `chunks` know the grammar, `connection` is the server's end of one socket, `request` one
request on it, `client` the client's end. All limits on what a client may send, and how slowly, are
in `limits`.
"""

from .bodies import Body, BodyError
from .chunks import ChunkDecoder, ChunkError
from .client import Http1Client, HttpAnswer, HttpError, dial
from .connection import Http1Connection
from .limits import CLIENT_PORT, PEER_PORT, Http1Limits
from .phrases import HTTP_PHRASES
from .request import Http1Request
from .service import Http1Service

__all__ = [
    "CLIENT_PORT",
    "HTTP_PHRASES",
    "PEER_PORT",
    "Body",
    "BodyError",
    "ChunkDecoder",
    "ChunkError",
    "Http1Client",
    "Http1Connection",
    "Http1Limits",
    "Http1Request",
    "Http1Service",
    "HttpAnswer",
    "HttpError",
    "dial",
]
