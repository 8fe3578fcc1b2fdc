"""Messages of the runtime interface as crictl prints them: JSON as protobuf's rules have it, YAML, Go templates. Pure.

In JSON a field's name is in lowerCamelCase, whole numbers of 64 bits and bytes are text, fields with zero values are
there, messages that were not sent are not (the JSON mapping of protobuf).
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import yamltext
from k3s.cli.complaint import moment
from k3s.cli.crictl import gotemplate
from k3s.kubelet.runtime.connection import table

FORMATS = ("json", "yaml", "table", "go-template")
_LONG = ("int64", "uint64")
#: Go's JSON writes these characters of texts as escapes, wherever a plain map is written.
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_NEVER = "0001-01-01T00:00:00Z"


class FormatError(Exception):
    """An output format that a verb does not have."""


@functools.cache
def _fields(message: str) -> list[tuple[str, str, str, bool]]:
    """Key, name in JSON, type and whether it is a list, of each field in the order of their numbers."""
    rows = table()["messages"][message].items()
    return [(key, _camel(key), row[1], len(row) > 2) for key, row in sorted(rows, key=lambda item: item[1][0])]


def _camel(key: str) -> str:
    first, *others = key.split("_")
    return first + "".join(other[:1].upper() + other[1:] for other in others)


def plain(message: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the value of its JSON."""
    made: dict[str, Any] = {}
    for key, name, kind, many in _fields(message):
        found = value.get(key)
        if many:
            made[name] = [_plain(kind, item) for item in found or ()]
        elif kind.startswith("map<"):
            made[name] = dict(sorted((found or {}).items()))
        elif found is not None:
            made[name] = _plain(kind, found)
    return made


def _plain(kind: str, value: Any) -> Any:
    if kind in table()["messages"]:
        return plain(kind, value)
    if kind == "bytes":
        return base64.b64encode(value).decode()
    return str(value) if kind in _LONG else value


def struct(message: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A message as Go's plain JSON has it: fields under their own names, without zero values."""
    made: dict[str, Any] = {}
    for key, _, kind, many in _fields(message):
        found = value.get(key)
        if kind in table()["messages"]:
            found = [struct(kind, item) for item in found or ()] if many else found and struct(kind, found)
        if found or isinstance(found, dict):
            made[key] = found
    return made


def status(message: str, value: Mapping[str, Any], moments: Mapping[str, int]) -> dict[str, Any]:
    """A status for inspecting: every field is there, and the fields of `moments` are times (nanoseconds; 0: never)."""
    made = {name: None for _, name, _, _ in _fields(message)} | plain(message, value)
    return made | {name: moment(ns) if ns else _NEVER for name, ns in moments.items()}


def with_info(value: Mapping[str, Any], info: Mapping[str, str]) -> dict[str, Any]:
    """A status beside what the runtime tells of its own, in which texts may be JSON."""
    made: dict[str, Any] = {"status": dict(value)}
    for key, text in info.items():
        made[key] = json.loads(text) if text.startswith("{") else text.strip('"')
    return made


def document(value: Any, format: str) -> str:
    """A message's JSON value as text with an end of line. Raises FormatError."""
    if format == "json":
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if format == "yaml":
        return _yaml(value) + "\n"
    raise FormatError(f'unsupported output format "{format}"')


def statuses(values: Sequence[Mapping[str, Any]], format: str, template: str) -> str:
    """What inspecting prints: one value, or a list of several, with sorted keys. Raises FormatError, TemplateError."""
    value = values[0] if len(values) == 1 else list(values)
    if format == "json":
        return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).translate(_ESCAPED) + "\n"
    if format == "yaml":
        return _yaml(value) + "\n"
    if format == "go-template":
        return gotemplate.render(template, value) + "\n"
    raise FormatError(f'unsupported format: "{format}"')


def _yaml(value: Any) -> str:
    import yaml

    base: Any = yaml.SafeDumper

    class Dumper(base):  # type: ignore[misc]
        """Texts quoted where Go's package quotes them."""

    def text(dumper: Any, data: str) -> Any:
        style = "|" if "\n" in data else None if yamltext.plain(data) == data else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    Dumper.ignore_aliases = lambda self, data: True
    return str(yaml.dump(value, Dumper=Dumper, default_flow_style=False, allow_unicode=True, width=1 << 30))
