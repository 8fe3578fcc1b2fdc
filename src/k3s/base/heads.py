"""The first bytes of answers: what repeats is made once, what moves (date, audit id) is filled in."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.base.message import TEXT, Header

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_NO_CACHE = b"Cache-Control: no-cache, private\r\n"
# As Go's server: no header's value can start another header.
_ONE_LINE = str.maketrans("\r\n", "  ")
# Ids of clients come back to them; none needs more than this.
_MAX_AUDIT_ID = 64


class Heads:
    """Answers' heads, kept by status and content type; date and audit ids change.

    With `entropy`, every answer has an Audit-Id: the client's own, or a UUID whose last twelve digits count from a
    random number, because a random UUID for each answer would cost a tenth of a GET.
    """

    def __init__(self, clock: Clock, entropy: Entropy | None = None) -> None:
        self._clock = clock
        self._second = 0
        self._date = b""
        self._heads: dict[tuple[int, str], bytes] = {}
        self._audit = b""
        self._number = 0
        self._dated = b""
        if entropy is not None:
            uid = entropy.uid()
            self._number = int(uid[24:], 16) >> 1
            self._audit = f"Audit-Id: {uid[:24]}%012x\r\n".encode()

    def get(self, status: int, content_type: str, headers: tuple[Header, ...], audit: str | None = None) -> bytes:
        """Status line and headers, without those of the body's length and without the empty line.

        `audit` is the id that the client gave.
        """
        head = self._heads.get((status, content_type))
        if head is None:
            head = self._heads[(status, content_type)] = _start(status, content_type)
        if headers and any(name == "Cache-Control" for name, _ in headers):
            head = head.replace(_NO_CACHE, b"", 1)
        second = int(self._clock.now())
        if second != self._second:
            self._second = second
            self._date = f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
            self._dated = self._date + self._audit
        if not self._audit:
            head += self._date
        elif audit is None:
            self._number += 1
            head += self._dated % self._number
        else:
            head += self._date + f"Audit-Id: {audit[:_MAX_AUDIT_ID]}\r\n".encode("latin-1", "replace")
        return head + _lines(headers) if headers else head


def _start(status: int, content_type: str) -> bytes:
    kind = f"Content-Type: {content_type.translate(_ONE_LINE)}\r\n" if content_type else ""
    text = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}\r\nCache-Control: no-cache, private\r\n{kind}"
    if content_type == TEXT:
        text += "X-Content-Type-Options: nosniff\r\n"
    return text.encode("latin-1", "replace")


def _lines(headers: tuple[Header, ...]) -> bytes:
    text = "".join(f"{name}: {value.translate(_ONE_LINE)}\r\n" for name, value in headers)
    return text.encode("latin-1", "replace")
