"""Answers in gzip, for clients that ask for it: as upstream, only large ones, fast rather than small."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping

from k3s.base.aio import threaded
from k3s.base.message import Response

_GZIP_FRAME = 16 + zlib.MAX_WBITS
_ADDED = (("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))


_SHARED, _SHARED_S = 8, 1.0


class Compression:
    """Answers of more than `above` bytes are compressed, at zlib's level `level`.

    The defaults are upstream's (feature APIResponseCompression). The work is done on a thread, so that others are
    answered meanwhile. Many who ask for the same at about the same time, as after a restart, share the work.
    """

    def __init__(self, above: int = 128 * 1024, level: int = 1) -> None:
        self.above = above
        self.level = level
        #: How many bodies were compressed.
        self.done = 0
        self._shared: list[tuple[bytes, asyncio.Future[bytes]]] = []

    def wanted(self, headers: Mapping[str, str], answer: Response) -> bool:
        """Whether this answer is to be compressed for a client with these request headers."""
        if len(answer.body) <= self.above or not accepts_gzip(headers.get("accept-encoding", "")):
            return False
        return not any(name.lower() == "content-encoding" for name, _ in answer.headers)

    async def apply(self, answer: Response) -> Response:
        """The same answer, compressed."""
        # Whoever is first may go away meanwhile; the others are given the work all the same.
        body = await asyncio.shield(self._work(bytes(answer.body)))
        return Response(answer.status, body, answer.content_type, (*answer.headers, *_ADDED))

    def _work(self, body: bytes) -> asyncio.Future[bytes]:
        for known, work in self._shared:
            if known == body:
                return work
        self.done += 1
        work = threaded(gzipped, body, self.level)
        if len(self._shared) < _SHARED:
            entry = (body, work)
            self._shared.append(entry)
            loop = asyncio.get_running_loop()
            work.add_done_callback(lambda _: loop.call_later(_SHARED_S, self._shared.remove, entry))
        return work


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
