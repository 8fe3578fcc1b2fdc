"""OpenAPI version 2: the same operations and schemas in the older form, as JSON and as gnostic's protobuf.

kubectl up to 1.26 insists on the protobuf form. Source of the field numbers: OpenAPIv2.proto of gnostic.
"""

from __future__ import annotations

import struct
from typing import Any

from k3s.api.object import Object, encode

_THIRD, _SECOND = "#/components/schemas/", "#/definitions/"
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")


def document(paths: Object, definitions: Object, version: str) -> Object:
    """The document in JSON form, of paths and schemas in the form of version 3."""
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": {path: _item(item) for path, item in sorted(paths.items())},
        "definitions": {name: _schema(definition) for name, definition in definitions.items()},
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
        "security": [{"BearerToken": []}],
    }


def join(document: Object, other: Object, base: str) -> None:
    """Adds to a document what another server's tells of the paths below `base`, and its definitions.

    Where both define a name, the one of `document` stays: they are the common types.
    """
    for path, item in (other.get("paths") or {}).items():
        if path.startswith(base):
            document["paths"].setdefault(path, item)
    for name, definition in (other.get("definitions") or {}).items():
        document["definitions"].setdefault(name, definition)


def _item(item: Object) -> Object:
    out: Object = {method: _operation(item[method]) for method in _METHODS if method in item}
    if "parameters" in item:
        out["parameters"] = [_parameter(parameter) for parameter in item["parameters"]]
    return out


def _operation(operation: Object) -> Object:
    out = {key: value for key, value in operation.items() if key not in ("requestBody", "parameters", "responses")}
    parameters = [_parameter(parameter) for parameter in operation.get("parameters", ())]
    body = operation.get("requestBody")
    if body is not None:
        content = body["content"]
        schema = _schema(next(iter(content.values()))["schema"])
        required = {"required": True} if body.get("required") else {}
        parameters.insert(0, {"name": "body", "in": "body", **required, "schema": schema})
        out["consumes"] = list(content)
    if parameters:
        out["parameters"] = parameters
    responses = {}
    for code, answer in operation["responses"].items():
        content = answer.get("content")
        responses[code] = {"description": answer["description"]}
        if content:
            out["produces"] = list(content)
            responses[code]["schema"] = _schema(next(iter(content.values()))["schema"])
    out["responses"] = responses
    out["schemes"] = ["https"]
    return out


def _parameter(parameter: Object) -> Object:
    return {**{key: value for key, value in parameter.items() if key != "schema"}, **parameter["schema"]}


def _schema(value: Any) -> Any:
    if isinstance(value, list):
        return [_schema(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    alternatives = value.get("allOf")
    if isinstance(alternatives, list) and len(alternatives) == 1 and "$ref" in alternatives[0]:
        # Version 2 has no siblings of a reference but extensions.
        rest = {key: inner for key, inner in value.items() if key not in ("allOf", "default", "nullable")}
        return {**_schema(rest), "$ref": _SECOND + alternatives[0]["$ref"].removeprefix(_THIRD)}
    if value.get("x-kubernetes-int-or-string") or ("oneOf" in value and "type" not in value):
        kept = {key: inner for key, inner in value.items() if key.startswith("x-") or key == "description"}
        return {**kept, "type": "string", "format": "int-or-string"} if "oneOf" in value else kept
    out: Object = {}
    for key, inner in value.items():
        if key == "$ref":
            out[key] = _SECOND + inner.removeprefix(_THIRD)
        elif key == "properties":
            out[key] = {name: _schema(field) for name, field in inner.items()}
        elif key in ("items", "additionalProperties"):
            out[key] = _schema(inner)
        elif key not in ("oneOf", "anyOf", "not", "nullable", "allOf"):
            out[key] = inner
    return out


# --- protobuf ---


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _chunk(field: int, data: bytes | str) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _flag(field: int, value: Any) -> bytes:
    return _varint(field << 3) + b"\x01" if value else b""


def _text(field: int, value: Any) -> bytes:
    return _chunk(field, value) if value else b""


def _texts(field: int, values: Any) -> bytes:
    return b"".join(_chunk(field, value) for value in values or ())


def _named(field: int, name: str, value: bytes) -> bytes:
    return _chunk(field, _chunk(1, name) + _chunk(2, value))


def _any(value: Any) -> bytes:
    """A value as YAML text, which JSON is too."""
    return _chunk(2, encode(value) + b"\n")


def _extensions(field: int, value: Object) -> bytes:
    return b"".join(_named(field, key, _any(inner)) for key, inner in sorted(value.items()) if key.startswith("x-"))


def protobuf(document: Object) -> bytes:
    """The document in gnostic's protobuf form."""
    info = document["info"]
    paths = b"".join(_named(2, path, _item_bytes(item)) for path, item in document["paths"].items())
    definitions = b"".join(_named(1, name, _schema_bytes(schema)) for name, schema in document["definitions"].items())
    return b"".join(
        (
            _chunk(1, document["swagger"]),
            _chunk(2, _chunk(1, info["title"]) + _chunk(2, info["version"])),
            _chunk(8, paths),
            _chunk(9, definitions),
        )
    )


_METHOD_NUMBERS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def _item_bytes(item: Object) -> bytes:
    methods = b"".join(_chunk(n, _operation_bytes(item[m])) for m, n in _METHOD_NUMBERS.items() if m in item)
    return methods + b"".join(_chunk(9, _parameter_bytes(parameter)) for parameter in item.get("parameters", ()))


def _operation_bytes(operation: Object) -> bytes:
    answers = b""
    for code, answer in operation["responses"].items():
        schema = _chunk(2, _chunk(1, _schema_bytes(answer["schema"]))) if "schema" in answer else b""
        answers += _named(1, code, _chunk(1, _chunk(1, answer["description"]) + schema))
    return b"".join(
        (
            _texts(1, operation.get("tags")),
            _text(5, operation.get("operationId")),
            _texts(6, operation.get("produces")),
            _texts(7, operation.get("consumes")),
            b"".join(_chunk(8, _parameter_bytes(parameter)) for parameter in operation.get("parameters", ())),
            _chunk(9, answers),
            _texts(10, operation.get("schemes")),
            _extensions(13, operation),
        )
    )


def _parameter_bytes(parameter: Object) -> bytes:
    place, name, required = parameter["in"], parameter["name"], _flag(4, parameter.get("required"))
    if place == "body":
        body = _chunk(2, name) + _chunk(3, place) + required + _chunk(5, _schema_bytes(parameter["schema"]))
        return _chunk(1, _chunk(1, body))
    head = _flag(1, parameter.get("required")) + _chunk(2, place) + _chunk(4, name)
    if place == "path":
        return _chunk(1, _chunk(2, _chunk(4, head + _chunk(5, parameter["type"]))))
    return _chunk(1, _chunk(2, _chunk(3, head + _chunk(6, parameter["type"]))))


_NUMBERS = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_COUNTS = {"maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15, "maxProperties": 17, "minProperties": 18}
_FLAGS = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16}


def _schema_bytes(schema: Object) -> bytes:
    parts = [_text(1, schema.get("$ref")), _text(2, schema.get("format")), _text(3, schema.get("title"))]
    parts.append(_text(4, schema.get("description")))
    if schema.get("default") is not None:
        parts.append(_chunk(5, _any(schema["default"])))
    parts += [_varint(n << 3 | 1) + struct.pack("<d", schema[key]) for key, n in _NUMBERS.items() if key in schema]
    parts += [_flag(n, schema.get(key)) for key, n in _FLAGS.items()]
    parts += [_varint(n << 3) + _varint(schema[key]) for key, n in _COUNTS.items() if key in schema]
    parts.append(_text(13, schema.get("pattern")))
    parts.append(_texts(19, schema.get("required")))
    parts += [_chunk(20, _any(value)) for value in schema.get("enum", ())]
    extra = schema.get("additionalProperties")
    if isinstance(extra, bool):
        parts.append(_chunk(21, _varint(2 << 3) + (b"\x01" if extra else b"\x00")))
    elif isinstance(extra, dict):
        parts.append(_chunk(21, _chunk(1, _schema_bytes(extra))))
    if isinstance(schema.get("type"), str):
        parts.append(_chunk(22, _chunk(1, schema["type"])))
    if isinstance(schema.get("items"), dict):
        parts.append(_chunk(23, _chunk(1, _schema_bytes(schema["items"]))))
    if "properties" in schema:
        fields = b"".join(_named(1, name, _schema_bytes(field)) for name, field in schema["properties"].items())
        parts.append(_chunk(25, fields))
    parts.append(_extensions(31, schema))
    return b"".join(parts)
