"""Addresses, networks and URLs.

Source: the IP, CIDR and URL libraries of the API server.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from k3s.api.cel.errors import Fault
from k3s.api.cel.overloads import declare
from k3s.api.cel.values import Opaque

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class IP(Opaque):
    """An address."""

    value: Address
    kind = "net.IP"

    @property
    def bits(self) -> int:
        """How long the address is."""
        return self.value.max_prefixlen


@dataclass(frozen=True, slots=True)
class CIDR(Opaque):
    """An address with the length of its network's prefix."""

    address: Address
    network: Network
    kind = "net.CIDR"

    @property
    def bits(self) -> int:
        """How long the address is."""
        return self.address.max_prefixlen


@dataclass(frozen=True, slots=True)
class URL(Opaque):
    """A URL, absolute or with an absolute path."""

    text: str
    kind = "kubernetes.URL"


def _ip(text: str) -> IP:
    if "%" in text and ":" in text:
        raise Fault(f'IP address "{text}" with zone value is not allowed')
    try:
        value = ipaddress.ip_address(text)
    except ValueError:
        why = f'ParseAddr("{text}"): unable to parse IP'
        raise Fault(f'IP Address "{text}" parse error during conversion from string: {why}') from None
    if isinstance(value, ipaddress.IPv6Address) and value.ipv4_mapped is not None:
        raise Fault(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    return IP(value)


def _cidr(text: str) -> CIDR:
    why = f'netip.ParsePrefix("{text}")'
    address, slash, length = text.rpartition("/")
    if not slash:
        raise Fault(f"network address parse error during conversion from string: {why}: no '/'")
    if re.fullmatch("0|[1-9][0-9]{0,2}", length) is None:
        raise Fault(
            f'network address parse error during conversion from string: {why}: bad bits after slash: "{length}"'
        )
    if "%" in text:
        raise Fault(f'CIDR "{text}" with zone value is not allowed')
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise Fault(f"network address parse error during conversion from string: {why}: unable to parse IP") from None
    if isinstance(interface.ip, ipaddress.IPv6Address) and interface.ip.ipv4_mapped is not None:
        raise Fault(f'IPv4-mapped IPv6 address "{address}" is not allowed')
    return CIDR(interface.ip, interface.network)


def _url(text: str) -> URL:
    if not _is_url(text):
        raise Fault(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    return URL(text)


def _is_url(text: str) -> bool:
    if not text or any(char < "!" or char == "\x7f" for char in text):
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.scheme) or text.startswith("/")


def _is(read: Any) -> Any:
    def check(text: str) -> bool:
        try:
            read(text)
        except Fault:
            return False
        return True

    return check


def _canonical(text: str) -> bool:
    return str(_ip(text).value) == text


def _contains_ip(cidr: CIDR, other: IP | str) -> bool:
    address = _ip(other) if isinstance(other, str) else other
    return address.bits == cidr.bits and address.value in cidr.network


def _contains_cidr(cidr: CIDR, other: CIDR | str) -> bool:
    inner = _cidr(other) if isinstance(other, str) else other
    if inner.bits != cidr.bits or inner.network.prefixlen < cidr.network.prefixlen:
        return False
    return inner.network.network_address in cidr.network


def _global(address: IP) -> bool:
    value = address.value
    broadcast = isinstance(value, ipaddress.IPv4Address) and int(value) == 0xFFFFFFFF
    return not (value.is_unspecified or value.is_loopback or value.is_multicast or value.is_link_local or broadcast)


def _link_local_multicast(address: IP) -> bool:
    first = address.value.packed
    if len(first) == 4:
        return first[:3] == b"\xe0\x00\x00"
    return first[0] == 0xFF and first[1] & 0x0F == 2


def _host(url: URL) -> str:
    return urlsplit(url.text).netloc.rpartition("@")[2]


def _hostname(url: URL) -> str:
    host = re.sub(r":[0-9]*$", "", _host(url))
    return host[1:-1] if host.startswith("[") else host


def _port(url: URL) -> str:
    match = re.search(r":([0-9]*)$", _host(url))
    return match[1] if match else ""


def _path(url: URL) -> str:
    return urlsplit(url.text.partition("#")[0] if "#" in url.text else url.text).path


def _query(url: URL) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url.text).query, keep_blank_values=True)


URLS = tuple(
    declare(*row)
    for row in (
        ("url", "string_to_url", "string -> kubernetes.URL", _url),
        ("isURL", "is_url_string", "string -> bool", _is_url),
        ("getScheme", "url_get_scheme", ".kubernetes.URL -> string", lambda url: urlsplit(url.text).scheme),
        ("getHost", "url_get_host", ".kubernetes.URL -> string", _host),
        ("getHostname", "url_get_hostname", ".kubernetes.URL -> string", _hostname),
        ("getPort", "url_get_port", ".kubernetes.URL -> string", _port),
        ("getEscapedPath", "url_get_escaped_path", ".kubernetes.URL -> string", _path),
        ("getQuery", "url_get_query", ".kubernetes.URL -> map<string,list<string>>", _query),
    )
)
ADDRESSES = tuple(
    declare(*row)
    for row in (
        ("ip", "string_to_ip", "string -> net.IP", _ip),
        ("isIP", "is_ip", "string -> bool", _is(_ip)),
        ("ip.isCanonical", "ip_is_canonical", "string -> bool", _canonical),
        ("string", "ip_to_string", "net.IP -> string", lambda a: str(a.value)),
        ("family", "family", ".net.IP -> int", lambda a: a.value.version),
        ("isUnspecified", "is_unspecified", ".net.IP -> bool", lambda a: a.value.is_unspecified),
        ("isLoopback", "is_loopback", ".net.IP -> bool", lambda a: a.value.is_loopback),
        ("isLinkLocalMulticast", "is_link_local_multicast", ".net.IP -> bool", _link_local_multicast),
        ("isLinkLocalUnicast", "is_link_local_unicast", ".net.IP -> bool", lambda a: a.value.is_link_local),
        ("isGlobalUnicast", "is_global_unicast", ".net.IP -> bool", _global),
        ("cidr", "string_to_cidr", "string -> net.CIDR", _cidr),
        ("isCIDR", "is_cidr", "string -> bool", _is(_cidr)),
        ("string", "cidr_to_string", "net.CIDR -> string", lambda a: f"{a.address}/{a.network.prefixlen}"),
        ("containsIP", "cidr_contains_ip_string", ".net.CIDR string -> bool", _contains_ip),
        ("containsIP", "cidr_contains_ip_ip", ".net.CIDR net.IP -> bool", _contains_ip),
        ("containsCIDR", "cidr_contains_cidr_string", ".net.CIDR string -> bool", _contains_cidr),
        ("containsCIDR", "cidr_contains_cidr", ".net.CIDR net.CIDR -> bool", _contains_cidr),
        ("ip", "cidr_ip", ".net.CIDR -> net.IP", lambda a: IP(a.address)),
        ("prefixLength", "prefix_length", ".net.CIDR -> int", lambda a: a.network.prefixlen),
        ("masked", "masked", ".net.CIDR -> net.CIDR", lambda a: CIDR(a.network.network_address, a.network)),
    )
)
