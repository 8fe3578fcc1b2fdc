"""An applied configuration read by its schema: the fields that it names, or everything that does not fit.

Source of the rules and of the wording: the typed values of structured merge diff.
"""

from __future__ import annotations

from typing import Any

from k3s.api.fieldset import FieldSetError, Path, Paths, SchemaNode, child_of, element_of, is_atomic, keys_of, shown
from k3s.api.misfit import misfit

# Upstream reads no more of a map after a field that it does not know.
_UNKNOWN = "field not declared in schema"


def of_value(node: SchemaNode, value: Any) -> Paths:
    """The fields that an applied configuration names; raises FieldSetError for all that do not fit the schema."""
    out: set[Path] = set()
    faults: list[FieldSetError] = []
    _collect(node, value, (), out, faults)
    if len(faults) > 1:
        raise FieldSetError((), "errors:\n" + "\n".join(f"  {fault}" for fault in faults))
    if faults:
        raise faults[0]
    return frozenset(out)


def _collect(node: SchemaNode | None, value: Any, path: Path, out: set[Path], faults: list[FieldSetError]) -> None:
    if node is not None and (why := misfit(node.type, value)):
        faults.append(FieldSetError(path, why))
    elif value is None or is_atomic(node, value):
        out.add(path)
        if node is not None:
            _collect_atomic(node, value, path, faults)
    elif isinstance(value, dict):
        for key, inner in value.items():
            below = (*path, "f:" + key)
            child = child_of(node, key)
            if child is None and node is not None and not node.preserve_unknown:
                faults.append(FieldSetError(below, _UNKNOWN))
                return
            _collect(child, inner, below, out, faults)
            if inner is None or inner == {} or not (node is not None and key in node.fields):
                out.add(below)
    elif node is not None:
        _collect_elements(node, value, path, out, faults)


def _collect_atomic(node: SchemaNode, value: Any, path: Path, faults: list[FieldSetError]) -> None:
    """What has one owner as a whole has to fit the schema all the same."""
    inside: set[Path] = set()
    if isinstance(value, list):
        for i, inner in enumerate(value):
            _collect(node.items(), inner, (*path, f"i:{i}"), inside, faults)
    elif isinstance(value, dict) and not node.preserve_unknown:
        for key, inner in value.items():
            child = node.child(key)
            if child is None:
                faults.append(FieldSetError((*path, "f:" + key), _UNKNOWN))
                return
            _collect(child, inner, (*path, "f:" + key), inside, faults)


def _collect_elements(
    node: SchemaNode, value: list[Any], path: Path, out: set[Path], faults: list[FieldSetError]
) -> None:
    seen: set[str] = set()
    for i, inner in enumerate(value):
        try:
            element = _configured(node, inner, path, i)
        except FieldSetError as fault:
            faults.append(fault)
            return
        if element in seen:
            faults.append(FieldSetError(path, f"duplicate entries for key {shown((element,))}"))
        seen.add(element)
        _collect(node.items(), inner, (*path, element), out, faults)
        out.add((*path, element))


def _configured(node: SchemaNode, inner: Any, path: Path, index: int) -> str:
    """The path element of one element of a configuration; raises FieldSetError for one that cannot be told apart."""
    kind = "null" if inner is None else "map" if isinstance(inner, dict) else "list" if isinstance(inner, list) else ""
    why = _WRONG_IN_MAPS.get(kind, "") if keys_of(node) else _WRONG_IN_SETS.get(kind, "")
    if why:
        raise FieldSetError(path, f"element {index}: {why}")
    return element_of(node, inner, path, index)


_WRONG_IN_MAPS = {
    "null": "associative list with keys may not have a null element",
    "list": "associative list with keys may not have non-map elements",
    "": "associative list with keys may not have non-map elements",
}
_WRONG_IN_SETS = {
    "null": "associative list without keys has an element that's an explicit null",
    "map": "associative list without keys has an element that's a map type",
    "list": "not supported: associative list with lists as elements",
}
