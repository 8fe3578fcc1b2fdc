"""The causes of an invalid object, worded as the API words them.

Each function returns one cause `{"reason", "message", "field"}`. Source: the field errors of the API.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from k3s.api import names
from k3s.api.object import encode

Cause = dict[str, str]
Causes = Iterator[Cause]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Zeros before the first digit that counts of a decimal number.
_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")

IP_TEXT = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
CIDR_TEXT = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
NEGATIVE = "must be greater than or equal to 0"
_CAPITALS = {"ip": "IP", "apiGroup": "APIGroup", "apiVersion": "APIVersion", "uid": "UID"}
IMMUTABLE = "field is immutable"


def _cause(reason: str, field: str, message: str) -> Cause:
    return {"reason": reason, "message": message, "field": field}


def _shown(value: Any) -> str:
    return encode(value).decode()


def internal(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A struct as messages show it: by the names that its fields have in the reference server's own memory."""
    return {_CAPITALS.get(key, key[:1].upper() + key[1:]): inner for key, inner in value.items()}


def required(field: str, detail: str = "") -> Cause:
    """A value that has to be there is not."""
    return _cause("FieldValueRequired", field, f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: Any, detail: str) -> Cause:
    """A value that breaks a rule."""
    return _cause("FieldValueInvalid", field, f"Invalid value: {_shown(value)}: {detail}")


def unsupported(field: str, value: Any, supported: Iterable[str]) -> Cause:
    """A value that is none of the known ones, listed in the given order."""
    listed = ", ".join(f'"{word}"' for word in supported)
    return _cause("FieldValueNotSupported", field, f"Unsupported value: {_shown(value)}: supported values: {listed}")


def forbidden(field: str, detail: str) -> Cause:
    """A value that may not be there."""
    return _cause("FieldValueForbidden", field, f"Forbidden: {detail}")


def duplicate(field: str, value: Any) -> Cause:
    """A value that has to be unique and is not."""
    return _cause("FieldValueDuplicate", field, f"Duplicate value: {_shown(value)}")


def not_found(field: str, value: Any) -> Cause:
    """A reference to something that is not there."""
    return _cause("FieldValueNotFound", field, f"Not found: {_shown(value)}")


def wrong(field: str, detail: str) -> Cause:
    """A value that breaks a rule, and that the message leaves out."""
    return _cause("FieldValueInvalid", field, f"Invalid value: {detail}")


def too_long(field: str, limit: int) -> Cause:
    """More bytes than are allowed."""
    return _cause("FieldValueTooLong", field, f"Too long: may not be more than {limit} bytes")


def too_many(field: str, count: int, limit: int) -> Cause:
    """More elements than are allowed."""
    return _cause("FieldValueTooMany", field, f"Too many: {count}: must have at most {limit} items")


def joined(field: str, value: Any, problems: list[str]) -> Causes:
    """One cause for all that a function of `k3s.api.names` found wrong; none when that is nothing."""
    if problems:
        yield invalid(field, value, ",".join(problems))


def each(field: str, value: Any, problems: Iterable[str]) -> Causes:
    """One cause for each thing that a function of `k3s.api.names` found wrong."""
    for problem in problems:
        yield invalid(field, value, problem)


def one_of(field: str, value: Any, supported: Iterable[str]) -> Causes:
    """Nothing when the value is one of the supported ones."""
    words = tuple(supported)
    if value not in words:
        yield unsupported(field, value, words)


def not_negative(field: str, holder: Mapping[str, Any], *names_: str) -> Causes:
    """Each of these fields is at least 0 where it is given; `field` is the path of the holder."""
    for name in names_:
        value = holder.get(name)
        if isinstance(value, int) and value < 0:
            yield invalid(f"{field}.{name}", value, NEGATIVE)


def name_of(field: str, value: str, check: Callable[[str], list[str]] = names.dns_subdomain) -> Causes:
    """A reference by name: required, and of the right form."""
    if not value:
        yield required(field)
    else:
        yield from each(field, value, check(value))


def is_ip(text: Any) -> bool:
    """Whether the text is an address of either family, however written."""
    return address_of(text) is not None


def address_of(text: Any) -> Address | None:
    """The address that a text means, however written; None when it means none."""
    if not isinstance(text, str) or "%" in text:
        return None
    try:
        return ipaddress.ip_address(_plain(text))
    except ValueError:
        return None


def _plain(text: str) -> str:
    """An address without the zeros that some write before the decimal numbers in it."""
    head, colon, tail = text.rpartition(":")
    return head + colon + _ZEROS.sub("", tail) if "." in tail else text


def ip(field: str, value: Any) -> Causes:
    """An IP address, written so that everybody reads the same one."""
    address = address_of(value)
    if address is None:
        yield invalid(field, value, IP_TEXT)
    else:
        yield from _unambiguous(field, value, address)


def _unambiguous(field: str, value: str, address: Address) -> Causes:
    if _plain(value) != value:
        yield invalid(field, value, "must not have leading 0s")
    elif getattr(address, "ipv4_mapped", None) is not None:
        yield invalid(field, value, "must not be an IPv4-mapped IPv6 address")


def canonical_ip(field: str, value: Any) -> Causes:
    """An IP address in its one form."""
    wrong = list(ip(field, value))
    yield from wrong
    if not wrong and str(address_of(value)) != value:
        yield invalid(field, value, f'must be in canonical form ("{address_of(value)}")')


def is_cidr(value: Any) -> bool:
    """Whether a text is a network in any writing."""
    text, _, length = str(value).partition("/")
    address = address_of(text)
    digits = length.isascii() and length.isdigit()
    return address is not None and digits and int(length) <= address.max_prefixlen


def cidr(field: str, value: Any) -> Causes:
    """A network with its prefix length, written so that everybody reads the same one."""
    text, _, length = str(value).partition("/")
    address = address_of(text)
    if address is None or not is_cidr(value):
        yield invalid(field, value, CIDR_TEXT)
    elif _plain(text) != text or str(int(length)) != length:
        yield invalid(field, value, "must not have leading 0s in IP or prefix length")
    elif getattr(address, "ipv4_mapped", None) is not None:
        yield invalid(field, value, "must not have an IPv4-mapped IPv6 address")
    elif ipaddress.ip_network(value, strict=False).network_address != address:
        yield invalid(field, value, "must not have bits set beyond the prefix length")


def canonical_cidr(field: str, value: Any) -> Causes:
    """A network in its one form."""
    wrong = list(cidr(field, value))
    yield from wrong
    if not wrong and str(ipaddress.ip_network(value)) != value:
        yield invalid(field, value, f'must be in canonical form ("{ipaddress.ip_network(value)}")')


def port(field: str, value: Any) -> Causes:
    """A port number."""
    yield from each(field, value, names.port_number(value or 0))


def port_or_name(field: str, value: Any) -> Causes:
    """A port number or the name of one."""
    if isinstance(value, str):
        yield from each(field, value, names.port_name(value))
    else:
        yield from port(field, value if value is not None else 0)


def int_or_percent(field: str, value: Any) -> Causes:
    """A count that is not negative, or a percentage."""
    if isinstance(value, str):
        yield from each(field, value, names.percent(value))
    elif value < 0:
        yield invalid(field, value, NEGATIVE)


def at_most_100_percent(field: str, value: Any) -> Causes:
    """A percentage of no more than everything."""
    if isinstance(value, str) and not names.percent(value) and int(value[:-1]) > 100:
        yield invalid(field, value, "must not be greater than 100%")


def labels(field: str, values: Mapping[str, Any] | None) -> Causes:
    """Keys and values of labels."""
    for key, value in (values or {}).items():
        yield from each(field, key, names.qualified_name(key))
        yield from each(field, value, names.label_value(value))


def unchanged(field: str, old: Any, new: Any) -> Causes:
    """A field that keeps its value for life."""
    if old != new:
        yield invalid(field, new, IMMUTABLE)


_SELECTOR_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def selector(field: str, value: Mapping[str, Any] | None) -> Causes:
    """A label selector object."""
    if not value:
        return
    yield from labels(f"{field}.matchLabels", value.get("matchLabels"))
    for i, rule in enumerate(value.get("matchExpressions") or ()):
        at = f"{field}.matchExpressions[{i}]"
        operator, values = rule.get("operator", ""), rule.get("values") or ()
        if operator in ("In", "NotIn") and not values:
            yield required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            yield forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator not in _SELECTOR_OPERATORS:
            yield invalid(f"{at}.operator", operator, "not a valid selector operator")
        yield from each(f"{at}.key", rule.get("key", ""), names.qualified_name(rule.get("key", "")))
        for j, text in enumerate(values):
            yield from each(f"{at}.values[{j}]", text, names.label_value(text))
