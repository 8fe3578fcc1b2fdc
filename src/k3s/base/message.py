"""What passes between the HTTP front and whoever answers: one request, and the kinds of answer."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
Header = tuple[str, str]
#: Begins the names of headers that tell as whom a client acts, one value a header.
IDENTITY_HEADERS = ("x-remote-", "impersonate-")


class PeerCertificate(NamedTuple):
    """What TLS verified about the client's certificate; `issuer` is the common name of the authority that signed it.

    `uids` are the user ids in its subject, `digest` is the SHA-256 of the whole certificate in hexadecimal digits.
    """

    common_name: str
    organizations: tuple[str, ...]
    issuer: str
    serial: str
    uids: tuple[str, ...] = ()
    digest: str = ""


# Holds a user's id in the subject of a certificate (KEP "client certificate UID"; Kubernetes' own number).
_UID = "1.3.6.1.4.1.57683.2"


def peer_certificate(parsed: Mapping[str, Any] | None, der: bytes = b"") -> PeerCertificate | None:
    """The certificate of `ssl.SSLObject.getpeercert()`, parsed and as bytes; None when the client sent none.

    Of several common names the last one counts, as upstream's library has it.
    """
    if not parsed:
        return None
    subject = [pair for relative in parsed.get("subject", ()) for pair in relative]
    issuer = [pair for relative in parsed.get("issuer", ()) for pair in relative]

    def values(pairs: list[tuple[str, str]], name: str) -> tuple[str, ...]:
        return tuple(value for key, value in pairs if key == name)

    return PeerCertificate(
        (values(subject, "commonName") or ("",))[-1],
        values(subject, "organizationName"),
        (values(issuer, "commonName") or ("",))[-1],
        str(parsed.get("serialNumber", "")),
        values(subject, _UID),
        hashlib.sha256(der).hexdigest() if der else "",
    )


class Request:
    """One request as it came in. Header names are lower case; repeated headers are joined with a comma, but those that
    tell of a user with a line feed, because a comma may be part of a group's name.

    `value` is the decoded body when the sender is in this process, so that nothing is encoded in between. `lines` are
    header lines, each with its end, that whoever answers adds to any answer of this request; `last` says that it is to
    be the connection's last one. `too_large` and `late`
    tell of a body that is not there because it is longer than allowed, or did not come in time. `source` is the address
    of the other end; `record` is what the audit log keeps of it, if anything; `warnings` are for the sender.
    """

    __slots__ = (
        "body",
        "headers",
        "last",
        "late",
        "lines",
        "method",
        "peer",
        "record",
        "source",
        "target",
        "too_large",
        "value",
        "warnings",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        peer: PeerCertificate | None = None,
        value: Any = None,
        too_large: bool = False,
        late: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.peer = peer
        self.value = value
        self.too_large = too_large
        self.late = late
        self.last = False
        self.lines = b""
        self.source = ""
        self.record: Any = None
        self.warnings: tuple[str, ...] = ()

    def remark(self, note: str, text: str, warning: str = "") -> None:
        """What the audit log is to be told of the sender's credentials, and the sender, too, with a warning."""
        if self.record is not None:
            self.record.notes[note] = text
        if warning:
            self.warnings += (warning,)


class Joined:
    """A long text as its parts and what stands between them: put together a piece at a time while it is sent, so that
    megabytes are neither copied nor in memory as a whole."""

    __slots__ = ("_between", "_parts", "_size")

    def __init__(self, between: bytes, parts: Sequence[bytes]) -> None:
        self._between = between
        self._parts = parts
        self._size = sum(map(len, parts)) + len(between) * (len(parts) - 1)

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return self._between.join(self._parts)

    def pieces(self, about: int) -> Iterator[bytes]:
        """The text in pieces of `about` so many bytes, of one part at least."""
        parts = self._parts
        together = max(about * len(parts) // self._size, 1)
        yield self._between.join(parts[:together])
        for at in range(together, len(parts), together):
            yield self._between.join((b"", *parts[at : at + together]))


class Response:
    """A complete answer. `value` is the object that `body` tells of, for a caller in this process."""

    __slots__ = ("body", "content_type", "headers", "status", "value")

    def __init__(
        self,
        status: int,
        body: bytes | Joined = b"",
        content_type: str = JSON,
        headers: tuple[Header, ...] = (),
        value: Any = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.value = value


def chunk(data: bytes) -> bytes:
    """A piece of a stream framed for chunked transfer; `data` is not empty, as an empty chunk ends the stream."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Sink(Protocol):
    """Where a stream writes to. `paused` means: the reader is slow, keep what you have and wait for `resumed`."""

    paused: bool

    def write(self, data: bytes) -> None:
        """Sends one piece at once."""

    def write_chunk(self, framed: bytes) -> None:
        """Sends at once what `chunk` has framed, so that one framing serves many streams."""

    def end(self) -> None:
        """Ends the stream in good order."""


class Source(Protocol):
    """What writes into a sink, from `start` until `stop` or until it ends the sink itself."""

    def start(self, sink: Sink) -> None:
        """Begins; may write at once."""

    def resumed(self) -> None:
        """The reader caught up."""

    def stop(self) -> None:
        """The reader is gone, or the server stops: write nothing any more."""


class Stream:
    """An answer without an end of its own: a watch."""

    __slots__ = ("content_type", "headers", "source", "status")

    def __init__(self, source: Source, content_type: str = JSON, headers: tuple[Header, ...] = ()) -> None:
        self.status = 200
        self.source = source
        self.content_type = content_type
        self.headers = headers


class Chunks:
    """An answer that comes in pieces from an iterator, as a log that is followed.

    `dropped` is called instead of iterating when the client went before the answer was there.
    """

    __slots__ = ("content_type", "dropped", "headers", "pieces", "status")

    def __init__(
        self,
        status: int,
        pieces: AsyncIterator[bytes],
        content_type: str = TEXT,
        headers: tuple[Header, ...] = (),
        dropped: Callable[[], None] | None = None,
    ) -> None:
        self.status = status
        self.dropped = dropped
        self.pieces = pieces
        self.content_type = content_type
        self.headers = headers


class Upgrade:
    """The handler takes over the raw connection: it is given the transport and the bytes that came after the request.

    It answers the client itself (status line included), sets its own protocol on the transport and owns it from then
    on. `dropped` is called in its place when the client went before the answer was there.
    """

    __slots__ = ("dropped", "handler")

    def __init__(
        self, handler: Callable[[Any, bytes], Awaitable[None]], dropped: Callable[[], None] | None = None
    ) -> None:
        self.handler = handler
        self.dropped = dropped


Answer = Response | Stream | Chunks | Upgrade
