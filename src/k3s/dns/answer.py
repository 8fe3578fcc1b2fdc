"""From a query to what shall be done about it: a reply from the zone, or a way upstream."""

from __future__ import annotations

from dataclasses import dataclass

from k3s.dns import wire
from k3s.dns.wire import Query, Record
from k3s.dns.zone import Answer, Zone

# How many answers are kept ready until the zone changes; questions that are asked come again and again.
_MOST_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply's bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Forward:
    """Ask upstream, and hand its reply on."""


@dataclass(frozen=True, slots=True)
class Follow:
    """The name is an alias for one elsewhere: ask upstream for `target` and append its addresses to `records`."""

    records: tuple[Record, ...]
    target: bytes


FORWARD = Forward()


class Responder:
    """Answers queries from a zone. Several addresses come in turning order, so that clients spread over them."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._kept: dict[tuple[bytes, int], Answer | None] = {}
        self._kept_at = -1
        self._soa = zone.soa()
        self._turn = 0

    def answer(self, query: Query, limit: int) -> Reply | Forward | Follow:
        """What to do about a query; `limit` is the longest reply in bytes."""
        refusal = _refusal(query)
        if refusal is not None:
            return Reply(wire.reply(query, refusal, limit=limit))
        found = self._lookup(query.name, query.type)
        if found is None:
            return FORWARD
        if found.chase:
            return Follow(found.records, found.chase)
        records = found.records
        if not records:
            return Reply(wire.reply(query, found.rcode, (), (self._soa,), authoritative=True, limit=limit))
        if len(records) > 1 and records[0].tail[1] != wire.CNAME:
            self._turn += 1
            at = self._turn % len(records)
            records = records[at:] + records[:at]
        return Reply(wire.reply(query, found.rcode, records, (), found.additionals, authoritative=True, limit=limit))

    def _lookup(self, name: bytes, type: int) -> Answer | None:
        if self._kept_at != self._zone.changes or len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
            self._kept_at = self._zone.changes
            self._soa = self._zone.soa()
        key = (name, type)
        try:
            return self._kept[key]
        except KeyError:
            found = self._kept[key] = self._zone.lookup(wire.labels(name), type)
            return found


def _refusal(query: Query) -> int | None:
    """The code for queries that nobody here answers."""
    if query.flags & wire.OPCODE:
        return wire.NOTIMP
    if query.version:
        return wire.BADVERS
    if query.klass != wire.IN or query.type in (wire.AXFR, wire.AXFR - 1):
        return wire.REFUSED
    if query.type == wire.ANY:
        return wire.NOTIMP  # RFC 8482: a server need not collect everything
    return None
