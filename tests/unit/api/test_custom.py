"""Custom resources against their schemas."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.api import custom, formats, kinds, schema

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
                    "<nil>",
                    'Invalid value: "": "spec.one" must validate one and only one schema (oneOf). Found none valid',
                ),
                ("FieldValueRequired", "spec.one.a", "Required value"),
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


INT_OR_TEXT = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
RULES: list[tuple[dict[str, Any], Any, list[str]]] = [
    ({"type": "string", "enum": ["a", "b"]}, 5, ["f in body must be of type string", '5: supported values: "a", "b"']),
    ({"type": "integer", "enum": [1, 2]}, 3, ['Unsupported value: 3: supported values: "1", "2"']),
    ({"type": "string", "enum": ["a"], "nullable": True}, None, ['Unsupported value: null: supported values: "a"']),
    ({"type": "string", "nullable": True}, None, []),
    ({"type": "string"}, None, ['Invalid value: "null": f in body must be of type string: "null"']),
    ({"type": "string", "maxLength": 1, "pattern": "^b"}, "aa", ["Too long: may not be more than 1 bytes"]),
    ({"type": "string", "minLength": 3, "pattern": "^b"}, "aa", ['"aa": f in body should be at least 3 chars long']),
    ({"type": "string", "format": "date"}, "x", ['Invalid value: "x": f in body must be of type date: "x"']),
    ({"type": "string", "format": "unheard-of"}, "x", []),
    (
        {"type": "number", "maximum": 1000000},
        1000001.5,
        ["1.0000015e+06: f in body should be less than or equal to 1e+06"],
    ),
    ({"type": "number", "maximum": 10.5}, 11, ["Invalid value: 11: f in body should be less than or equal to 10"]),
    ({"type": "number", "minimum": 0.5, "exclusiveMinimum": True}, 0.5, ["0.5: f in body should be greater than 0.5"]),
    ({"type": "number", "multipleOf": 0.1}, 0.3, []),
    ({"type": "integer", "multipleOf": 3}, 7, ["Invalid value: 7: f in body should be a multiple of 3"]),
    (
        {"type": "array", "minItems": 2, "items": {"type": "string"}},
        ["a"],
        ["1: f in body should have at least 2 items"],
    ),
    ({"type": "array", "maxItems": 1, "items": {"type": "string"}}, ["a", 1], ["f[1] in body must be", "Too many: 2:"]),
    ({"type": "object", "minProperties": 2, "required": ["a"]}, {"b": 1}, ["1: f in body should have at least 2 prop"]),
    (
        {"type": "object", "required": ["a"], "properties": {"b": {"type": "string"}}},
        {"b": 1},
        ['"integer": f.b in body must be of type string: "integer"', "Required value"],
    ),
    (INT_OR_TEXT, "x", []),
    (
        INT_OR_TEXT,
        True,
        [
            'must be of type integer,string: "boolean"',
            '"f" must validate at least one schema (anyOf)',
            "of type integer:",
        ],
    ),
    (
        {
            "type": "object",
            "anyOf": [{"required": ["a"]}, {"properties": {"b": {"type": "string"}}, "required": ["b"]}],
        },
        {"b": 1},
        ["must validate at least one schema (anyOf)", 'f.b in body must be of type string: "integer"'],
    ),
    (
        {"type": "object", "allOf": [{"required": ["a"]}]},
        {},
        ["Required value", "all the schemas (allOf). None validated"],
    ),
    ({"type": "object", "not": {"required": ["a"]}}, {"a": 1}, ['"": "f" must not validate the schema (not)']),
    (
        {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"a": 1, "b": 1},
        ["must validate one and only one schema (oneOf). Found 2 valid alternatives"],
    ),
    (
        {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n", "k"]},
        [{"n": 1, "k": "a"}, {"n": 1, "k": "b"}, {"k": "a", "n": 1}],
        ['Duplicate value: {"k":"a","n":1}'],
    ),
    (
        {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
        {"apiVersion": "", "metadata": {"name": "a/b"}},
        ['"": must not be empty', "Required value: must not be empty", "\"a/b\": may not contain '/'"],
    ),
]


@pytest.mark.parametrize(("rule", "value", "expected"), RULES, ids=[f"{i}-{r[1]!r}" for i, r in enumerate(RULES)])
def test_each_rule_has_the_words_of_upstream(rule: dict[str, Any], value: Any, expected: list[str]) -> None:
    """The causes of one field, in order."""
    node = schema.custom({"type": "object", "properties": {"f": rule}})
    found = [c["message"] for c in custom.check(node, {"f": value})]
    assert len(found) == len(expected), found
    for message, part in zip(found, expected, strict=True):
        assert part in message


def test_what_was_wrong_before_may_stay_wrong() -> None:
    """An update is held to the rules only where it changes something; elements of a list with keys keep theirs."""
    rule = {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "integer", "maximum": 3}}}
    listed = {"type": "array", "items": rule, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}
    node = schema.custom({"type": "object", "properties": {"l": listed, "a": {"type": "array", "items": rule}}})
    bad, good = {"n": "a", "v": 9}, {"n": "b", "v": 1}
    assert custom.check(node, {"l": [good, {**bad}], "a": [{**bad}]}, {"l": [bad], "a": [bad]}) == []
    worse = custom.check(node, {"l": [{**bad, "v": 8}], "a": [{**bad}, good]}, {"l": [bad], "a": [bad]})
    assert [c["field"] for c in worse] == ["l[0].v", "a[0].v"]


def test_a_definition_may_demand_something_of_names() -> None:
    """The rules for metadata.name are kept although the rest of the metadata is the same for every kind."""
    node = schema.custom(
        {"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"maxLength": 3}}}}}
    )
    found = custom.check(node, {"metadata": {"name": "long"}})
    assert [(c["field"], c["message"]) for c in found] == [("metadata.name", "Too long: may not be more than 3 bytes")]


def test_an_object_inside_an_object_has_metadata() -> None:
    """Of an embedded resource what every object has is kept, of its metadata only what is known."""
    inner = {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "string"}}}
    kind = kinds.make(
        *("a.io", "v1", "Thing", "things"),
        namespaced=True,
        custom=True,
        schema=schema.custom({"type": "object", "properties": {"o": inner}}),
    )
    obj = {"o": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "zz": 1}, "spec": "s", "yy": 1}}
    pruned, unknown = schema.prune(kind, obj)
    assert pruned["o"] == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": "s"}
    assert unknown == ["o.metadata.zz", "o.yy"]


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("date-time", "2020-01-02T03:04:05.678Z", "2020-01-02 03:04:05"),
        ("date", "2020-02-29", "2021-02-29"),
        ("ipv4", "1.2.3.4", "::1"),
        ("ipv6", "::1", "1.2.3.4"),
        ("cidr", "10.0.0.1/8", "10.0.0.1"),
        ("uri", "https://a/b", "a b"),
        ("email", "a@b.c", "a"),
        ("hostname", "a.example.com", "-a"),
        ("mac", "01:02:03:04:05:06", "01:02"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "x"),
        ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
        ("byte", "aGk=", "?"),
        ("duration", "1h30m", "soon"),
        ("hexcolor", "#fff", "#ggg"),
        ("k8s-short-name", "a", "a.b"),
        ("k8s-long-name", "a.b", "A"),
    ],
)
def test_formats(form: str, good: str, bad: str) -> None:
    """What has a format and what does not."""
    assert formats.fits(form, good)
    assert not formats.fits(form, bad)


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"spec": {"n": 3}, "status": {"m": 1, "s": "a=b"}}, []),
        ({"spec": {"n": -1}}, [".spec.n: Invalid value: -1: should be a non-negative integer"]),
        ({"spec": {"n": 1 << 31}}, [".spec.n: Invalid value: 2147483648: should be less than or equal to 2147483647"]),
        (
            {"spec": {"n": "x"}, "status": {"s": 5}},
            [
                ".spec.n: Invalid value: 0: .spec.n accessor error: x is of the type string, expected int64",
                '.status.s: Invalid value: "": .status.s accessor error: 5 is of the type int64, expected string',
            ],
        ),
    ],
)
def test_what_is_scaled_has_numbers(obj: dict[str, Any], expected: list[str]) -> None:
    """The fields that a definition names for its scale hold counts and a selector."""
    found = custom.scale((("spec", "n"), ("status", "m"), ("status", "s")), obj)
    assert [f"{c['field']}: {c['message']}" for c in found] == expected
