"""From a request's body to an object: formats, type and version, unknown fields. Wording as upstream's decoders'."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from k3s.api import jsontext, schema, yamltext
from k3s.api.errors import ApiError, BadRequest, TooLarge, UnsupportedMediaType, invalid
from k3s.api.kinds import Kind, Registry, split_api_version
from k3s.api.object import Object
from k3s.api.structure import Mistyped
from k3s.apiserver.limits import late
from k3s.apiserver.media import JSON, PROTOBUF, SUPPORTED, YAML
from k3s.base.incoming import MAX_BODY
from k3s.base.message import Request

PATCHES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
    "application/apply-patch+cbor": "",
}
_SHOWN = 30
# As many as upstream's decoder keeps.
_MOST_ERRORS = 100
_INT64 = (-(1 << 63), (1 << 63) - 1)


def media_type(request: Request) -> str:
    """The content type without its parameters; JSON when there is none."""
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower() or JSON


def check_whole(request: Request) -> None:
    """Raises TooLarge, Timeout for a body that is not there."""
    if request.too_large:
        raise TooLarge(f"Request entity too large: limit is {MAX_BODY}", {})
    if request.late:
        raise late()


def read(request: Request, expected: str = "") -> Any:
    """The value of a body. Raises BadRequest, TooLarge, UnsupportedMediaType."""
    if request.value is not None:
        return request.value
    check_whole(request)
    kind = media_type(request)
    if kind == JSON:
        return _json(request.body, expected)
    if kind == YAML:
        return yaml(request.body, expected)
    if kind == PROTOBUF:
        from k3s.api import wire

        return wire.decode(request.body)
    listed = ", ".join(SUPPORTED)
    raise UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {listed}", None
    )


def _json(data: bytes, expected: str) -> Any:
    try:
        return jsontext.value(data)
    except jsontext.Malformed as error:
        raise _unparsed(expected, f"couldn't get version/kind; json parse error: {error}", data) from None


def yaml(data: bytes, expected: str) -> Any:
    """The value of a YAML text (its first document). Raises BadRequest."""
    try:
        return yamltext.load(data)
    except yamltext.BadYaml as error:
        raise _unparsed(expected, str(error), data.hex()) from None


def _unparsed(expected: str, why: str, data: bytes | str) -> ApiError:
    if expected == "DeleteOptions":
        return ApiError(why, code=500)  # the one body whose errors the reference server does not explain
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    shown = "<empty>" if not text else text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
    of = f" (must be of type {expected})" if expected else ""
    return BadRequest(f"the object provided is unrecognized{of}: {why} ({shown})")


def apply_value(data: bytes) -> Any:
    """The value of an apply configuration (YAML or JSON). Raises BadRequest."""
    if data.lstrip()[:1] == b"{":
        try:
            return jsontext.value(data)
        except jsontext.Malformed:
            pass  # flow mappings of YAML look like JSON, too
    try:
        return yamltext.load(data)
    except yamltext.BadYaml as error:
        raise BadRequest(f"error decoding YAML: error converting YAML to JSON: {error}") from None


def duplicates(request: Request, value: Any) -> list[str]:
    """What is said of keys that a body has twice; `value` is what its decoder made of it (the last one wins)."""
    data, media = request.body, media_type(request)
    if not data or media == PROTOBUF:
        return []
    if media == YAML:
        text = yamltext.repeated(data)
        return [text] if text else []
    # A key that was dropped took its quotes with it: cheaper to count than to look for.
    if data.count(b'"') == msgspec.json.encode(value).count(b'"'):
        return []
    return list(dict.fromkeys(f'duplicate field "{path}"' for path, again in jsontext.keys(data) if again))


def repeated(request: Request, value: Any) -> str:
    """What is said of keys that an apply configuration has twice; `value` is what its decoder made of it."""
    data = request.body
    if not data or (data.lstrip()[:1] == b"{" and data.count(b'"') == msgspec.json.encode(value).count(b'"')):
        return ""
    return yamltext.repeated(data)


def rounded(value: Any) -> Any:
    """The value with whole numbers beyond 64 bits as the nearest one that a double can hold, as Go reads them."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    if isinstance(value, int) and not _INT64[0] <= value <= _INT64[1]:
        return int(Decimal(repr(float(value))))
    return value


def custom_type(value: Any, kind: Kind, data: bytes) -> None:
    """A custom object has to say what it is. Raises BadRequest, Invalid."""
    if not isinstance(value, dict):
        return
    if not value.get("kind"):
        text = data.decode("utf-8", "replace")
        raise _unparsed(kind.kind, f"Object 'Kind' is missing in '{text}'", data)
    version, name = value.get("apiVersion", ""), value["kind"]
    if version != kind.api_version:
        raise BadRequest(
            f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        )
    if name != kind.kind:
        text = f'Invalid value: "{name}": must be {kind.kind}'
        cause = {"reason": "FieldValueInvalid", "message": text, "field": "kind"}
        raise invalid(kind.group, name, (value.get("metadata") or {}).get("name", ""), [cause])


def of_kind(value: Any, kind: Kind, registry: Registry, wanted: tuple[str, str] | None = None) -> Object:
    """The body as an object of `kind` (or of the (apiVersion, kind) that a subresource takes). Raises BadRequest."""
    api_version, name = wanted or (kind.api_version, kind.kind)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        struct = (
            'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
        )
        why = f"json: cannot unmarshal {jsontext.kind_of(value)} into Go value of type {struct}"
        data = msgspec.json.encode(value).hex()
        raise _unparsed(name, f"couldn't get version/kind; json parse error: {why}", data)
    for key in ("apiVersion", "kind"):
        if not isinstance(value.get(key, ""), str):
            text = msgspec.json.encode(value)
            raise _unparsed(
                name,
                "couldn't get version/kind; json parse error: json: cannot unmarshal "
                f"{jsontext.kind_of(value[key])} into Go struct field .{key} of type string",
                text,
            )
    given_version, given_kind = value.get("apiVersion") or api_version, value.get("kind") or name
    if (given_version, given_kind) != (api_version, name):
        _refuse(given_version, given_kind, api_version, name, registry)
    obj: Object = value
    if value.get("apiVersion") != api_version or value.get("kind") != name:
        obj = {"kind": name, "apiVersion": api_version, **{k: v for k, v in value.items() if k not in _TYPE}}
    return obj


_TYPE = frozenset({"kind", "apiVersion"})


def _refuse(given_version: str, given_kind: str, api_version: str, name: str, registry: Registry) -> None:
    group, version = split_api_version(given_version)
    if registry.by_kind(group, version, given_kind) is None:
        raise BadRequest(
            f'{given_kind} in version "{version}" cannot be handled as a {name}: no kind "{given_kind}" is registered '
            f'for version "{given_version}" in scheme "pkg/api/legacyscheme/scheme.go:30"'
        )
    if given_kind == name:
        raise BadRequest(
            f"the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )
    package = split_api_version(api_version)[0].partition(".")[0] or "core"
    raise BadRequest(
        f'{given_kind} in version "{version}" cannot be handled as a {name}: '
        f"converting ({version}.{given_kind}) to ({package}.{name}): unknown conversion"
    )


def shaped(
    kind: Kind,
    obj: Object,
    validation: str,
    warnings: list[str],
    twice: Sequence[str] = (),
    patch: str = "",
    old: Object | None = None,
    request: Request | None = None,
) -> Object:
    """The object as its schema has it; unknown fields are refused (Strict), told of (Warn) or dropped (Ignore).

    What is the same as in the stored `old` went through this before. `twice` is what is said of keys that the body
    had twice. For what a patch made (`patch` is its type) the errors are about the patch. `request` is what was sent
    when it is the object itself: its text has the order in which errors are told.
    """
    try:
        obj, unknown = schema.prune(kind, obj, settled(kind, old))
    except Mistyped as error:
        if not patch:
            raise
        raise bad_patch(obj, error.restored if patch == "strategic" else error.problem) from None
    if (unknown or twice) and validation != "Ignore":
        if not (patch or kind.custom):  # a struct has no place for the first of them either
            twice = [text for text in twice if not any(_within(text, at) for at in unknown)]
        texts = list(dict.fromkeys([*twice, *(f'unknown field "{path}"' for path in unknown)]))[:_MOST_ERRORS]
        if request is not None:
            texts = _in_order(request, texts)
        if kind.custom:
            texts.sort(key=lambda text: (not text.startswith("yaml: "), text))
        if validation == "Strict":
            why = "strict decoding error: " + ", ".join(texts)
            if patch:
                raise bad_patch(obj, why)
            raise BadRequest(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}')
        warnings.extend(line for text in texts for line in yamltext.sentences(text))
    if "metadata" not in obj:
        obj = {**obj, "metadata": {}}
    return obj


def _in_order(request: Request, texts: list[str]) -> list[str]:
    """As the decoder meets them: in the order of the text, of YAML by keys, because it becomes JSON first."""
    media = media_type(request)
    if media == YAML:
        return sorted(texts, key=_place)
    if media != JSON or len({text.partition(" ")[0] for text in texts}) < 2:
        return texts
    ranks: dict[str, int] = {}
    for rank, (path, again) in enumerate(jsontext.keys(request.body)):
        ranks.setdefault(f'{"duplicate" if again else "unknown"} field "{path}"', rank)
    return sorted(texts, key=lambda text: ranks.get(text, 0))


def _place(text: str) -> list[tuple[int, str]]:
    """Where a text about a field stands among others; what is said of the whole text comes first."""
    if not text.startswith("unknown field "):
        return []
    path = text.removeprefix('unknown field "').removesuffix('"')
    steps = path.replace("]", "").replace("[", ".").split(".")
    return [(int(step), "") if step.isdecimal() else (-1, step) for step in steps]


def _within(text: str, path: str) -> bool:
    start = f'duplicate field "{path}'
    return text.startswith((start + '"', start + ".", start + "["))


def settled(kind: Kind, old: Object | None) -> Object | None:
    """The stored object, when all of it is as its schema has it: schemas of custom kinds and other versions change."""
    return old if kind.definition and kind.is_storage_version else None


def bad_patch(result: Object, why: str) -> ApiError:
    """Invalid, for a patch whose result cannot be read."""
    text = f"Invalid value: {msgspec.json.encode(msgspec.json.encode(result).decode()).decode()}: {why}"
    return invalid("", "", "", [{"reason": "FieldValueInvalid", "message": text, "field": "patch"}])
