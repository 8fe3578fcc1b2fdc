"""DNS messages as bytes (RFC 1035, EDNS0 from RFC 6891): read a query, write a reply, take an upstream reply apart.

Names are kept in wire form and lower case, which makes them ready as keys and as parts of a reply. Whatever bytes come,
reading ends with a value or a WireError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT, AXFR, ANY = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 252, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE = 0x7800
DO = 0x8000

# What fits every path without fragments (DNS flag day 2020), and what a client without EDNS takes.
PAYLOAD = 1232
PLAIN_PAYLOAD = 512
LONGEST = 65535

HEADER = struct.Struct("!6H")
_TYPE_CLASS = struct.Struct("!2H")
_RECORD = struct.Struct("!2HIH")
_SHORT = struct.Struct("!H")
_LONG = struct.Struct("!I")
_MOST_LABELS = 128
_POINTER = 0xC0


class WireError(ValueError):
    """The bytes are not a DNS message that can be answered."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question with what the reply needs of it. `payload` is 0 for a client without EDNS."""

    id: int
    flags: int
    name: bytes
    type: int
    klass: int
    question: bytes
    payload: int = 0
    version: int = 0
    wants_dnssec: bool = False

    @property
    def limit(self) -> int:
        """How long a reply over UDP may be, in bytes."""
        return min(max(self.payload, PLAIN_PAYLOAD), PAYLOAD) if self.payload else PLAIN_PAYLOAD


class Record(NamedTuple):
    """A resource record: owner name (`None`: the name that was asked for), and type, class, TTL and data as bytes."""

    owner: bytes | None
    tail: bytes


def record(type: int, ttl: int, data: bytes, owner: bytes | None = None) -> Record:
    """A record of class IN."""
    return Record(owner, _RECORD.pack(type, IN, ttl, len(data)) + data)


def encode_name(text: str) -> bytes:
    """A name in wire form; raises WireError for labels and names that are too long."""
    wire = bytearray()
    for label in text.lower().rstrip(".").split("."):
        data = label.encode("utf-8")
        if not data and text.strip("."):
            raise WireError(f"the name {text!r} has an empty label")
        if len(data) > 63:
            raise WireError(f"the name {text!r} has a label longer than 63 bytes")
        if data:
            wire += bytes((len(data),)) + data
    if len(wire) > 254:
        raise WireError(f"the name {text!r} is longer than 255 bytes")
    return bytes(wire) + b"\0"


def labels(wire: bytes) -> tuple[str, ...]:
    """The labels of a name in wire form, from left to right."""
    found = []
    at = 0
    while size := wire[at]:
        found.append(wire[at + 1 : at + 1 + size].decode("latin-1"))
        at += 1 + size
    return tuple(found)


def parse_query(data: bytes) -> Query:
    """The query in a message. Raises WireError when it is no query with exactly one question."""
    if len(data) < HEADER.size:
        raise WireError("the message is shorter than a header")
    id, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    if flags & QR:
        raise WireError("the message is a reply")
    if questions != 1:
        raise WireError(f"the message has {questions} questions")
    at = HEADER.size
    size = len(data)
    while at < size and (length := data[at]):
        if length > 63:
            raise WireError("the question's name is compressed or has a label that is too long")
        at += 1 + length
    at += 1
    if at + 4 > size or at - HEADER.size > 255:
        raise WireError("the question is cut off or its name too long")
    type, klass = _TYPE_CLASS.unpack_from(data, at)
    name = data[HEADER.size : at].lower()
    question = data[HEADER.size : at + 4]
    if not additionals:
        return Query(id, flags, name, type, klass, question)
    payload, version, wants_dnssec = _edns(data, at + 4, answers + authorities + additionals)
    return Query(id, flags, name, type, klass, question, payload, version, wants_dnssec)


def _edns(data: bytes, at: int, count: int) -> tuple[int, int, bool]:
    """Payload size, version and the DO bit of the OPT record, zeros without one."""
    for _ in range(count):
        at = skip_name(data, at)
        if at + _RECORD.size > len(data):
            raise WireError("a record is cut off")
        type, klass, ttl, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size + size
        if at > len(data):
            raise WireError("a record is cut off")
        if type == OPT:
            return max(klass, PLAIN_PAYLOAD), (ttl >> 16) & 0xFF, bool(ttl & DO)
    return 0, 0, False


def skip_name(data: bytes, at: int) -> int:
    """The position after a name. Raises WireError."""
    size = len(data)
    while at < size:
        length = data[at]
        if length >= _POINTER:
            return at + 2
        at += 1 + length
        if not length:
            return at
        if length > 63:
            break
    raise WireError("a name is cut off or malformed")


def expand_name(data: bytes, at: int) -> bytes:
    """A name without compression, in lower case. Raises WireError, also for pointers that do not lead back."""
    found = bytearray()
    lowest = at
    for _ in range(_MOST_LABELS):
        if at >= len(data):
            break
        length = data[at]
        if length >= _POINTER:
            if at + 1 >= len(data):
                break
            at = (length & 0x3F) << 8 | data[at + 1]
            if at >= lowest:
                break
            lowest = at
            continue
        if length > 63 or len(found) > 254:
            break
        found += data[at : at + 1 + length]
        if not length:
            return bytes(found).lower()
        at += 1 + length
    raise WireError("a name is cut off or malformed")


def header_id(data: bytes) -> int:
    """The id of a message, 0 when it is too short to have one."""
    return int(_SHORT.unpack_from(data)[0]) if len(data) >= 2 else 0


def error(data: bytes, rcode: int) -> bytes:
    """The reply to a message that cannot be read: its id and a code, nothing else."""
    flags = _SHORT.unpack_from(data, 2)[0] & (OPCODE | RD) if len(data) >= 4 else 0
    return HEADER.pack(header_id(data), QR | RA | flags | rcode, 0, 0, 0, 0)


def reply(
    query: Query,
    rcode: int = NOERROR,
    answers: Sequence[Record] = (),
    authorities: Sequence[Record] = (),
    additionals: Sequence[Record] = (),
    *,
    authoritative: bool = False,
    limit: int = LONGEST,
) -> bytes:
    """The reply to a query, at most `limit` bytes: what does not fit is left out, and TC set when it was an answer."""
    flags = QR | RA | (query.flags & (OPCODE | RD | CD)) | (AA if authoritative else 0) | (rcode & 0xF)
    opt = _opt(rcode, query.wants_dnssec) if query.payload else b""
    # Owners are compressed by pointing at the question or a suffix of it; that is all the compression that pays.
    suffixes = _suffixes(query.question) if authorities or additionals or (answers and answers[0].owner) else {}
    room = limit - HEADER.size - len(query.question) - len(opt)
    parts = [b"", query.question]
    counts = [0, 0, 0]
    for section, records in enumerate((answers, authorities, additionals)):
        for owner, tail in records:
            name = b"\xc0\x0c" if owner is None else _compress(owner, suffixes)
            room -= len(name) + len(tail)
            if room < 0:
                if section == 0:
                    flags |= TC
                break
            parts += (name, tail)
            counts[section] += 1
        if room < 0:
            break
    parts.append(opt)
    parts[0] = HEADER.pack(query.id, flags, 1, counts[0], counts[1], counts[2] + bool(opt))
    return b"".join(parts)


def _opt(rcode: int, wants_dnssec: bool) -> bytes:
    return b"\0" + _RECORD.pack(OPT, PAYLOAD, (rcode >> 4) << 24 | (DO if wants_dnssec else 0), 0)


def _suffixes(question: bytes) -> dict[bytes, bytes]:
    """Pointers to each suffix of the question's name."""
    name = question[:-4].lower()
    found = {}
    at = 0
    while name[at]:
        found[name[at:]] = _SHORT.pack(_POINTER << 8 | HEADER.size + at)
        at += 1 + name[at]
    return found


def _compress(name: bytes, suffixes: dict[bytes, bytes]) -> bytes:
    at = 0
    while name[at]:
        pointer = suffixes.get(name[at:])
        if pointer:
            return name[:at] + pointer
        at += 1 + name[at]
    return name


class Section(NamedTuple):
    """Where a record of a message lies: section 0 to 2 (answer, authority, additional), positions, type and TTL."""

    section: int
    start: int
    ttl_at: int
    end: int
    type: int
    ttl: int


@dataclass(frozen=True, slots=True)
class Message:
    """A reply from upstream, taken apart but not copied."""

    data: bytes
    flags: int
    name: bytes
    question_end: int
    records: tuple[Section, ...]

    @property
    def rcode(self) -> int:
        """The code of the header."""
        return self.flags & 0xF


def parse_reply(data: bytes) -> Message:
    """Takes a reply apart. Raises WireError unless every record lies within the message."""
    if len(data) < HEADER.size:
        raise WireError("the message is shorter than a header")
    _, flags, questions, *counts = HEADER.unpack_from(data)
    if not flags & QR or questions != 1:
        raise WireError("the message is not a reply to one question")
    at = skip_name(data, HEADER.size) + 4
    if at > len(data):
        raise WireError("the question is cut off")
    name = data[HEADER.size : at - 4].lower()
    end = at
    found = []
    for section, count in enumerate(counts):
        for _ in range(count):
            start = at
            at = skip_name(data, at)
            if at + _RECORD.size > len(data):
                raise WireError("a record is cut off")
            type, _, ttl, size = _RECORD.unpack_from(data, at)
            after = at + _RECORD.size + size
            if after > len(data):
                raise WireError("a record is cut off")
            found.append(Section(section, start, at + 4, after, type, ttl))
            at = after
    return Message(data, flags, name, end, tuple(found))


def addresses_of(message: Message) -> Iterable[Record]:
    """The answer's A, AAAA and CNAME records with their names written out, to be put into another message."""
    for each in message.records:
        if each.section == 0 and each.type in (A, AAAA, CNAME):
            owner = expand_name(message.data, each.start)
            start = each.ttl_at + 6
            data = expand_name(message.data, start) if each.type == CNAME else message.data[start : each.end]
            yield record(each.type, each.ttl, data, owner)


def forwarded(query: Query, id: int) -> bytes:
    """The query that upstream gets: the same question, our id, EDNS with the size that we take."""
    flags = RD | (query.flags & (CD | AD))
    opt = b"\0" + _RECORD.pack(OPT, PAYLOAD, DO if query.wants_dnssec else 0, 0)
    return HEADER.pack(id, flags, 1, 0, 0, 1) + query.question + opt


def adapted(message: Message, query: Query, age_s: int, most_s: int, limit: int) -> bytes:
    """An upstream reply for this client: its id and spelling, TTLs less `age_s` and at most `most_s`, its size.

    Records that do not fit are left out from the end, whole sections at once, with TC for the answers.
    """
    opt_index = next((i for i, each in enumerate(message.records) if each.type == OPT), len(message.records))
    kept = list(message.records[:opt_index])  # an OPT is between two neighbours only; what follows it is optional too
    opt = _opt(0, query.wants_dnssec) if query.payload else b""
    flags = message.flags & ~(RD | CD) | (query.flags & (RD | CD)) | RA
    end = kept[-1].end if kept else message.question_end
    if end + len(opt) > limit:
        kept = [each for each in kept if each.section == 0]
        end = kept[-1].end if kept else message.question_end
        if end + len(opt) > limit:
            kept, end = [], message.question_end
            flags |= TC
    body = bytearray(message.data[:end])
    counts = [0, 0, 0]
    for each in kept:
        counts[each.section] += 1
        _LONG.pack_into(body, each.ttl_at, max(0, min(each.ttl, most_s) - age_s))
    HEADER.pack_into(body, 0, query.id, flags, 1, counts[0], counts[1], counts[2] + bool(opt))
    body[HEADER.size : message.question_end] = query.question
    return bytes(body) + opt


def minimum_ttl(message: Message) -> int:
    """How long a reply may be kept, in seconds: the least TTL, for a negative one also the SOA's minimum (RFC 2308)."""
    found = []
    for each in message.records:
        if each.type == OPT:
            continue
        found.append(each.ttl)
        if each.type == SOA and each.section == 1 and each.end - each.ttl_at >= 10:
            found.append(int(_LONG.unpack_from(message.data, each.end - 4)[0]))
    return min(found, default=0)
