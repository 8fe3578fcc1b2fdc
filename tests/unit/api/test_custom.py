"""Custom resources against their schemas."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.api import kinds, schema

SPEC = {
    "type": "object",
    "required": ["n"],
    "properties": {
        "n": {"type": "integer", "minimum": 1, "maximum": 5},
        "s": {"type": "string", "pattern": "^a", "maxLength": 3, "enum": ["a", "ab", "b"]},
        "p": {"x-kubernetes-int-or-string": True},
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "maxItems": 2},
        "opt": {"type": "string", "nullable": True},
        "one": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "additionalProperties": {}},
    },
}
NODE = schema.custom({"type": "object", "properties": {"spec": SPEC}})
KIND = kinds.make("a.io", "v1", "Thing", "things", namespaced=True, custom=True, schema=NODE)


@pytest.mark.parametrize(
    ("spec", "causes"),
    [
        ({"n": 1, "s": "ab", "p": "x", "set": ["a"], "opt": None}, []),
        ({}, [("FieldValueRequired", "spec.n", "Required value")]),
        (
            {"n": "x"},
            [
                (
                    "FieldValueTypeInvalid",
                    "spec.n",
                    'Invalid value: "string": spec.n in body must be of type integer: "string"',
                )
            ],
        ),
        (
            {"n": 0},
            [("FieldValueInvalid", "spec.n", "Invalid value: 0: spec.n in body should be greater than or equal to 1")],
        ),
        (
            {"n": 1, "s": "b"},
            [("FieldValueInvalid", "spec.s", "Invalid value: \"b\": spec.s in body should match '^a'")],
        ),
        (
            {"n": 1, "s": "abc"},
            [("FieldValueNotSupported", "spec.s", 'Unsupported value: "abc": supported values: "a", "ab", "b"')],
        ),
        ({"n": 1, "set": ["a", "a"]}, [("FieldValueDuplicate", "spec.set[1]", 'Duplicate value: "a"')]),
        (
            {"n": 1, "set": ["a", "b", "c"]},
            [("FieldValueTooMany", "spec.set", "Too many: 3: must have at most 2 items")],
        ),
        ({"n": 1, "one": {"a": 1}}, []),
        (
            {"n": 1, "one": {}},
            [
                (
                    "FieldValueInvalid",
                    "spec.one",
                    'Invalid value: "": "spec.one" must validate one and only one schema (oneOf). Found none valid',
                )
            ],
        ),
    ],
)
def test_causes(spec: dict[str, Any], causes: list[tuple[str, str, str]]) -> None:
    """Each rule has its reason and its words."""
    obj = {"apiVersion": "a.io/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec}
    pruned, unknown = schema.prune(KIND, obj)
    assert unknown == []
    found = [(c["reason"], c["field"], c["message"]) for c in schema.validate(KIND, pruned)]
    assert found == causes


def test_pruning_keeps_what_is_valid_and_leaves_types_to_validation() -> None:
    """Unknown fields go; a value of another type stays to be named; metadata is decoded strictly."""
    pruned, unknown = schema.prune(KIND, {"metadata": {"name": "x"}, "spec": {"n": "x", "zz": 1}, "yy": 2})
    assert unknown == ["spec.zz", "yy"]
    assert pruned["spec"] == {"n": "x"}
    with pytest.raises(Exception, match=r"cannot unmarshal number into Go struct field ObjectMeta\.\S*labels"):
        schema.prune(KIND, {"metadata": {"labels": {"a": 1}}})
