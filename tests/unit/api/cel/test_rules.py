"""Rules of custom kinds: which definitions are refused, and what objects are."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from k3s.api.cel import cost
from k3s.api.cel.rules import Validator, compiled, worst_cost
from k3s.api.cel.schema import declared, escape
from k3s.api.validation import rules

Raw = dict[str, Any]


def schema(spec: Raw) -> Raw:
    return {"type": "object", "properties": {"spec": spec}}


def told(causes: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(cause["field"], cause["message"]) for cause in causes]


def broken(spec: Raw, value: Any, old: Any = None) -> list[tuple[str, str]]:
    """What is said of an object with that spec, which had another one before."""
    before = None if old is None else {"spec": old}
    return told(Validator(schema(spec), root=True).check({"spec": value}, before))


TEXT: Raw = {"type": "string"}
NUMBER: Raw = {"type": "integer"}


def ruled(part: Raw, rule: str, **more: Any) -> Raw:
    return {**part, "x-kubernetes-validations": [{"rule": rule, **more}]}


def test_a_scalar_is_shown_and_an_object_is_not() -> None:
    """What breaks a rule is quoted when it is short by nature."""
    assert broken({"type": "object", "properties": {"n": ruled(NUMBER, "self < 3")}}, {"n": 5}) == [
        ("spec.n", "Invalid value: 5: failed rule: self < 3")
    ]
    assert broken(ruled({"type": "object", "properties": {"n": NUMBER}}, "self.n < 3", message="small"), {"n": 5}) == [
        ("spec", "Invalid value: small")
    ]


def test_reasons_paths_and_message_expressions() -> None:
    """Each part of a rule has its place in the answer."""
    part = {"type": "object", "properties": {"n": NUMBER}}
    rule = ruled(part, "self.n < 3", reason="FieldValueForbidden", fieldPath=".n", messageExpression="string(self.n)")
    assert broken(rule, {"n": 5}) == [("spec.n", "Forbidden: 5")]
    rule = ruled(part, "self.n < 3", messageExpression="''", message="m")
    assert broken(rule, {"n": 5}) == [("spec", "Invalid value: m")]


def test_a_rule_that_cannot_be_evaluated_says_why() -> None:
    """An error of the evaluation, and one of types that only show then."""
    part = {"type": "object", "properties": {"n": NUMBER, "p": {"x-kubernetes-int-or-string": True}}}
    assert broken(ruled(part, "self.n < 3"), {}) == [
        ("spec", 'Invalid value: "object": no such key: n evaluating rule: self.n < 3')
    ]
    assert broken(ruled(part, "self.p < 3"), {"p": "x"}) == [
        (
            "spec",
            "Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, "
            "function or macro signature for rule: self.p < 3",
        )
    ]


def test_transition_rules_follow_keys() -> None:
    """A rule with the old value runs for the element that has the same key, and for no new one."""
    element = ruled({"type": "object", "properties": {"k": TEXT, "v": NUMBER}}, "self.v >= oldSelf.v")
    keyed = {
        "type": "array",
        "items": element,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["k"],
    }
    old = [{"k": "a", "v": 1}, {"k": "b", "v": 5}]
    assert broken(keyed, [{"k": "b", "v": 6}, {"k": "c", "v": 0}, {"k": "a", "v": 0}], old) == [
        ("spec[2]", "Invalid value: failed rule: self.v >= oldSelf.v")
    ]
    assert broken(keyed, [{"k": "a", "v": 0}]) == []
    values = {"type": "object", "additionalProperties": ruled(NUMBER, "self >= oldSelf")}
    assert broken(values, {"a": 1, "b": 1}, {"a": 2}) == [("spec[a]", "Invalid value: 1: failed rule: self >= oldSelf")]


def test_an_optional_old_value_makes_a_rule_run_always() -> None:
    """`optionalOldSelf`."""
    part = ruled(NUMBER, "oldSelf.hasValue() || self == 0", optionalOldSelf=True)
    assert broken(part, 1) == [("spec", "Invalid value: 1: failed rule: oldSelf.hasValue() || self == 0")]
    assert broken(part, 1, 3) == []


def test_what_did_not_change_is_left_in_peace() -> None:
    """Ratcheting: only for rules without the old value."""
    part = {"type": "object", "properties": {"n": ruled(NUMBER, "self < 3"), "m": NUMBER}}
    assert broken(part, {"n": 5, "m": 1}, {"n": 5, "m": 0}) == []
    assert broken(part, {"n": 6, "m": 1}, {"n": 5, "m": 0}) != []
    items = {"type": "array", "items": ruled(NUMBER, "self < 3")}
    assert broken({"type": "object", "properties": {"l": items}}, {"l": [5]}, {"l": [5]}) == []
    assert broken({"type": "object", "properties": {"n": ruled(NUMBER, "self > oldSelf")}}, {"n": 5}, {"n": 5}) != []


def test_forms_of_the_schema_are_values() -> None:
    """Moments, spans, bytes, floats, escaped names, sets."""
    part: Raw = {
        "type": "object",
        "properties": {
            "at": {"type": "string", "format": "date-time"},
            "span": {"type": "string", "format": "duration"},
            "raw": {"type": "string", "format": "byte"},
            "part": {"type": "number"},
            "a-b": NUMBER,
            "namespace": TEXT,
            "set": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
        },
    }
    value = {"at": "2020-01-01T00:00:00Z", "span": "1h", "raw": "aGk=", "part": 1, "a-b": 2, "namespace": "n"}
    value["set"] = ["a", "b"]
    for rule in (
        "self.at.getFullYear() == 2020",
        "self.span == duration('60m')",
        "self.raw == b'hi'",
        "self.part / 2.0 == 0.5",
        "self.a__dash__b == 2",
        "self.__namespace__ == 'n'",
        "self.set == ['b', 'a']",
        "self.set + ['b', 'c'] == ['a', 'b', 'c']",
    ):
        assert broken(ruled(part, rule), value) == [], rule


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("a.b", "a__dot__b"),
        ("a/b-c", "a__slash__b__dash__c"),
        ("a__b", "a__underscores__b"),
        ("int", "int"),
        ("if", "__if__"),
        ("1a", None),
        ("a$", None),
    ],
)
def test_names_are_escaped(name: str, escaped: str | None) -> None:
    """The names of properties in expressions."""
    assert escape(name) == escaped


def worst(part: Raw, rule: str) -> int:
    kind = declared(part, "selfType")
    assert kind is not None
    found = compiled(ruled(part, rule), kind)[0]
    assert found.program is not None, found.problem
    return worst_cost(found.program, kind)


def test_the_estimate_follows_sizes() -> None:
    """The figures of the reference estimator, by hand."""
    text = {"type": "string", "maxLength": 10}
    assert worst(NUMBER, "self > 1") == 2
    assert worst(text, "self == oldSelf") == 2 + 4
    assert worst(text, "self.startsWith('abc')") == 1 + 1
    assert worst(text, "self.matches('^abcd$')") == 1 + 5 * 2
    listed = {"type": "array", "maxItems": 5, "items": text}
    # self, the literal, five times: condition (accumulator and call), step (accumulator, element, prefix), the result
    assert worst(listed, "self.all(v, v.startsWith('a'))") == 1 + 5 * (2 + 1 + 2) + 1
    assert cost.Range(1, cost.UNKNOWN.high).plus(cost.ONE).high == cost.UNKNOWN.high


def refused(part: Raw) -> list[tuple[str, str]]:
    return told(list(rules.check("s", schema(part))))


def test_a_definition_whose_rules_are_too_expensive_is_refused() -> None:
    """The factor is told as upstream tells it, and what contributed."""
    inner = {"type": "array", "items": {"type": "array", "items": ruled(TEXT, "self.matches('^a+$')")}}
    found = refused(inner)
    assert found[0][0] == "s.properties[spec].items.items.x-kubernetes-validations[0].rule"
    assert found[0][1].startswith("Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try")
    assert "contributed to estimated rule cost total" in found[1][1]
    assert found[2][0] == "s"
    few = {"type": "array", "maxItems": 100, "items": ruled(TEXT, "self == 'x' || self.contains('abc')")}
    (_, text), *_ = refused(few)
    assert "exceeds budget by factor of 3.1x" in text, text


def test_rules_are_checked_against_the_schema() -> None:
    """Types, results, old values that nothing can find again."""
    assert refused(ruled(NUMBER, "self + 'a' == 'b'"))[0][1].endswith(
        "compilation failed: ERROR: <input>:1:6: found no matching overload for '_+_' applied to '(int, string)'\n"
        " | self + 'a' == 'b'\n | .....^"
    )
    assert refused(ruled(NUMBER, "self"))[0][1].endswith(": cel expression must evaluate to a bool")
    assert refused(ruled(NUMBER, "true", messageExpression="1"))[0][1].endswith(
        ": messageExpression must evaluate to a string"
    )
    listed = {"type": "array", "maxItems": 3, "items": ruled(NUMBER, "self == oldSelf")}
    assert refused(listed)[0][1].endswith("uncorrelatable portion of the schema within s.properties[spec]")
    assert refused(ruled(NUMBER, "true", optionalOldSelf=True)) == [
        (
            "s.properties[spec].x-kubernetes-validations[0].optionalOldSelf",
            "Invalid value: true: may not be set if oldSelf is not used in rule",
        )
    ]


def test_rules_need_a_type() -> None:
    """What is kept without a schema has no type that an expression could have."""
    free: Raw = {"x-kubernetes-preserve-unknown-fields": True}
    assert refused(ruled(free, "self.a == 1"))[0] == (
        "s.properties[spec].x-kubernetes-validations",
        "Internal error: internal error: failed to retrieve type information for x-kubernetes-validations",
    )
    kept: Raw = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": NUMBER}}
    assert refused(ruled(kept, "self.a == 1")) == []
    assert "undefined field 'b'" in refused(ruled(kept, "self.b == 1"))[0][1]


def test_the_whole_resource_has_a_name() -> None:
    """Rules at the root see names, kind and version, and a resource inside another does, too."""
    root = ruled(schema(NUMBER), "self.metadata.name == self.kind && self.apiVersion == 'v1'")
    obj = {"apiVersion": "v1", "kind": "k", "metadata": {"name": "k", "uid": "u"}, "spec": 1}
    assert Validator(root, root=True).check(obj) == []
    assert Validator(root, root=True).check({**obj, "kind": "other"}) != []
    assert list(rules.check("s", ruled(schema(NUMBER), "self.metadata.uid == ''"))) != []
    inside: Raw = {
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "x-kubernetes-preserve-unknown-fields": True,
    }
    assert broken(ruled(inside, "self.metadata.name == 'n'"), {"metadata": {"name": "n"}}) == []


def test_an_object_at_the_end_of_its_budget_is_refused() -> None:
    """A rule over its limit says so, and no other runs."""
    many = {"type": "array", "items": NUMBER}
    rule = "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))"
    two = {**many, "x-kubernetes-validations": [{"rule": rule}, {"rule": "false"}]}
    assert broken(two, list(range(120))) == [
        (
            "spec",
            "Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules "
            f"will be run due to call cost exceeds limit for rule: {rule}",
        )
    ]


def test_who_has_no_rules_does_not_load_the_engine() -> None:
    """The modules of every request, and a definition without rules, in a process of their own."""
    script = (
        "import sys; from k3s.api import schema; from k3s.api.validation import rules; "
        "raw = {'type': 'object', 'properties': {'a': {'type': 'integer'}}}; "
        "assert list(rules.check('s', raw)) == [] and schema.custom(raw).rules is None; "
        "assert not [name for name in sys.modules if name.startswith('k3s.api.cel')]"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
