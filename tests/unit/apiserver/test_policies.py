"""Admission policies: what they refuse, warn of, note and change, with parameters, variables and rights."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.apiserver.test_admission import ALICE, World, obj, refusal

from k3s.api.errors import ApiError
from k3s.api.object import Object

GROUP = "admissionregistration.k8s.io/v1"
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}


def policy(
    name: str = "p", kind: str = "ValidatingAdmissionPolicy", match: Object | None = None, **spec: Any
) -> Object:
    return obj(GROUP, kind, name, spec={"matchConstraints": {"resourceRules": [RULE], **(match or {})}, **spec})


def binding(name: str = "b", to: str = "p", kind: str = "ValidatingAdmissionPolicyBinding", **spec: Any) -> Object:
    return obj(GROUP, kind, name, spec={"policyName": to, "validationActions": ["Deny"], **spec})


def mutating(name: str, *mutations: Object, **spec: Any) -> tuple[Object, Object]:
    return (
        policy(name, "MutatingAdmissionPolicy", mutations=list(mutations), **spec),
        binding(name, name, "MutatingAdmissionPolicyBinding"),
    )


def configuration(expression: str) -> Object:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def operations(expression: str) -> Object:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


def config(name: str = "c", **more: Any) -> Object:
    return obj("v1", "ConfigMap", name, "a", **more)


DENIED = "configmaps \"c\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "
FALSE = [{"expression": "false", "message": "no"}]


def test_policies_and_bindings_come_in_any_order() -> None:
    """A policy counts from its first binding on, and no longer than that is there."""
    world = World(policy(validations=FALSE))
    assert world.create(config())
    bound = world.reader.put(binding())
    assert refusal(world.create, config()) == DENIED + "no"
    with pytest.raises(ApiError) as caught:
        world.create(config())
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.details == {
        "name": "c",
        "kind": "configmaps",
        "causes": [{"message": DENIED.partition("forbidden: ")[2] + "no"}],
    }
    world.reader.put({**bound, "spec": {**bound["spec"], "policyName": "other"}})
    assert world.create(config())


@pytest.mark.parametrize(
    ("match", "asked"),
    [
        ({}, True),
        ({"excludeResourceRules": [RULE]}, False),
        ({"excludeResourceRules": [{**RULE, "resourceNames": ["x"]}]}, True),
        ({"resourceRules": [{**RULE, "resourceNames": ["c"]}]}, True),
        ({"resourceRules": [{**RULE, "resourceNames": ["x"]}]}, False),
        ({"namespaceSelector": {"matchExpressions": [{"key": "k", "operator": "Exists"}]}}, False),
        ({"objectSelector": {"matchLabels": {"k": "v"}}}, False),
        ({"resourceRules": [{**RULE, "operations": ["DELETE"]}]}, False),
    ],
)
def test_what_is_matched(match: Object, asked: bool) -> None:
    """Rules, names, exclusions and selectors; the same in a policy and in a binding."""
    for one, other in ((match, None), (None, match)):
        bound = binding(**({"matchResources": other} if other is not None else {}))
        world = World(policy(validations=FALSE, match=one), bound)
        if asked:
            assert refusal(world.create, config()) == DENIED + "no"
        else:
            assert world.create(config())


def test_warn_and_audit() -> None:
    """Warn tells the client, Audit the log; annotations are there whatever the validations say."""
    notes = [{"key": "who", "valueExpression": "request.userInfo.username"}, {"key": "none", "valueExpression": "null"}]
    world = World(policy(validations=FALSE, auditAnnotations=notes), binding(validationActions=["Warn", "Audit"]))
    request = world.request("CREATE", config())
    from tests.unit.apiserver.admission_world import at_once

    at_once(world.chain.validate(request))
    assert request.warnings == ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': no"]
    failure = request.audit.pop("validation.policy.admission.k8s.io/validation_failure")
    assert json.loads(failure) == [
        {"message": "no", "policy": "p", "binding": "b", "expressionIndex": 0, "validationActions": ["Warn", "Audit"]}
    ]
    assert request.audit == {"p/who": "admin"}


def test_variables_are_made_when_they_are_asked_for() -> None:
    """One may use those before it; one that fails only matters to who asks for it."""
    variables = [
        {"name": "n", "expression": "object.metadata.name"},
        {"name": "twice", "expression": "variables.n + variables.n"},
        {"name": "broken", "expression": "object.data.missing"},
    ]
    rules = [{"expression": "variables.twice == 'cc' || variables.broken == ''"}]
    world = World(policy(variables=variables, validations=rules), binding())
    assert world.create(config())
    source = rules[0]["expression"]
    assert refusal(world.create, config("d")) == (
        DENIED.replace('"c"', '"d"') + f"expression '{source}' resulted in error: "
        'composited variable "broken" fails to evaluate: no such key: data'
    )


def test_failures_follow_the_policy() -> None:
    """What cannot be told refuses, or is ignored; a condition that is false hides it."""
    broken = [{"expression": "object.data.missing == 'x'"}]
    error = "expression 'object.data.missing == 'x'' resulted in error: no such key: data"
    assert refusal(World(policy(validations=broken), binding()).create, config()) == DENIED + error
    assert World(policy(validations=broken, failurePolicy="Ignore"), binding()).create(config())
    never = [{"name": "n", "expression": "object.metadata.name == 'other'"}]
    assert World(policy(validations=broken, matchConditions=never), binding()).create(config())
    unknown = [{"name": "n", "expression": "object.data.missing == 'x'"}]
    assert refusal(World(policy(validations=FALSE, matchConditions=unknown), binding()).create, config()) == (
        DENIED + error
    )


def test_parameters() -> None:
    """By name or selector, in the object's namespace unless another is named; absent ones follow the binding."""
    kind = {"apiVersion": "v1", "kind": "Secret"}
    rules = [
        {"expression": "params == null || object.data.v == params.data.v", "messageExpression": "string(params.data.v)"}
    ]
    one = obj("v1", "Secret", "one", "a", data={"v": "1"}, metadata={"labels": {"l": "x"}})
    two = obj("v1", "Secret", "two", "a", data={"v": "2"}, metadata={"labels": {"l": "x"}})

    def world(ref: Object | None) -> World:
        bound = binding(**({"paramRef": ref} if ref else {}))
        return World(policy(paramKind=kind, validations=rules), bound, one, two)

    assert world(None).create(config(data={"v": "9"}))
    named = {"name": "one", "parameterNotFoundAction": "Deny"}
    assert world(named).create(config(data={"v": "1"}))
    assert refusal(world(named).create, config(data={"v": "2"})) == DENIED + "1"
    chosen = {"selector": {"matchLabels": {"l": "x"}}, "parameterNotFoundAction": "Deny"}
    assert refusal(world(chosen).create, config(data={"v": "1"})) == DENIED + "2"
    absent = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    assert refusal(world({**named, "name": "none"}).create, config()) == DENIED + absent
    assert world({"name": "none", "parameterNotFoundAction": "Allow"}).create(config())
    other = World(policy(paramKind={"apiVersion": "x/v1", "kind": "K"}, validations=rules), binding(paramRef=named))
    text = refusal(other.create, config())
    assert (
        text == DENIED + "failed to configure binding: paramKind kind `&ParamKind{APIVersion:x/v1,Kind:K,}` not known"
    )


def test_rights_namespace_and_old_object() -> None:
    """Expressions may ask what the sender may do, see the namespace, and compare."""
    rules = [
        {"expression": "authorizer.group('').resource('pods').namespace('a').check('get').allowed()", "message": "1"},
        {"expression": "namespaceObject.metadata.name == 'a'", "message": "2"},
        {"expression": "oldObject == null || oldObject.data == object.data", "message": "3"},
    ]
    world = World(policy(validations=rules), binding())
    assert refusal(world.create, config(), ALICE) == DENIED + "1"
    old = world.create(config(data={"k": "v"}))
    assert refusal(world.update, old, config(data={"k": "w"})) == DENIED + "3"


def test_apply_configurations_merge() -> None:
    """Maps and keyed lists merge, what is replaced as a whole may not be touched; later policies see earlier ones."""
    pods = [{**RULE, "resources": ["pods"]}]
    spec = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', image: 'j'}]}}"
    seen = "Object{metadata: Object.metadata{labels: {'image': object.spec.containers[0].image}}}"
    world = World(
        *mutating("1", configuration(spec), match={"resourceRules": pods}),
        *mutating("2", configuration(seen), match={"resourceRules": pods}),
    )
    containers = [{"name": "b", "image": "i"}, {"name": "c", "image": "i"}]
    made = world.create(obj("v1", "Pod", "p", "a", spec={"containers": containers}))
    assert {c["name"]: c["image"] for c in made["spec"]["containers"]} == {"b": "i", "c": "j"}
    assert made["metadata"]["labels"]["image"] in ("i", "j")
    whole = "Object{spec: Object.spec{nodeSelector: {'a': 'b'}, tolerations: []}}"
    world = World(*mutating("1", configuration(whole), match={"resourceRules": pods}))
    assert refusal(world.create, obj("v1", "Pod", "p", "a", spec={"containers": containers})) == (
        "policy '1' with binding '1' denied request: error applying patch: invalid ApplyConfiguration: "
        "may not mutate atomic arrays, maps or structs: .spec.nodeSelector"
    )


def test_json_patches_and_failures() -> None:
    """Operations one after the other; one that does not apply refuses in the words of the reference, or is ignored."""
    add = operations("[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a/b'), value: 'x'}]")
    assert World(*mutating("1", add)).create(config(data={"k": "v"}))["data"] == {"k": "v", "a/b": "x"}
    assert refusal(World(*mutating("1", add)).create, config()) == (
        "policy '1' with binding '1' denied request: JSON Patch: add operation does not apply: "
        'doc is missing path: "/data/a~1b": missing value'
    )
    assert "data" not in World(*mutating("1", add, failurePolicy="Ignore")).create(config())


def test_a_policy_is_asked_again_when_it_wishes() -> None:
    """What a later policy changed is shown once more to an earlier one with IfNeeded, and not to one with Never."""

    def data(key: str, value: str) -> Object:
        return configuration(f"Object{{data: {{'{key}': {value}}}}}")

    def made(again: str) -> Object:
        count = data("keys", "string(object.data.size())")
        world = World(*mutating("1", count, reinvocationPolicy=again), *mutating("2", data("late", "'x'")))
        found: Object = world.create(config(data={"k": "v"}))["data"]
        return found

    assert made("Never") == {"k": "v", "keys": "1", "late": "x"}
    assert made("IfNeeded") == {"k": "v", "keys": "3", "late": "x"}


# Costs 700 000 units, and takes no time.
DEAR = " && ".join(["authorizer.path('/x').check('get').allowed()"] * 2)
OUT = "validation failed due to running out of cost budget, no further validation rules will be run"


@pytest.mark.parametrize(
    ("spec", "refused"),
    [
        ({"validations": [{"expression": DEAR}] * 14}, False),
        ({"validations": [{"expression": DEAR}] * 15}, True),
        ({"validations": [{"expression": "true"}], "matchConditions": 3}, False),
        ({"validations": [{"expression": "true"}], "matchConditions": 4}, True),
        ({"validations": [{"expression": DEAR}] * 14, "auditAnnotations": 14}, False),
        ({"validations": [{"expression": "true"}], "auditAnnotations": 15}, True),
    ],
)
def test_all_expressions_of_a_policy_have_one_budget(spec: Object, refused: bool) -> None:
    """Ten millions for validations, as much for annotations, a quarter for conditions; failurePolicy decides beyond."""
    made = dict(spec)
    if "matchConditions" in made:
        made["matchConditions"] = [{"name": f"c{i}", "expression": DEAR} for i in range(made["matchConditions"])]
    if "auditAnnotations" in made:
        note = f"{DEAR} ? 'yes' : 'no'"
        made["auditAnnotations"] = [{"key": f"k{i}", "valueExpression": note} for i in range(made["auditAnnotations"])]
    world = World(policy(**made), binding())
    if refused:
        assert refusal(world.create, config()) == DENIED + OUT
        world = World(policy(failurePolicy="Ignore", **made), binding())
    assert world.create(config())


def test_a_message_without_budget_is_an_error(run: Any) -> None:
    """What is left after the validations is for their messages."""
    told = "string(object.data.all(a, object.data.all(b, object.data.all(c, a != ''))))"
    rules = [{"expression": DEAR}] * 13 + [{"expression": f"{DEAR} && false", "messageExpression": told}]
    many = config(data={f"k{i}": "" for i in range(40)})
    for given, message in ((rules, f"failed messageExpression: {OUT}"), (rules[-1:], "true")):
        world = World(policy(validations=given), binding())

        async def validated(world: World = world) -> None:
            await world.chain.validate(world.request("CREATE", many))

        assert refusal(run, validated()) == DENIED + message


def test_mutations_have_a_budget() -> None:
    """The variables count too."""
    variables = [{"name": f"v{i}", "expression": DEAR} for i in range(15)]
    wanted = " && ".join(f"variables.v{i}" for i in range(15))
    change = configuration(f"Object{{metadata: Object.metadata{{labels: {{'a': string({wanted})}}}}}}")
    world = World(*mutating("m", change, variables=variables))
    assert refusal(world.create, config()).endswith(f"denied request: {OUT}")


def test_annotations_are_told_once_and_not_at_any_length() -> None:
    """Two bindings that say the same say it once, other values are added; ten kibibytes of each are kept."""
    notes = [
        {"key": "same", "valueExpression": "'x'"},
        {"key": "long", "valueExpression": "string(object.data.long + object.data.long)"},
        {"key": "param", "valueExpression": "string(params.data.v)"},
    ]
    spec = {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "auditAnnotations": notes}
    params = [config("one", data={"v": "1"}), config("two", data={"v": "2"})]
    bound = [
        binding(f"b{i}", paramRef={"name": name, "parameterNotFoundAction": "Deny"}, validationActions=["Audit"])
        for i, name in enumerate(("one", "two"))
    ]
    world = World(policy(**spec), *params, *bound)
    request = world.request("CREATE", config(data={"long": "y" * 6000}))
    from tests.unit.apiserver.admission_world import at_once

    at_once(world.chain.validate(request))
    assert request.audit == {"p/same": "x", "p/param": "1, 2", "p/long": "y" * 10240}


# Beyond what is evaluated at once, and well below the limit.
LONG = "object.data.all(a, object.data.all(b, a != '' && b != ''))"
HUNDRED = {f"k{i}": "" for i in range(100)}


def test_long_policies_ask_for_rights_from_their_thread(run: Any) -> None:
    """What begins anew beside the loop answers the same: rights, parameters, warnings and notes, each once."""
    rule = {"expression": f"{LONG} && authorizer.path('/x').check('get').allowed() && params.data.v == '1'"}
    spec = {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [rule, *FALSE]}
    spec["auditAnnotations"] = [{"key": "who", "valueExpression": "request.userInfo.username"}]
    ref = {"name": "one", "parameterNotFoundAction": "Deny"}
    bound = binding(paramRef=ref, validationActions=["Warn", "Audit"])
    world = World(policy(**spec), config("one", data={"v": "1"}), bound)
    request = world.request("CREATE", config(data=HUNDRED))

    async def validated() -> None:
        await world.chain.validate(request)

    run(validated())
    assert request.warnings == ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': no"]
    assert request.audit["p/who"] == "admin"
    alice = world.request("CREATE", config(data=HUNDRED), user=ALICE)

    async def validated_again() -> None:
        await world.chain.validate(alice)

    run(validated_again())
    assert len(alice.warnings) == 2, "Alice has no right to that path"


def test_long_mutations_are_made_once(run: Any) -> None:
    """An object that is changed beside the loop is what the next mutation sees."""
    once = operations("[JSONPatch{op: 'add', path: '/data/n', value: object.data.n + 'x'}]")
    after_long = operations(f"{LONG} ? [JSONPatch{{op: 'add', path: '/data/n', value: object.data.n + 'y'}}] : []")
    world = World(*mutating("m", once, after_long, once))
    request = world.request("CREATE", config(data={**HUNDRED, "n": ""}))

    async def admitted() -> Object:
        return await world.chain.admit(request)

    assert run(admitted())["data"]["n"] == "xyx"
