"""What policies and their bindings are refused for, field by field, in upstream's words."""

from __future__ import annotations

from typing import Any

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.api.validation import validate_create

GROUP = "admissionregistration.k8s.io/v1"
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}


def told(kind: str, **spec: Any) -> list[tuple[str, str]]:
    """Field and message of each cause."""
    obj: Object = {"apiVersion": GROUP, "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    return [(cause["field"], cause["message"]) for cause in validate_create(builtin(GROUP, kind), obj)]


def bound(**spec: Any) -> list[tuple[str, str]]:
    given = {"policyName": "p", "validationActions": ["Deny"], **spec}
    return told("ValidatingAdmissionPolicyBinding", **given)


def judged(**spec: Any) -> list[tuple[str, str]]:
    given = {"matchConstraints": {"resourceRules": [RULE]}, "validations": [{"expression": "true"}], **spec}
    return told("ValidatingAdmissionPolicy", **given)


def test_bindings() -> None:
    """Parameters by name or selector, known actions once each."""
    assert bound() == [] == bound(paramRef={"name": "a", "parameterNotFoundAction": "Allow"})
    both = "Forbidden: name and selector are mutually exclusive"
    assert bound(paramRef={"name": "a/b", "selector": {}}) == [
        ("spec.paramRef.name", "Invalid value: \"a/b\": may not contain '/'"),
        ("spec.paramRef.name", both),
        ("spec.paramRef.selector", both),
        ("spec.paramRef.parameterNotFoundAction", "Required value"),
    ]
    assert bound(paramRef={"parameterNotFoundAction": "X"}) == [
        ("spec.paramRef", "Required value: one of name or selector must be specified"),
        ("spec.paramRef.parameterNotFoundAction", 'Unsupported value: "X": supported values: "Deny", "Allow"'),
    ]
    assert bound(validationActions=["Audit", "Audit"]) == [("spec.validationActions[1]", 'Duplicate value: "Audit"')]
    assert bound(validationActions=[])[0][1] == "Required value: at least one validation action is required"
    assert told("MutatingAdmissionPolicyBinding", policyName="p") == []


def test_what_is_matched() -> None:
    """Kinds of parameters, names of resources, policies of matching."""
    assert judged(paramKind={"apiVersion": "a/b/c", "kind": "X_"})[0] == (
        "spec.paramKind.apiVersion",
        'Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c',
    )
    twice = {"resourceRules": [{**RULE, "resourceNames": ["a", "a"]}]}
    assert judged(matchConstraints=twice) == [
        ("spec.matchConstraints.resourceRules[0].resourceNames[1]", 'Duplicate value: "a"')
    ]
    odd = {"resourceRules": [RULE], "matchPolicy": "X"}
    assert judged(matchConstraints=odd)[0][0] == "spec.matchConstraints.matchPolicy"


def test_expressions() -> None:
    """Each has its type; what a message may not ask, a validation may."""
    rights = "authorizer.path('/x').check('get').allowed()"
    assert judged(validations=[{"expression": rights}]) == []
    told_ = judged(validations=[{"expression": "true", "messageExpression": f"string({rights})"}])
    assert [field for field, _ in told_] == ["spec.validations[0].messageExpression"]
    assert "undeclared reference to 'authorizer'" in told_[0][1]
    assert judged(variables=[{"name": "a", "expression": "1"}, {"name": "b", "expression": "variables.a + 1"}]) == []
    assert judged(variables=[{"name": "b", "expression": "variables.a"}])[0][0] == "spec.variables[0].expression"
    assert judged(validations=[{"expression": "true", "message": "a\nb"}]) == [
        ("spec.validations[0].message", 'Invalid value: "a\\nb": message must not contain line breaks')
    ]
    named = [{"name": "a", "expression": "true"}, {"name": "a", "expression": "params == null"}]
    assert judged(matchConditions=named, paramKind={"apiVersion": "v1", "kind": "Pod"}) == [
        ("spec.matchConditions[1].name", 'Duplicate value: "a"')
    ]
