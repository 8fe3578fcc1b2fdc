"""Named formats of texts, and the escaping of JSON patches.

Source: the format library of the API server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from k3s.api import formats, names
from k3s.api.cel.overloads import Overload, declare
from k3s.api.cel.values import NONE, Opaque, Optional


@dataclass(frozen=True, slots=True)
class NamedFormat(Opaque):
    """A format: its name, and what is wrong with a text."""

    name: str
    problems: Callable[[str], list[str]]
    kind = "kubernetes.NamedFormat"


def _fits(form: str, complaint: str) -> Callable[[str], list[str]]:
    return lambda text: [] if formats.fits(form, text) else [complaint]


def _prefix(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """A name to which something will be added: a hyphen at its end is nothing wrong."""
    return lambda text: check(text[:-1] + "a" if len(text) > 1 and text.endswith("-") else text)


_FORMATS = {
    "dns1123Label": names.dns_label,
    "dns1123Subdomain": names.dns_subdomain,
    "dns1035Label": names.dns1035_label,
    "qualifiedName": names.qualified_name,
    "dns1123LabelPrefix": _prefix(names.dns_label),
    "dns1123SubdomainPrefix": _prefix(names.dns_subdomain),
    "dns1035LabelPrefix": _prefix(names.dns1035_label),
    "labelValue": names.label_value,
    "uri": _fits("uri", "invalid URI for request"),
    "uuid": _fits("uuid", "does not match the UUID format"),
    "byte": _fits("byte", "invalid base64"),
    "date": _fits("date", "invalid date"),
    "datetime": _fits("date-time", "invalid datetime"),
}
_BY_NAME = {name: NamedFormat(name, problems) for name, problems in _FORMATS.items()}


def _named(name: str) -> Optional:
    found = _BY_NAME.get(name)
    return NONE if found is None else Optional(found)


def _validate(form: NamedFormat, text: str) -> Optional:
    problems = form.problems(text)
    return Optional(problems) if problems else NONE


def _constant(name: str) -> Overload:
    found = _BY_NAME[name]
    return declare(f"format.{name}", f"format-{name}", "-> kubernetes.NamedFormat", lambda: found)


FORMATS = (
    *map(_constant, _BY_NAME),
    declare("format.named", "format-named", "string -> optional<kubernetes.NamedFormat>", _named),
    declare("validate", "format-validate", ".kubernetes.NamedFormat string -> optional<list<string>>", _validate),
)
JSON_PATCH = (
    declare(
        "jsonpatch.escapeKey",
        "jsonpatch_escapeKey_string",
        "string -> string",
        lambda key: key.replace("~", "~0").replace("/", "~1"),
    ),
)
