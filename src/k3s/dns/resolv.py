"""The host's resolv.conf, as far as name servers go."""

from __future__ import annotations

import ipaddress
from collections.abc import Container

# More than the C library takes helps nobody (resolv.conf(5): MAXNS).
_MOST = 3


def servers(text: str, own: Container[str]) -> list[str]:
    """The addresses of the name servers in the order of the file, without our `own` (that would be a circle)."""
    found = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        address, _, zone = words[1].partition("%")
        try:
            plain = str(ipaddress.ip_address(address))
        except ValueError:
            continue
        if plain not in own:
            found.append(f"{plain}%{zone}" if zone else plain)
    return found[:_MOST]
