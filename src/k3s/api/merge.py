"""Strategic merge: lists merge by the keys that the schema names, and `$` directives say what plain values cannot.

    $patch: replace | delete          in a map, or in one element of a list
    $retainKeys: [a, b]               every other key of the map goes
    $setElementOrder/f: […]           the order of the elements of the list f
    $deleteFromPrimitiveList/f: […]   values that leave the list f

Elements that only the server has keep their place relative to each other; where nothing relates the two lists, those
of the patch come first. Source: the strategic merge patch of the API machinery (API conventions, KEP-537).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from k3s.api.errors import ApiError, BadRequest, Invalid

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_FROM = "$deleteFromPrimitiveList/"


class SchemaNode(Protocol):
    """What merging needs to know about one place of a schema; `api.schema.Node` is one."""

    merge_key: str
    type: str

    @property
    def name(self) -> str:
        """What the place is called in messages."""

    @property
    def patch_strategies(self) -> Collection[str]:
        """Some of merge, replace and retainKeys."""

    def child(self, field: str) -> SchemaNode | None:
        """The place of one field."""

    def items(self) -> SchemaNode | None:
        """The place of list elements or map values."""


class MergeError(ApiError):
    """A patch that contradicts itself or the schema; upstream answers such ones with 500 and no reason."""

    code, reason = 500, ""


def strategic_merge(node: SchemaNode, obj: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The object after the patch; neither is changed. Raises MergeError, BadRequest or Invalid."""
    return _merge_map(node, obj, patch)


def _merge_map(node: SchemaNode | None, original: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    if _PATCH in patch:
        return _directed(patch)
    if _RETAIN in patch:
        original, patch = _retain(original, patch)
    result = dict(original)
    done: set[str] = set()
    for key, order in patch.items():
        if key.startswith(_ORDER):
            field = _field_of(key, _ORDER, "invalid patch format of setElementOrder list")
            _ordered(node, result, field, patch, order)
            done.add(field)
    for key, value in patch.items():
        if key in done or key.startswith(_ORDER):
            continue
        if key.startswith(_DELETE_FROM):
            field = _field_of(key, _DELETE_FROM, "invalid patch format of primitive list")
            if isinstance(result.get(field), list) and isinstance(value, list):
                gone = {_hashable(element) for element in value}
                result[field] = [element for element in result[field] if _hashable(element) not in gone]
        elif value is None:
            result.pop(key, None)
        else:
            _set(node, result, key, value)
    return result


def _set(node: SchemaNode | None, result: dict[str, Any], key: str, value: Any) -> None:
    old = result.get(key)
    if isinstance(old, dict) and isinstance(value, dict):
        child = _child(node, key)
        if "replace" in child.patch_strategies:
            result[key] = value
        else:
            result[key] = _merge_map(child, old, value)
    elif isinstance(old, list) and isinstance(value, list):
        result[key] = _merge_list(_child(node, key), old, value)
    else:
        result[key] = _cleaned(value)


def _child(node: SchemaNode | None, key: str) -> SchemaNode:
    child = node.child(key) if node is not None else None
    if child is None:
        name = node.name if node is not None else ""
        raise MergeError(f'unable to find api field in struct {name} for the json tag "{key}"')
    return child


def _field_of(key: str, prefix: str, why: str) -> str:
    field = key[len(prefix) :]
    if not field:
        raise BadRequest(why)
    return field


def _directed(patch: dict[str, Any]) -> dict[str, Any]:
    directive = patch[_PATCH]
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _PATCH}
    if directive == "delete":
        return {}
    raise _unknown_directive(directive, patch)


def _unknown_directive(directive: Any, patch: dict[str, Any]) -> MergeError:
    return MergeError(f"unknown patch type: {go_text(directive)} in map: {go_text(patch)}")


def _no_merge_key(element: dict[str, Any], key: str) -> MergeError:
    return MergeError(f"map: {go_text(element)} does not contain declared merge key: {key}")


def _retain(original: dict[str, Any], patch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The original without the keys that are not to be retained, and the patch without the directive."""
    keys = patch[_RETAIN]
    if not isinstance(keys, list):
        raise BadRequest("invalid patch format of retainKeys")
    rest = {key: value for key, value in patch.items() if key != _RETAIN}
    for key, value in rest.items():
        if value is not None and key not in keys and not key.startswith((_DELETE_FROM, _ORDER)):
            # Upstream's reason is "patch content doesn't match retainKeys list", but it does not tell.
            raise Invalid("the server rejected our request due to an error in our request", {})
    return {key: value for key, value in original.items() if key in keys}, rest


def _cleaned(value: Any) -> Any:
    """A patch value for a place where nothing was: without nulls and directives."""
    if isinstance(value, dict):
        return {
            key: _cleaned(inner)
            for key, inner in value.items()
            if inner is not None and not key.startswith((_ORDER, _DELETE_FROM)) and key not in (_PATCH, _RETAIN)
        }
    if isinstance(value, list):
        return [_cleaned(inner) for inner in value if not (isinstance(inner, dict) and inner.get(_PATCH) == "delete")]
    return value


# --- lists ---


def _merge_list(node: SchemaNode, original: list[Any], patch: list[Any]) -> list[Any]:
    if "merge" not in node.patch_strategies:
        return patch
    if not original and not patch:
        return original
    if not _same_kind(original, patch):
        return _merge_values(original, patch)
    key = node.merge_key
    if not key:
        raise MergeError(f"cannot merge lists without merge key for {node.name}")
    kept, changes, replaced = _without_directives(original, patch, key)
    if replaced:
        return changes
    merged = _merge_elements(node.items(), kept, changes, key)
    return _in_order(merged, changes, kept, key)


def _same_kind(original: list[Any], patch: list[Any]) -> bool:
    """True when all elements are maps, False when none is; a mixture cannot be merged."""
    kinds = {isinstance(element, dict) for element in original} | {isinstance(element, dict) for element in patch}
    if any(isinstance(element, list) for element in (*original, *patch)):
        raise Invalid("the server rejected our request due to an error in our request", {})
    if len(kinds) > 1 or len({type(element) for element in (*original, *patch)}) > 1:
        raise MergeError(f"list element types are not identical: {go_text([*original, *patch])}")
    return True in kinds


def _merge_values(original: list[Any], patch: list[Any]) -> list[Any]:
    merged = list(dict.fromkeys([*original, *patch]))
    return _in_order(merged, patch, original, "")


def _without_directives(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any], bool]:
    """The original after deletions, the elements to merge, and whether these replace the whole list."""
    changes: list[Any] = []
    replaced = False
    for element in patch:
        if _PATCH not in element:
            changes.append(element)
            continue
        directive = element[_PATCH]
        if directive == "delete":
            if key not in element:
                raise _no_merge_key(element, key)
            original = [old for old in original if _key_of(old, key) != element[key]]
        elif directive == "replace":
            replaced = True
        elif directive == "merge":
            raise MergeError("merging lists cannot yet be specified in the patch")
        else:
            raise _unknown_directive(directive, element)
    return original, changes, replaced


def _key_of(element: dict[str, Any], key: str) -> Any:
    if key not in element:
        raise _no_merge_key(element, key)
    return element[key]


def _merge_elements(node: SchemaNode | None, original: list[Any], changes: list[Any], key: str) -> list[Any]:
    merged = list(original)
    places: dict[Any, int] = {}
    for i, old in enumerate(original):
        places.setdefault(_hashable(_key_of(old, key)), i)
    for element in changes:
        wanted = _hashable(_key_of(element, key))
        place = places.get(wanted)
        if place is None:
            places[wanted] = len(merged)
            merged.append(_cleaned(element))
        else:
            merged[place] = _merge_map(node, merged[place], element)
    return merged


def _hashable(value: Any) -> Any:
    return go_text(value) if isinstance(value, dict | list) else value


def _identity(element: Any, key: str) -> Any:
    """What makes an element the same as another one: its merge key, or itself when it is a plain value."""
    return _hashable(element.get(key) if key and isinstance(element, dict) else element)


def _positions(order: list[Any], key: str) -> dict[Any, int]:
    places: dict[Any, int] = {}
    for i, element in enumerate(order):
        places.setdefault(_identity(element, key), i)
    return places


def _in_order(merged: list[Any], order: list[Any], server: list[Any], key: str) -> list[Any]:
    """The merged elements: those in `order` as ordered there, the others as on the server, interleaved as there too."""
    wanted, before = _positions(order, key), _positions(server, key)
    given = [element for element in merged if _identity(element, key) in wanted]
    given.sort(key=lambda element: wanted[_identity(element, key)])
    others = [element for element in merged if _identity(element, key) not in wanted]
    result: list[Any] = []
    i = j = 0
    while i < len(others) and j < len(given):
        left = before.get(_identity(others[i], key), -1)
        right = before.get(_identity(given[j], key), -1)
        if 0 <= left < right:
            result.append(others[i])
            i += 1
        else:
            result.append(given[j])
            j += 1
    return [*result, *others[i:], *given[j:]]


def _ordered(node: SchemaNode | None, result: dict[str, Any], field: str, patch: dict[str, Any], order: Any) -> None:
    """Merges the list `field` and puts it in the order that the directive asks for."""
    changes, original = patch.get(field), result.get(field)
    for value in (order, changes, original):
        if value is not None and not isinstance(value, list):
            raise MergeError(f"expected a []interface {{}}, but received a {go_type(value)}")
    if not isinstance(order, list):
        raise BadRequest("invalid patch format of setElementOrder list")
    child = _child(node, field)
    key = child.merge_key
    if changes is not None:
        _check_order(changes, order, key)
    if changes is None and original is None:
        return
    if changes is None:
        merged = original
    elif original is None:
        merged = _cleaned(changes)
    else:
        merged = _merge_list(child, original, changes)
    result[field] = _in_order(merged or [], order, original or [], key)


def _check_order(changes: list[Any], order: list[Any], key: str) -> None:
    """Raises MergeError unless the elements of the patch stand in the order in the same sequence."""
    at = 0
    for element in changes:
        if isinstance(element, dict) and element.get(_PATCH) == "delete":
            continue
        while at < len(order) and _identity(order[at], key) != _identity(element, key):
            at += 1
        if at == len(order):
            texts = f"{go_text(changes)}\n doesn't match $setElementOrder list:\n{go_text(order)}\n"
            raise MergeError("The order in patch list:\n" + texts)
        at += 1


# --- how Go prints values in messages ---


def go_type(value: Any) -> str:
    """The name of the Go type that holds a JSON value."""
    names = {dict: "map[string]interface {}", list: "[]interface {}", str: "string", bool: "bool", int: "int64"}
    return names.get(type(value), "float64" if isinstance(value, float) else "<nil>")


def go_text(value: Any) -> str:
    """A JSON value as Go's `%v` prints it: map[a:1 b:[x y]]."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(go_text(element) for element in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<nil>" if value is None else str(value)
