"""What the kernel tells whoever listens to its nftables group: just enough to see that a table is gone.

Layouts and numbers are those of the kernel's headers linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

NETLINK_NETFILTER = 12
GROUP = 7  # NFNLGRP_NFTABLES
LONGEST = 65536  # of one datagram

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_GENERIC = struct.Struct("=BBH")  # family, version, resource id
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_DELETE_TABLE = 10 << 8 | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE
_NAME = 1  # NFTA_TABLE_NAME
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


def deleted_tables(data: bytes) -> Iterator[tuple[str, str]]:
    """Family and name of each table whose deletion a datagram tells; whatever else it says is passed over."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, type, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        if type == _DELETE_TABLE and at + _HEADER.size + _GENERIC.size <= len(data):
            family, *_ = _GENERIC.unpack_from(data, at + _HEADER.size)
            name = _name(data[at + _HEADER.size + _GENERIC.size : at + length])
            yield _FAMILIES.get(family, ""), name
        at += _aligned(length)


def _name(attributes: bytes) -> str:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, type = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size:
            break
        if type == _NAME:
            return attributes[at + _ATTRIBUTE.size : at + length].rstrip(b"\0").decode(errors="replace")
        at += _aligned(length)
    return ""


def _aligned(length: int) -> int:
    return (length + 3) & ~3
