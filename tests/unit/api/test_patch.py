"""The three patches: examples of the standards, recorded answers of the API server, and general properties."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s.api import jsontext, patch, schema
from k3s.api.errors import ApiError, BadRequest, Invalid, TooLarge
from k3s.api.kinds import builtin
from k3s.api.merge import MergeError, strategic_merge

DEPLOYMENT = schema.definition_of(builtin("apps/v1", "Deployment"))
CONFIG_MAP = schema.definition_of(builtin("v1", "ConfigMap"))
SERVICE_ACCOUNT = schema.definition_of(builtin("v1", "ServiceAccount"))


def ops(*operations: dict[str, Any]) -> list[dict[str, Any]]:
    return list(operations)


@pytest.mark.parametrize(
    ("before", "operation", "after"),
    [
        ({"a": 1}, {"op": "add", "path": "/b", "value": 2}, {"a": 1, "b": 2}),
        ({"a": [1, 3]}, {"op": "add", "path": "/a/1", "value": 2}, {"a": [1, 2, 3]}),
        ({"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"a": [1, 2]}),
        ({"a": [1, 2]}, {"op": "replace", "path": "/a/-1", "value": 9}, {"a": [1, 9]}),
        ({"a": {"b": 1}}, {"op": "replace", "path": "/a/b", "value": None}, {"a": {"b": None}}),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/0"}, {"a": [2]}),
        ({"a": {"x/y": 1, "~": 2}}, {"op": "remove", "path": "/a/x~1y"}, {"a": {"~": 2}}),
        ({"a": {"~": 2}}, {"op": "remove", "path": "/a/~0"}, {"a": {}}),
        ({"a": 1}, {"op": "move", "from": "/a", "path": "/b"}, {"b": 1}),
        ({"a": 1}, {"op": "copy", "from": "/a", "path": "/b"}, {"a": 1, "b": 1}),
        ({"a": {"b": [1]}}, {"op": "test", "path": "/a", "value": {"b": [1]}}, {"a": {"b": [1]}}),
        ({"a": 1}, {"op": "test", "path": "/b", "value": None}, {"a": 1}),
        ({"a": 1}, {"op": "replace", "path": "", "value": {"z": 1}}, {"z": 1}),
    ],
)
def test_json_patch(before: Any, operation: dict[str, Any], after: Any) -> None:
    """Every operation of RFC 6902, with the negative positions that the API allows."""
    kept = copy.deepcopy(before)
    assert patch.json_patch(before, [operation]) == after
    assert before == kept


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/no"},
        {"op": "replace", "path": "/no", "value": 1},
        {"op": "add", "path": "/no/no", "value": 1},
        {"op": "add", "path": "/l/5", "value": 1},
        {"op": "add", "path": "/l/x", "value": 1},
        {"op": "add", "path": "/a"},
        {"op": "add", "value": 1},
        {"op": "add", "path": "a", "value": 1},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "test", "path": "/a", "value": True},
        {"op": "explode", "path": "/a"},
        {"op": "remove", "path": ""},
    ],
)
def test_json_patch_that_cannot_be_done(operation: dict[str, Any]) -> None:
    """What cannot be done is refused as a whole, without saying why, as upstream does."""
    with pytest.raises(Invalid) as caught:
        patch.json_patch({"a": 1, "l": [1]}, [operation])
    assert caught.value.message == "the server rejected our request due to an error in our request"


def test_limits() -> None:
    """Too many operations and copies that grow without bound are refused."""
    with pytest.raises(TooLarge, match="maximum operations in a JSON patch is 10000, got 10001"):
        patch.json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": 1}] * 10001)
    doubling = [{"op": "copy", "from": "/a", "path": "/a/" + "x" * i} for i in range(1, 100)]
    with pytest.raises(Invalid):
        patch.json_patch({"a": {"t": "y" * 1000}}, doubling)


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": {"b": "c", "d": 1}}, {"a": {"b": None}}, {"a": {"d": 1}}),
        ({"a": [1]}, {"a": [2, None]}, {"a": [2, None]}),
        ({"a": "x"}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}),
        ({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
    ],
)
def test_merge_patch(before: Any, change: Any, after: Any) -> None:
    """The examples of RFC 7386."""
    assert patch.merge_patch(before, change) == after


@pytest.mark.parametrize(
    ("content_type", "body", "why"),
    [
        (patch.JSON, b"{", "error decoding patch: unexpected end of JSON input"),
        (patch.MERGE, b"", "error decoding patch: unexpected end of JSON input"),
        (patch.STRATEGIC, b"[", "unexpected end of JSON input"),
        (
            patch.MERGE,
            b"[]",
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            patch.MERGE,
            b'"x"',
            "error decoding patch: json: cannot unmarshal string into Go value of type map[string]interface {}",
        ),
        (
            patch.JSON,
            b"{}",
            "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        ),
    ],
)
def test_bodies_that_are_no_patch(content_type: str, body: bytes, why: str) -> None:
    """Bodies of the wrong form are refused in the recorded words."""
    with pytest.raises(BadRequest) as caught:
        patch.parse(content_type, body)
    assert caught.value.message == why


def containers(*elements: Any, **more: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(elements), **more}}}}


A = {"name": "a", "image": "x:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
B = {"name": "b", "image": "x:1"}


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (containers({"name": "a", "image": "x:2"}), containers({**A, "image": "x:2"}, B)),
        (containers({"name": "n", "image": "n"}), containers({"name": "n", "image": "n"}, A, B)),
        (containers({"name": "b", "$patch": "delete"}), containers(A)),
        (containers({"name": "zz", "$patch": "delete"}), containers(A, B)),
        (containers({"$patch": "replace"}, {"name": "c"}), containers({"name": "c"})),
        (containers(**{"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}), containers(B, A)),
        (
            containers({"name": "a", "env": [{"name": "A", "$patch": "delete"}]}),
            containers({**A, "env": [{"name": "B", "value": "2"}]}, B),
        ),
        ({"spec": {"template": {"$patch": "delete"}}}, {"spec": {"template": {}}}),
        ({"spec": {"template": {"$patch": "replace", "spec": {}}}}, {"spec": {"template": {"spec": {}}}}),
        ({"spec": {"template": {"spec": {"containers": None}}}}, {"spec": {"template": {"spec": {}}}}),
        ({}, containers(A, B)),
    ],
)
def test_strategic_lists(change: dict[str, Any], after: dict[str, Any]) -> None:
    """Lists of containers merge by name and obey every directive."""
    before = containers(A, B)
    kept = copy.deepcopy((before, change))
    assert strategic_merge(DEPLOYMENT, before, change) == after
    assert (before, change) == kept


def test_order_with_additions() -> None:
    """An order that names old and new elements is followed."""
    change = {
        "$setElementOrder/containers": [{"name": "a"}, {"name": "n"}, {"name": "b"}],
        "containers": [{"name": "n"}],
    }
    merged = strategic_merge(DEPLOYMENT, containers(A, B), {"spec": {"template": {"spec": change}}})
    assert [c["name"] for c in merged["spec"]["template"]["spec"]["containers"]] == ["a", "n", "b"]


def test_primitive_lists() -> None:
    """Finalizers merge as a set, new ones first, and leave by $deleteFromPrimitiveList; commands are replaced."""
    obj = {"metadata": {"finalizers": ["a", "b"]}}
    merged = strategic_merge(DEPLOYMENT, obj, {"metadata": {"finalizers": ["c"]}})
    assert merged["metadata"]["finalizers"] == ["c", "a", "b"]
    merged = strategic_merge(DEPLOYMENT, merged, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})
    assert merged["metadata"]["finalizers"] == ["c", "b"]
    merged = strategic_merge(DEPLOYMENT, merged, {"metadata": {"$setElementOrder/finalizers": ["b", "c"]}})
    assert merged["metadata"]["finalizers"] == ["b", "c"]
    before = containers({"name": "a", "command": ["x", "y"]})
    assert strategic_merge(DEPLOYMENT, before, containers({"name": "a", "command": ["z"]})) == containers(
        {"name": "a", "command": ["z"]}
    )


def test_retain_keys() -> None:
    """A strategy that retains keys drops the union member that is no longer wanted."""
    before = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    change = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge(DEPLOYMENT, before, change) == {"spec": {"strategy": {"type": "Recreate"}}}
    with pytest.raises(Invalid):
        strategic_merge(DEPLOYMENT, before, {"spec": {"strategy": {"$retainKeys": [], "type": "Recreate"}}})
    with pytest.raises(BadRequest, match="invalid patch format of retainKeys"):
        strategic_merge(DEPLOYMENT, before, {"spec": {"strategy": {"$retainKeys": "type"}}})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (containers({"image": "no-key"}), "map: map[image:no-key] does not contain declared merge key: name"),
        (
            containers({"name": "a", "$patch": "explode"}),
            "unknown patch type: explode in map: map[$patch:explode name:a]",
        ),
        (
            containers({"name": "q", "image": "n"}, **{"$setElementOrder/containers": [{"name": "a"}]}),
            "The order in patch list:\n[map[image:n name:q]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        ),
    ],
)
def test_strategic_errors(change: dict[str, Any], why: str) -> None:
    """Directives that make no sense are answered in the recorded words, with 500 and no reason."""
    with pytest.raises(MergeError) as caught:
        strategic_merge(DEPLOYMENT, containers(A, B), change)
    assert (caught.value.message, caught.value.code, caught.value.reason) == (why, 500, "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "x", "y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
json_objects = st.dictionaries(st.sampled_from("abc"), json_values, max_size=3)


@given(json_objects, json_objects)
def test_merge_patch_properties(before: dict[str, Any], change: dict[str, Any]) -> None:
    """Merging twice is merging once, and inputs stay as they were."""
    kept = copy.deepcopy((before, change))
    once = patch.merge_patch(before, change)
    assert patch.merge_patch(once, change) == once
    assert (before, change) == kept


paths = st.lists(st.sampled_from(["a", "b", "0", "1", "-", "-1"]), max_size=3).map(
    lambda p: "".join("/" + s for s in p)
)
operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "test", "move", "copy"]), "path": paths},
    optional={"from": paths, "value": json_values},
)


@given(json_objects, st.lists(operations, max_size=5))
def test_json_patch_properties(before: dict[str, Any], given_ops: list[dict[str, Any]]) -> None:
    """A patch is applied or refused with an ApiError; inputs stay as they were."""
    kept = copy.deepcopy((before, given_ops))
    try:
        patch.json_patch(before, given_ops)
    except ApiError as error:
        assert error.code in (400, 413, 422)
    assert (before, given_ops) == kept


names = st.sampled_from(["a", "b", "c"])
elements = st.fixed_dictionaries({"name": names}, optional={"image": st.sampled_from(["x", "y"])})
lists_of_elements = st.lists(elements, max_size=3, unique_by=lambda e: e["name"])


@given(lists_of_elements, lists_of_elements)
def test_strategic_merge_properties(before: list[Any], change: list[Any]) -> None:
    """Merging twice is merging once, nothing on the server is lost, inputs stay as they were."""
    kept = copy.deepcopy((before, change))
    once = strategic_merge(DEPLOYMENT, containers(*before), containers(*change))
    assert strategic_merge(DEPLOYMENT, once, containers(*change)) == once
    merged = once["spec"]["template"]["spec"]["containers"]
    assert {c["name"] for c in merged} == {c["name"] for c in [*before, *change]}
    assert (before, change) == kept


@given(st.text(alphabet='{}[]",:0123eE+-.\\ truefalsn\n', max_size=20))
def test_json_complaints(text: str) -> None:
    """There is a complaint exactly when Python's parser refuses the text too."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(text, parse_constant=refuse)
        wrong = False
    except ValueError:
        wrong = True
    assert bool(jsontext.complaint(text)) is wrong


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
        ('{"a":1}t', "invalid character 't' after top-level value"),
        ("{", "unexpected end of JSON input"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ("[1 2]", "invalid character '2' after array element"),
        ("trux", "invalid character 'x' in literal true (expecting 'e')"),
    ],
)
def test_json_complaint_texts(text: str, why: str) -> None:
    """The complaints are those of Go's JSON package."""
    assert jsontext.complaint(text) == why


TRANSCRIPTS = Path(os.environ.get("K3S_TRANSCRIPTS", Path(__file__).parents[4] / "shared" / "transcripts"))
NODES = {"deployments": DEPLOYMENT, "configmaps": CONFIG_MAP, "serviceaccounts": SERVICE_ACCOUNT}
FROM_SERVER = {"uid", "resourceVersion", "generation", "creationTimestamp"}


def recorded() -> list[Any]:
    path = TRANSCRIPTS / "patch.json"
    return json.loads(path.read_text()) if path.exists() else []


def settled(obj: dict[str, Any]) -> dict[str, Any]:
    meta = {key: value for key, value in obj["metadata"].items() if key not in FROM_SERVER}
    return {**obj, "metadata": meta}


@pytest.mark.parametrize("scenario", recorded(), ids=lambda s: s["name"])
def test_recorded(scenario: dict[str, Any]) -> None:
    """Where the server only patched (defaults and validation had nothing to do), the same object comes out."""
    live: dict[str, Any] | None = None
    for step in scenario["steps"]:
        answer = step.get("expect", {}).get("body")
        content_type = step.get("headers", {}).get("Content-Type", "")
        plural = step.get("path", "").split("?")[0].rsplit("/", 2)[-2:]
        if step.get("method") == "PATCH" and live and step["expect"]["status"] == 200 and plural[0] in NODES:
            body = step["body"]
            if isinstance(body, dict | list) and "${" not in json.dumps(body):
                if content_type == patch.STRATEGIC:
                    mine = strategic_merge(NODES[plural[0]], live, body)  # type: ignore[arg-type]
                elif content_type == patch.JSON:
                    mine = patch.json_patch(live, body)
                else:
                    mine = patch.merge_patch(live, body)
                if scenario["name"] in ("json-ops", "strategic-primitive-lists", "strategic-serviceaccount-secrets"):
                    assert _without_empty(settled(mine)) == _without_empty(settled(answer))
        if isinstance(answer, dict) and answer.get("kind") != "Status" and "metadata" in answer:
            live = answer


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty(inner) for key, inner in value.items() if inner not in (None, {}, [])}
    return [_without_empty(inner) for inner in value] if isinstance(value, list) else value


def test_a_long_json_patch_of_a_large_map_is_no_work() -> None:
    """What operations change is copied once, not once for each of them; neither the object nor the patch changes."""
    obj = {"data": {f"k{i}": "" for i in range(50_000)}, "list": [{"n": 0}] * 50_000}
    operations = [
        operation
        for i in range(2_500)
        for operation in (
            {"op": "add", "path": f"/data/q{i}", "value": "1"},
            {"op": "replace", "path": f"/list/{i}/n", "value": i},
            {"op": "copy", "from": f"/list/{i}", "path": "/data/last"},
            {"op": "replace", "path": "/data/last/n", "value": -1},
        )
    ]
    began = time.process_time()
    new = patch.json_patch(obj, operations)
    assert time.process_time() - began < 1.0
    assert len(obj["data"]) == 50_000 and obj["list"][7] == {"n": 0}
    assert new["list"][7] == {"n": 7} and new["data"]["last"] == {"n": -1} and len(new["data"]) == 52_501
