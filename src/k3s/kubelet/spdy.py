"""SPDY/3.1 frames, without any I/O: bytes in, events out; verbs in, bytes out.

kubectl up to 1.29 speaks it for exec, attach and port-forward, and it is what container runtimes serve streams with.
Source: the SPDY protocol, draft 3.1. Flow control is left out, as runtimes and kubectl leave it out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 1, 2, 3, 4, 6, 7
_FIN = 0x01
_CONTROL = 0x80000000
_VERSION = 3
_HEAD = struct.Struct(">II")
_WORD = struct.Struct(">I")

# Larger frames than this come from no client of ours: a peer that sends one is refused, not buffered.
_MAX_FRAME = 4 * 1024 * 1024
_MAX_HEADERS = 64 * 1024

# The words with which both sides prime their header compression (draft 3.1, section 2.6.10.1).
_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age "
    "allow authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_MORE = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(_WORD.pack(len(word)) + word.encode() for word in (*_NAMES.split(), *_MORE)) + _REST.encode()


class ProtocolError(Exception):
    """The peer sent what no SPDY/3.1 peer sends; the connection is of no further use."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a stream."""

    stream: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Replied:
    """The peer accepted a stream of ours."""

    stream: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; `end`: the peer sends no more on it."""

    stream: int
    data: bytes
    end: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer gave a stream up."""

    stream: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer ends the session."""


Event = Opened | Replied | Data | Reset | GoAway


class Session:
    """One side of a session. `client` decides which stream numbers are its own."""

    def __init__(self, *, client: bool) -> None:
        self._next = 1 if client else 2
        self._buffer = bytearray()
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._answers = bytearray()

    # -- sending

    def open(self, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """A new stream: its number and the frame that opens it."""
        stream = self._next
        self._next += 2
        body = struct.pack(">IIH", stream, 0, 0) + self._packed(headers)
        return stream, _control(_SYN_STREAM, 0, body)

    def reply(self, stream: int) -> bytes:
        """The frame that accepts a stream of the peer."""
        return _control(_SYN_REPLY, 0, _WORD.pack(stream) + self._packed({}))

    @staticmethod
    def data(stream: int, data: bytes, *, end: bool = False) -> bytes:
        """The frame that carries bytes; `end`: nothing more is sent on this stream."""
        return _HEAD.pack(stream, (_FIN if end else 0) << 24 | len(data)) + data

    @staticmethod
    def reset(stream: int) -> bytes:
        """The frame that gives a stream up (status CANCEL)."""
        return _control(_RST_STREAM, 0, struct.pack(">II", stream, 5))

    def answers(self) -> bytes:
        """What has to be sent to the peer on its own account (replies to pings); empties itself."""
        answers, self._answers = bytes(self._answers), bytearray()
        return answers

    # -- receiving

    def receive(self, data: bytes) -> list[Event]:
        """The events of the frames that are whole with `data`. Raises ProtocolError."""
        self._buffer += data
        events: list[Event] = []
        while len(self._buffer) >= _HEAD.size:
            first, second = _HEAD.unpack_from(self._buffer)
            length = second & 0xFFFFFF
            if length > _MAX_FRAME:
                raise ProtocolError(f"a frame of {length} bytes is too large")
            if len(self._buffer) < _HEAD.size + length:
                break
            body = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
            del self._buffer[: _HEAD.size + length]
            events += self._frame(first, second >> 24, body)
        return events

    def _frame(self, first: int, flags: int, body: bytes) -> list[Event]:
        if not first & _CONTROL:
            return [Data(first, body, bool(flags & _FIN))]
        if first >> 16 & 0x7FFF != _VERSION:
            raise ProtocolError(f"version {first >> 16 & 0x7FFF} is not 3")
        kind = first & 0xFFFF
        try:
            return self._control_frame(kind, flags, body)
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise ProtocolError(f"a frame of type {kind} is malformed: {error}") from error

    def _control_frame(self, kind: int, flags: int, body: bytes) -> list[Event]:
        if kind == _SYN_STREAM:
            stream = _WORD.unpack_from(body)[0] & 0x7FFFFFFF
            opened: list[Event] = [Opened(stream, self._unpacked(body[10:]))]
            return [*opened, Data(stream, b"", True)] if flags & _FIN else opened
        if kind == _SYN_REPLY:
            stream = _WORD.unpack_from(body)[0] & 0x7FFFFFFF
            self._unpacked(body[4:])
            return [Replied(stream), Data(stream, b"", True)] if flags & _FIN else [Replied(stream)]
        if kind == _RST_STREAM:
            return [Reset(_WORD.unpack_from(body)[0] & 0x7FFFFFFF)]
        if kind == _PING:
            self._answers += _control(_PING, 0, body[:4])
        return [GoAway()] if kind == _GOAWAY else []

    def _packed(self, headers: Mapping[str, str]) -> bytes:
        block = _WORD.pack(len(headers))
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                block += _WORD.pack(len(text)) + text
        return self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def _unpacked(self, block: bytes) -> dict[str, str]:
        data = self._inflate.decompress(block, _MAX_HEADERS)
        if self._inflate.unconsumed_tail:
            raise ProtocolError("headers are too large")
        texts: list[str] = []
        count = _WORD.unpack_from(data)[0]
        position = _WORD.size
        for _ in range(2 * min(count, _MAX_HEADERS)):
            length = _WORD.unpack_from(data, position)[0]
            position += _WORD.size
            if position + length > len(data):
                raise ProtocolError("a header is cut short")
            texts.append(data[position : position + length].decode())
            position += length
        return dict(zip(texts[::2], texts[1::2], strict=True))


def _control(kind: int, flags: int, body: bytes) -> bytes:
    return _HEAD.pack(_CONTROL | _VERSION << 16 | kind, flags << 24 | len(body)) + body
