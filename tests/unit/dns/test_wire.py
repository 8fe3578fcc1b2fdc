"""DNS messages, with dnslib as the judge of what the bytes mean."""

from __future__ import annotations

import contextlib

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s.dns import wire


def query(name: str = "web.default.svc.cluster.local", type: str = "A", payload: int = 0) -> bytes:
    """A query as dnslib writes it."""
    record = dnslib.DNSRecord.question(name, type)
    if payload:
        record.add_ar(dnslib.EDNS0(udp_len=payload, flags="do"))
    return bytes(record.pack())


def address(last: int, owner: bytes | None = None) -> wire.Record:
    """An A record."""
    return wire.record(wire.A, 5, bytes((10, 43, 0, last)), owner)


def test_a_query_is_read() -> None:
    """Id, name in lower case, type, and the client's own spelling of the question."""
    data = query("Web.Default.svc.cluster.local", "AAAA")
    found = wire.parse_query(data)
    assert wire.labels(found.name) == ("web", "default", "svc", "cluster", "local")
    assert (found.type, found.klass, found.payload, found.limit) == (wire.AAAA, wire.IN, 0, 512)
    assert b"Web" in found.question


def test_edns_of_a_query() -> None:
    """Payload size, bounded by what is safe, and the DO bit."""
    found = wire.parse_query(query(payload=4096))
    assert (found.payload, found.limit, found.wants_dnssec) == (4096, 1232, True)
    assert wire.parse_query(query(payload=100)).limit == 512


def test_a_reply_is_understood() -> None:
    """Answers, authority and additional records come out with names, TTLs and data as put in."""
    found = wire.parse_query(query("Web.default.svc.cluster.local", payload=1400))
    inner = wire.encode_name("pod.web.default.svc.cluster.local")
    srv = wire.record(wire.SRV, 5, b"\0\0\0\x64\x1f\x90" + inner)
    soa = wire.record(
        wire.SOA, 5, wire.encode_name("ns.x") + wire.encode_name("me.x") + bytes(20), wire.encode_name("local")
    )
    data = wire.reply(found, wire.NOERROR, [address(9), srv], [soa], [address(7, inner)], authoritative=True)
    parsed = dnslib.DNSRecord.parse(data)
    assert (parsed.header.id, parsed.header.aa, parsed.header.rcode) == (found.id, 1, 0)
    assert str(parsed.q.qname) == "Web.default.svc.cluster.local."
    assert [str(each.rdata) for each in parsed.rr] == ["10.43.0.9", "0 100 8080 pod.web.default.svc.cluster.local."]
    assert [str(each.rname) for each in parsed.auth] == ["local."]
    assert (str(parsed.ar[0].rname).lower(), str(parsed.ar[0].rdata)) == (
        "pod.web.default.svc.cluster.local.",
        "10.43.0.7",
    )
    assert parsed.ar[1].rtype == wire.OPT
    # The additional owner is "pod" and a pointer into the question: 4 + 2 bytes before the 14 of an A record.
    assert len(data) == len(wire.reply(found, wire.NOERROR, [address(9), srv], [soa])) + 4 + 2 + 14


def test_a_reply_that_is_too_long_says_so() -> None:
    """As many whole answers as fit, and TC; additional records go without a word."""
    found = wire.parse_query(query())
    data = wire.reply(found, wire.NOERROR, [address(n) for n in range(200)], limit=found.limit)
    parsed = dnslib.DNSRecord.parse(data)
    assert len(data) <= 512 and parsed.header.tc == 1 and len(parsed.rr) > 25
    more = wire.reply(found, wire.NOERROR, [address(1)], (), [address(n, found.name) for n in range(200)], limit=512)
    assert dnslib.DNSRecord.parse(more).header.tc == 0 and len(more) <= 512


def test_names() -> None:
    """Names go to wire form and back; those that DNS cannot carry are refused."""
    assert wire.encode_name("A.bc.") == b"\x01a\x02bc\0"
    assert wire.encode_name("") == wire.encode_name(".") == b"\0"
    assert wire.labels(b"\x01a\x02bc\0") == ("a", "bc")
    for wrong in ("a..b", "x" * 64, ".".join(["x" * 60] * 5)):
        with pytest.raises(wire.WireError):
            wire.encode_name(wrong)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(11),
        bytes(12),
        query()[:-1],
        query()[:20],
        bytes(4) + b"\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1",
        bytes(4) + b"\0\1" + bytes(6) + b"\x3fabc",
        bytes(4) + b"\0\1" + bytes(6) + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",
        query(payload=512)[:-3],
        bytes(2) + b"\x80\0\0\1" + bytes(6) + b"\0\0\1\0\1",
    ],
)
def test_malformed_queries(data: bytes) -> None:
    """What is cut off, compressed or no query is a WireError."""
    with pytest.raises(wire.WireError):
        wire.parse_query(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """No bytes lead to anything but a value or a WireError."""
    for read in (wire.parse_query, wire.parse_reply):
        with contextlib.suppress(wire.WireError):
            read(data)


@given(st.data())
def test_damaged_messages_are_read_or_refused(data: st.DataObject) -> None:
    """The same for messages that are nearly right, where parsers go further; what is read can be used."""
    good = bytearray(sample_reply())
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    found = wire.parse_query(query("example.org"))
    try:
        message = wire.parse_reply(bytes(good))
        list(wire.addresses_of(message))
    except wire.WireError:
        return
    if message.name == found.name:
        assert len(wire.adapted(message, found, 0, 30, 512)) <= 512


def sample_reply(answers: int = 3) -> bytes:
    """A reply as an upstream server gives it: an alias, addresses, a name server, EDNS."""
    record = dnslib.DNSRecord.question("example.org").reply()
    record.add_answer(*dnslib.RR.fromZone("example.org. 300 CNAME Host.example.net."))
    for number in range(answers):
        record.add_answer(*dnslib.RR.fromZone(f"host.example.net. 60 A 198.51.100.{number}"))
    record.add_auth(*dnslib.RR.fromZone("example.net. 1000 NS ns.example.net."))
    record.add_ar(*dnslib.RR.fromZone("ns.example.net. 1000 A 203.0.113.1"))
    record.add_ar(dnslib.EDNS0(udp_len=4096))
    return bytes(record.pack())


def test_an_upstream_reply_is_adapted() -> None:
    """The client's id and spelling, TTLs that have aged, EDNS only for those who speak it."""
    message = wire.parse_reply(sample_reply())
    assert wire.minimum_ttl(message) == 60
    found = wire.parse_query(query("EXAMPLE.org"))
    parsed = dnslib.DNSRecord.parse(wire.adapted(message, found, 7, 30, 512))
    assert (parsed.header.id, str(parsed.q.qname)) == (found.id, "EXAMPLE.org.")
    assert {each.ttl for each in parsed.rr} == {23}
    assert [each.rtype for each in parsed.ar] == [wire.A]
    with_edns = dnslib.DNSRecord.parse(
        wire.adapted(message, wire.parse_query(query("example.org", payload=900)), 7, 30, 900)
    )
    assert [each.rtype for each in with_edns.ar] == [wire.A, wire.OPT]


def test_an_upstream_reply_that_is_too_long() -> None:
    """First what is optional goes, then the answers, with TC so that the client comes back over TCP."""
    message = wire.parse_reply(sample_reply(answers=27))
    found = wire.parse_query(query("example.org"))
    less = dnslib.DNSRecord.parse(wire.adapted(message, found, 0, 30, 512))
    assert (less.header.tc, len(less.rr), len(less.auth), len(less.ar)) == (0, 28, 0, 0)
    none = dnslib.DNSRecord.parse(wire.adapted(message, found, 0, 30, 100))
    assert (none.header.tc, len(none.rr)) == (1, 0)


def test_addresses_of_a_reply_stand_alone() -> None:
    """Records taken from a reply have their names written out, so that they fit into another one."""
    message = wire.parse_reply(sample_reply(answers=1))
    alias, address = wire.addresses_of(message)
    assert wire.labels(alias.owner or b"\0") == ("example", "org")
    assert alias.tail.endswith(wire.encode_name("host.example.net"))
    assert wire.labels(address.owner or b"\0") == ("host", "example", "net")


def test_negative_replies_count_for_the_minimum() -> None:
    """A reply of "no" is kept for the SOA's minimum at most (RFC 2308)."""
    record = dnslib.DNSRecord.question("no.example.org").reply()
    record.add_auth(*dnslib.RR.fromZone("example.org. 3600 SOA ns.x. me.x. 1 2 3 4 17"))
    assert wire.minimum_ttl(wire.parse_reply(bytes(record.pack()))) == 17
