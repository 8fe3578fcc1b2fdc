"""The formats of strings that schemas of custom kinds can ask for.

    known(format) -> bool           whether there is such a format
    fits(format, text) -> bool      whether a text has the format; True for formats that nobody checks

Source: the formats that the API server's schema library knows, as documented for CustomResourceDefinition.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import date
from urllib.parse import urlsplit

from k3s.api import names, pattern

_OCTET = r"\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*"
_WORD = r"[a-zA-Z0-9\p{S}\p{L}]"
_UUID = "(?i)^[0-9A-F]{{8}}-?[0-9A-F]{{4}}-?{}[0-9A-F]{{3}}-?{}[0-9A-F]{{12}}$"
_PATTERNS = {
    "bsonobjectid": "^[0-9a-fA-F]{24}$",
    "byte": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$",
    "duration": r"^([0-9]+(\.[0-9]+)?\s*[A-Za-zµ]+\s*)+$|^0$",
    "email": r"^([^<>@]*<)?[^\s<>@]+@[^\s<>@]+>?$",
    "hexcolor": "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$",
    "hostname": rf"^({_WORD}((-?{_WORD}{{0,62}})?)|({_WORD}(([a-zA-Z0-9-\p{{S}}\p{{L}}]{{0,61}}{_WORD})?)(\.)){{1,}}"
    r"([a-zA-Z\p{L}]){2,63})$",
    "mac": "^([0-9a-fA-F]{2}[:-]){5}(([0-9a-fA-F]{2}[:-]){2})?[0-9a-fA-F]{2}$|^([0-9a-fA-F]{4}[.]){2}[0-9a-fA-F]{4}$",
    "rgbcolor": rf"^rgb\({_OCTET},{_OCTET},{_OCTET}\)$",
    "ssn": r"^\d{3}[- ]?\d{2}[- ]?\d{4}$",
    "uuid": _UUID.format("[0-9A-F]", "[0-9A-F]{4}-?"),
    "uuid3": _UUID.format("3", "[0-9A-F]{4}-?"),
    "uuid4": _UUID.format("4", "[89AB][0-9A-F]{3}-?"),
    "uuid5": _UUID.format("5", "[89AB][0-9A-F]{3}-?"),
}
_TIME = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))\Z")


# Of these nobody checks a text, or they are of numbers.
_UNCHECKED = (
    *("creditcard", "isbn", "isbn10", "isbn13", "password"),
    *("int32", "int64", "float", "double"),
)


def known(form: str) -> bool:
    """Whether a schema that asks for this format means something by it."""
    return any(form.replace("-", "") == name.replace("-", "") for name in (*_PATTERNS, *_CHECKS, *_UNCHECKED))


def fits(form: str, text: str) -> bool:
    """Whether a text has the format of this name."""
    check = _CHECKS.get(form)
    if check is not None:
        return check(text)
    return form not in _PATTERNS or pattern.found(_PATTERNS[form], text)


def _date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == 10


def _date_time(text: str) -> bool:
    day, _, clock = text.lower().partition("t")
    found = _TIME.match(clock.partition("t")[0])
    return _date(day) and found is not None and found[1] <= "23" and found[2] <= "59" and found[3] <= "59"


def _address(version: int) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            return ipaddress.ip_address(text).version == version and "%" not in text
        except ValueError:
            return False

    return check


def _network(text: str) -> bool:
    try:
        return "/" in text and ipaddress.ip_network(text, strict=False) is not None
    except ValueError:
        return False


def _uri(text: str) -> bool:
    """What can stand in the first line of a request: an absolute path or an absolute URI."""
    if not text or any(c <= " " or c == "\x7f" for c in text):
        return False
    try:
        return text.startswith("/") or bool(urlsplit(text).scheme)
    except ValueError:
        return False


def _host(text: str) -> bool:
    return pattern.found(_PATTERNS["hostname"], text) and all(len(part) <= 63 for part in text.split("."))


_CHECKS: dict[str, Callable[[str], bool]] = {
    "cidr": _network,
    "date": _date,
    "date-time": _date_time,
    "datetime": _date_time,
    "hostname": _host,
    "ipv4": _address(4),
    "ipv6": _address(6),
    "k8s-long-name": lambda text: not names.dns_subdomain(text),
    "k8s-short-name": lambda text: not names.dns_label(text),
    "uri": _uri,
}
