"""Definitions of custom kinds that are refused, with the causes that upstream's rules give."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.api import schema
from k3s.api.kinds import builtin
from k3s.api.validation import validate_create, validate_update

KIND = builtin("apiextensions.k8s.io/v1", "CustomResourceDefinition")
OBJECT = {"type": "object"}
ROOT = "spec.validation.openAPIV3Schema"
TEXT = {"type": "string"}


def _definition(*versions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    names = {"plural": "ws", "kind": "W", "singular": "w", "listKind": "WList"}
    given = versions or ({"schema": {"openAPIV3Schema": OBJECT}},)
    rows = [{"name": f"v{i + 1}", "served": True, "storage": i == 0, **version} for i, version in enumerate(given)]
    base = {"group": "e.io", "scope": "Namespaced", "names": names, "versions": rows}
    obj = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": KIND.kind,
        "metadata": {"name": f"ws.{spec.get('group', 'e.io')}", **spec.pop("metadata", {})},
        "spec": {**base, **spec},
    }
    return schema.defaults(KIND, schema.prune(KIND, obj)[0])


def _causes(obj: dict[str, Any]) -> list[str]:
    return [f"{c['field']}: {c['message']}" for c in validate_create(KIND, obj)]


def _schema(**properties: Any) -> dict[str, Any]:
    return {"schema": {"openAPIV3Schema": {**OBJECT, "properties": properties}}}


SCHEMAS: list[tuple[dict[str, Any], list[str]]] = [
    ({"a": TEXT}, []),
    ({"a": {}}, [".properties[a].type: Required value: must not be empty for specified object fields"]),
    ({"a": {"x-kubernetes-preserve-unknown-fields": True}}, []),
    (
        {"a": {"type": "array", "items": {}}},
        [".properties[a].items.type: Required value: must not be empty for specified array items"],
    ),
    (
        {"a": {"x-kubernetes-int-or-string": True, "x-kubernetes-preserve-unknown-fields": True}},
        [
            ".properties[a].x-kubernetes-preserve-unknown-fields: Invalid value: true: "
            "must be false if x-kubernetes-int-or-string is true"
        ],
    ),
    ({"a": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}}, []),
    (
        {"a": {"type": "object", "x-kubernetes-embedded-resource": True}},
        [
            ".properties[a].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true "
            "without x-kubernetes-preserve-unknown-fields"
        ],
    ),
    (
        {"a": {**TEXT, "allOf": [{"nullable": True, "x-kubernetes-int-or-string": True, "description": "d"}]}},
        [
            ".properties[a].allOf[0].description: Forbidden: must be empty to be structural",
            ".properties[a].allOf[0].nullable: Forbidden: must be false to be structural",
            ".properties[a].allOf[0].x-kubernetes-int-or-string: Forbidden: must be false to be structural",
        ],
    ),
    (
        {"a": {**TEXT, "pattern": "("}},
        [
            '.properties[a].pattern: Invalid value: "(": must be a valid regular expression, but isn\'t: '
            "error parsing regexp: missing closing ): `(`"
        ],
    ),
    ({"metadata": TEXT}, ['.properties[metadata].type: Invalid value: "string": must be object']),
    ({"metadata": {**OBJECT, "properties": {"name": {**TEXT, "maxLength": 3}}}}, []),
    ({"kind": {"type": "integer"}}, ['.properties[kind].type: Invalid value: "integer": must be string']),
    (
        {"a": {**TEXT, "default": 1}},
        [
            '.properties[a].default: Invalid value: "integer":  in body must be of type string: "integer"',
        ],
    ),
    (
        {"a": {**OBJECT, "properties": {"b": TEXT}, "default": {"c": "x"}}},
        ['.properties[a].default: Invalid value: {"c":"x"}: must not have unknown fields'],
    ),
    (
        {"a": {**OBJECT, "required": ["b"], "properties": {"b": TEXT}, "default": {}}},
        [".properties[a].default.b: Required value"],
    ),
    (
        {"metadata": {**OBJECT, "properties": {"name": {**TEXT, "default": "x"}}}},
        [".properties[metadata].properties[name].default: Forbidden: must not be set in top-level metadata"],
    ),
    (
        {"a": {**TEXT, "uniqueItems": True}},
        [".properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true"],
    ),
    ({"a": {**TEXT, "$ref": "x"}}, [".properties[a].$ref: Forbidden: $ref is not supported"]),
    (
        {"a": {"type": "null"}},
        [
            '.properties[a].type: Unsupported value: "null": supported values: "array", "boolean"',
            ".properties[a].type: Forbidden: type cannot be set to null, use nullable as an alternative",
        ],
    ),
    (
        {"a": {"type": "array", "items": [TEXT]}},
        [".properties[a].items: Forbidden: items must be a schema object and not an array"],
    ),
    (
        {"a": {**TEXT, "x-kubernetes-list-type": "set"}},
        ['.properties[a].type: Invalid value: "string": must be array if x-kubernetes-list-type is specified'],
    ),
    (
        {"a": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "bag"}},
        ['.properties[a].x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "set", "map"'],
    ),
    (
        {"a": {"type": "array", "items": OBJECT, "x-kubernetes-list-type": "set"}},
        [
            ".properties[a].items.x-kubernetes-map-type: Invalid value: null: "
            "must be atomic as item of a list with x-kubernetes-list-type=set"
        ],
    ),
    (
        {"a": {"type": "array", "items": TEXT, "x-kubernetes-list-map-keys": ["k"]}},
        [
            ".properties[a].x-kubernetes-list-type: Required value: "
            "must be map if x-kubernetes-list-map-keys is non-empty"
        ],
    ),
    (
        {"a": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "map"}},
        [
            ".properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is",
            '.properties[a].items.type: Invalid value: "string": must be object if parent array\'s',
        ],
    ),
    (
        {
            "a": {
                "type": "array",
                "items": {**OBJECT, "properties": {"k": TEXT}},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k", "z"],
            }
        },
        [
            '.properties[a].x-kubernetes-list-map-keys: Invalid value: ["k","z"]: entries must all be names of item',
            ".properties[a].items.properties[k].default: Required value: this property is in",
        ],
    ),
    (
        {"a": {**OBJECT, "x-kubernetes-map-type": "x"}},
        ['.properties[a].x-kubernetes-map-type: Unsupported value: "x": supported values: "atomic", "granular"'],
    ),
]


@pytest.mark.parametrize(("properties", "expected"), SCHEMAS, ids=range(len(SCHEMAS)))
def test_schemas_are_structural(properties: dict[str, Any], expected: list[str]) -> None:
    """What is wrong with the fields of a schema, in order."""
    found = _causes(_definition(_schema(**properties)))
    assert len(found) == len(expected), found
    for cause, wanted in zip(found, expected, strict=True):
        assert cause.startswith(ROOT + wanted)


def test_what_is_demanded_is_known() -> None:
    """A field that only an alternative mentions is no field."""
    whole = {**OBJECT, "anyOf": [{"properties": {"b": {"minLength": 1}}}]}
    assert _causes(_definition({"schema": {"openAPIV3Schema": whole}})) == [
        f"{ROOT}.properties[b]: Required value: because it is defined in {ROOT}.anyOf[0].properties[b]"
    ]


WHOLE: list[tuple[tuple[dict[str, Any], ...], dict[str, Any], list[str]]] = [
    ((), {"group": "e"}, ['spec.group: Invalid value: "e": should be a domain with at least one dot']),
    (
        (_schema(), {**_schema(a=TEXT), "storage": False}),
        {},
        [],
    ),
    (
        (_schema(a={}), {**_schema(b={}), "storage": False}),
        {},
        [
            "spec.versions[0].schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for",
            "spec.versions[1].schema.openAPIV3Schema.properties[b].type: Required value: must not be empty for",
        ],
    ),
    (
        (_schema(a={}), {**_schema(a={}), "storage": False}),
        {},
        [f"{ROOT}.properties[a].type: Required value: must not be empty for specified object fields"],
    ),
    (({},), {}, ["spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"]),
    (
        ({"schema": {"openAPIV3Schema": {**OBJECT, "nullable": True}}},),
        {},
        [f"{ROOT}.nullable: Forbidden: nullable cannot be true at the root"],
    ),
    (
        ({"schema": {"openAPIV3Schema": {**OBJECT, "enum": [1]}}, "subresources": {"status": {}}},),
        {},
        [f'{ROOT}: Invalid value: {{"type":"object","enum":[1]}}: only [Description Type Format'],
    ),
    (
        ({**_schema(), "deprecationWarning": "x"},),
        {},
        ['spec.versions[0].deprecationWarning: Invalid value: "x": can only be set for deprecated versions'],
    ),
    (
        ({**_schema(), "deprecated": True, "deprecationWarning": "a\nb"},),
        {},
        ['spec.versions[0].deprecationWarning: Invalid value: "a\\nb": must only contain printable'],
    ),
    (
        ({**_schema(), "subresources": {"scale": {"specReplicasPath": ".x", "labelSelectorPath": "y"}}},),
        {},
        [
            'spec.subresources.scale.specReplicasPath: Invalid value: ".x": should be a json path under .spec',
            "spec.subresources.scale.statusReplicasPath: Required value",
            'spec.subresources.scale.labelSelectorPath: Invalid value: "y": must be a simple json path starting with .',
        ],
    ),
    (
        ({**_schema(), "additionalPrinterColumns": [{"name": "", "type": "x", "format": "y", "jsonPath": "z"}]},),
        {},
        [
            "spec.additionalPrinterColumns[0].name: Required value",
            'spec.additionalPrinterColumns[0].type: Invalid value: "x": must be one of boolean,date,integer',
            'spec.additionalPrinterColumns[0].format: Invalid value: "y": must be one of byte,date,date-time',
            'spec.additionalPrinterColumns[0].JSONPath: Invalid value: "z": must be a simple json path starting with .',
        ],
    ),
    (
        (
            {
                **_schema(**{f"f{i}": TEXT for i in range(9)}),
                "selectableFields": [{"jsonPath": f".f{i}"} for i in range(9)],
            },
        ),
        {},
        ["spec.selectableFields: Too many: 9: must have at most 8 items"],
    ),
    (
        (
            {
                **_schema(metadata={**OBJECT, "properties": {"name": TEXT}}),
                "selectableFields": [{"jsonPath": ".metadata.name"}],
            },
        ),
        {},
        ['spec.selectableFields[0].jsonPath: Invalid value: ".metadata.name": must not point to fields in metadata'],
    ),
    (
        (),
        {
            "conversion": {
                "strategy": "Webhook",
                "webhook": {"clientConfig": {}, "conversionReviewVersions": ["v1", "v1"]},
            }
        },
        [
            "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required",
            'spec.conversion.conversionReviewVersions[1]: Invalid value: "v1": duplicate version',
        ],
    ),
    (
        (),
        {"conversion": {"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}}},
        ["spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook"],
    ),
    (
        (),
        {"group": "a.k8s.io", "metadata": {"annotations": {"api-approved.kubernetes.io": "yes"}}},
        [
            'metadata.annotations[api-approved.kubernetes.io]: Invalid value: "yes": protected groups must have '
            'approval annotation "api-approved.kubernetes.io" with either a URL or a reason starting with "unapproved"'
        ],
    ),
    ((), {"group": "a.k8s.io", "metadata": {"annotations": {"api-approved.kubernetes.io": "unapproved, a test"}}}, []),
]


@pytest.mark.parametrize(("versions", "spec", "expected"), WHOLE, ids=range(len(WHOLE)))
def test_definitions_are_whole(versions: tuple[Any, ...], spec: dict[str, Any], expected: list[str]) -> None:
    """What is wrong with a definition, where all versions agree under the name of what they share."""
    found = _causes(_definition(*versions, **spec))
    assert len(found) == len(expected), found
    for cause, wanted in zip(found, expected, strict=True):
        assert cause.startswith(wanted)


def test_an_approval_that_was_missing_may_stay_missing() -> None:
    """Only a change of how a protected group stands is judged."""
    old = _definition(group="a.k8s.io")
    new = _definition({"schema": {"openAPIV3Schema": {**OBJECT, "description": "d"}}}, group="a.k8s.io")
    assert validate_update(KIND, old, new) == []
