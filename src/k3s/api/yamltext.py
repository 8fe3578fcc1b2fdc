"""YAML as the API's clients know it: the types that Go's package gives to plain words, and no document that grows.

Differences from PyYAML: times and sexagesimal numbers stay text, numbers are read as Go reads
them (`0x1F`, `0o17`, `017`, `0b1`, `1_000`), keys become text, a document's size is bounded however often it refers to
its own parts. Source: the resolver of go-yaml version 2, whose document is then turned into JSON.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

#: From so many nodes on, a document may not consist mostly of what its aliases repeat.
_ALIASES_FREE, _NODES_FREE = 100, 1000
_NODES_LOW, _NODES_HIGH = 400_000, 4_000_000
MAX_DEPTH = 400
_WHOLE_BELOW = 1e21

_INT = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|[1-9][0-9]*|0)\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]*\.?[0-9]+|[0-9]+\.)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_TAG = "tag:yaml.org,2002:"
_PLAIN = "!plain"
#: Plain words of other types than text; anything else, a time among them, stays text.
_OTHERS = re.compile(r"[-+.0-9yYnNtTfFoO~]|\Z")


class BadYaml(ValueError):
    """A text that is no YAML document, or one that grows without bound; says why in the words of Go's package."""


def plain(text: str) -> Any:
    """The value of a plain word."""
    if text in _WORDS:
        return _WORDS[text]
    if not _OTHERS.match(text):
        return text
    digits = text.replace("_", "")
    if _INT.match(digits) and (whole := _whole(digits)) is not None:
        return whole
    if _FLOAT.match(digits):
        number = float(digits)
        # Go writes a whole number without a fraction unless it is very large.
        return int(number) if number.is_integer() and abs(number) < _WHOLE_BELOW else number
    return text


def _whole(text: str) -> int | None:
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-")
    base = {"x": 16, "o": 8, "b": 2}.get(digits[1:2].lower(), 8 if digits[0] == "0" and len(digits) > 1 else 10)
    if len(digits) > 70:
        return None
    number = sign * int(digits[2:] if digits[1:2].isalpha() else digits, base)
    return number if -(1 << 63) <= number < 1 << 64 else None


@functools.cache
def _loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """Plain words by `plain`, keys as text."""

        def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
            if kind is yaml.ScalarNode and implicit[0]:
                return _TAG + "merge" if value == "<<" else _PLAIN
            return super().resolve(kind, value, implicit)

    def mapping(loader: Any, node: Any) -> Iterator[Any]:
        # In two steps, so that the parts of a deep document do not wait for each other on the stack.
        made: dict[str, Any] = {}
        yield made
        if not isinstance(node, yaml.MappingNode):
            raise BadYaml("yaml: cannot decode !!str as a !!map")
        loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            if isinstance(key, dict | list):
                raise BadYaml("yaml: invalid map key: " + ("map" if isinstance(key, dict) else "sequence"))
            made[_key(key)] = loader.construct_object(value_node, deep=True)

    Loader.add_constructor(_PLAIN, lambda loader, node: plain(node.value))
    Loader.add_constructor(_TAG + "map", mapping)
    for name in ("timestamp", "set", "omap", "pairs", "binary"):
        Loader.add_constructor(_TAG + name, lambda loader, node: loader.construct_scalar(node))
    return Loader


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, float):
        return f"{key:g}"
    return "null" if key is None else str(key)


def load(data: bytes | str) -> Any:
    """The value of the first document; None of an empty text. Raises BadYaml."""
    import yaml

    if isinstance(data, bytes):
        try:
            data = data.decode()
        except UnicodeDecodeError:
            raise BadYaml("yaml: invalid UTF-8") from None
    try:
        _check(data)
        return next(iter(yaml.load_all(data, Loader=_loader())), None)
    except yaml.YAMLError as error:
        raise BadYaml(complaint(error)) from None
    except RecursionError:
        raise BadYaml("yaml: exceeded max depth") from None
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        # A tag that does not fit its value.
        raise error if isinstance(error, BadYaml) else BadYaml(f"yaml: cannot decode: {error}") from None


def _check(data: str) -> None:
    """Refuses a document that is nested too deeply, contains itself, or is mostly repetition of its own parts."""
    import yaml

    loader: Any = getattr(yaml, "CLoader", yaml.Loader)
    sizes: dict[str, int] = {}
    open_: list[tuple[str, int]] = []
    total = repeated = 0
    for event in yaml.parse(data, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in {anchor for anchor, _ in open_}:
                raise BadYaml(f"yaml: anchor '{event.anchor}' value contains itself")
            size = sizes.get(event.anchor or "", 1)
            total += size
            repeated += size
            _bounded(total, repeated)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            total += 1
            open_.append((event.anchor or "", total))
            if len(open_) > MAX_DEPTH:
                raise BadYaml("yaml: exceeded max depth")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, began = open_.pop()
            if anchor:
                sizes[anchor] = total - began + 1
        elif isinstance(event, yaml.DocumentEndEvent):
            return


_TWICE = "yaml: unmarshal errors:\n"


def repeated(data: bytes | str) -> str:
    """What Go's package says of keys that the first document has twice, all in one text; "" when there are none."""
    import yaml

    try:
        root = next(iter(yaml.compose_all(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))), None)
    except yaml.YAMLError:
        return ""
    lines = [f"  line {line}: key {key} already set in map" for line, key in _repeated(root, set())]
    return _TWICE + "\n".join(lines) if lines else ""


def _repeated(node: Any, seen: set[int]) -> Iterator[tuple[int, str]]:
    if node is None or id(node) in seen or not isinstance(node.value, list):
        return
    seen.add(id(node))
    keys: set[str] = set()
    for part in node.value:
        if not isinstance(part, tuple):
            yield from _repeated(part, seen)
            continue
        key, value = part
        yield from _repeated(value, seen)
        word = None if key.style else key.value
        if isinstance(key.value, str) and word != "<<":
            text = key.value if word is None else plain(word)
            shown = json.dumps(text, ensure_ascii=False) if isinstance(text, str) else _key(text)
            if shown in keys:
                yield value.start_mark.line + 1, shown
            keys.add(shown)


def sentences(text: str) -> list[str]:
    """The single lines of what `repeated` says, as warnings have them; any other text as it is."""
    return [line.strip() for line in text.removeprefix(_TWICE).split("\n")] if text.startswith(_TWICE) else [text]


def _bounded(total: int, repeated: int) -> None:
    if repeated <= _ALIASES_FREE or total <= _NODES_FREE:
        return
    spread = (min(max(total, _NODES_LOW), _NODES_HIGH) - _NODES_LOW) / (_NODES_HIGH - _NODES_LOW)
    if repeated / total > 0.99 - 0.89 * spread or total > 2 * _NODES_LOW:
        raise BadYaml("yaml: document contains excessive aliasing")


def complaint(error: Any) -> str:
    """What is wrong with a YAML text, in the words of Go's package: only its scanner counts lines from one, and the
    first line is not named."""
    line = 0
    for mark in (getattr(error, "context_mark", None), getattr(error, "problem_mark", None)):
        if mark is not None and mark.line:
            line = mark.line + (type(error).__name__ == "ScannerError")
            break
    problem = getattr(error, "problem", None) or str(error)
    return f"yaml: line {line}: {problem}" if line else f"yaml: {problem}"
