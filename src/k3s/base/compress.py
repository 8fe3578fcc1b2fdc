"""Answers in gzip, for clients that ask for it: as upstream, only large ones, fast rather than small."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from k3s.base.aio import blocking
from k3s.base.message import Response

_GZIP_FRAME = 16 + zlib.MAX_WBITS
_ADDED = (("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))


@dataclass(frozen=True, slots=True)
class Compression:
    """Answers of more than `above` bytes are compressed, at zlib's level `level`.

    The defaults are upstream's (feature APIResponseCompression). The work is done on a thread, so that others are
    answered meanwhile.
    """

    above: int = 128 * 1024
    level: int = 1

    def wanted(self, headers: Mapping[str, str], answer: Response) -> bool:
        """Whether this answer is to be compressed for a client with these request headers."""
        if len(answer.body) <= self.above or not accepts_gzip(headers.get("accept-encoding", "")):
            return False
        return not any(name.lower() == "content-encoding" for name, _ in answer.headers)

    async def apply(self, answer: Response) -> Response:
        """The same answer, compressed."""
        body = await blocking(gzipped, bytes(answer.body), self.level)
        return Response(answer.status, body, answer.content_type, (*answer.headers, *_ADDED))


def accepts_gzip(accept: str) -> bool:
    """Whether an Accept-Encoding header names gzip and does not refuse it by quality 0."""
    if "gzip" not in accept:
        return False
    for clause in accept.split(","):
        name, *params = (part.strip().lower() for part in clause.split(";"))
        if name == "gzip":
            return not any(param.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for param in params)
    return False


def gzipped(data: bytes, level: int) -> bytes:
    """The data as one gzip member without a time stamp: the same data is the same bytes."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, _GZIP_FRAME)
    return deflate.compress(data) + deflate.flush()
