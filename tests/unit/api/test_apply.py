"""Server-side apply and the tracking of owners: the recorded answers of the API server, and general properties."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s.api import configured, fieldset, owners, schema
from k3s.api.apply import apply, same_but_times, track_update
from k3s.api.errors import ApiError, BadRequest, Conflict
from k3s.api.kinds import REGISTRY, builtin

KIND = builtin("v1", "ConfigMap")
CONFIG_MAP = schema.definition_of(KIND)
DEPLOYMENT = schema.definition_of(builtin("apps/v1", "Deployment"))
NOW = 2e9
STAMP = "2033-05-18T03:33:20Z"
TRANSCRIPTS = Path(os.environ.get("K3S_TRANSCRIPTS", Path(__file__).parents[4] / "shared" / "transcripts"))


def config_map(data: dict[str, str], **labels: str) -> dict[str, Any]:
    obj: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}
    if labels:
        obj["metadata"]["labels"] = labels
    return obj


def owned(obj: dict[str, Any]) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", ())}


def test_a_field_given_up_by_its_last_owner_goes() -> None:
    """Leaving a field out removes it, unless somebody else owns it too."""
    first = apply(CONFIG_MAP, None, config_map({"a": "1", "b": "2"}), "one", now=NOW)
    both = apply(CONFIG_MAP, first, config_map({"a": "1"}), "two", now=NOW)
    left = apply(CONFIG_MAP, both, config_map({"c": "3"}), "one", now=NOW)
    assert left["data"] == {"a": "1", "c": "3"}
    assert owned(left) == {"one": {"f:data": {"f:c": {}}}, "two": {"f:data": {"f:a": {}}}}


def test_conflicts_and_force() -> None:
    """A field of another manager is only taken by force; the conflict names manager and fields."""
    live = apply(CONFIG_MAP, None, config_map({"a": "1", "b": "2"}), "one", now=NOW)
    with pytest.raises(Conflict) as caught:
        apply(CONFIG_MAP, live, config_map({"a": "x", "b": "y"}), "two", now=NOW)
    assert caught.value.message == 'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\n- .data.b'
    assert (caught.value.details or {})["causes"][0] == {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "one"',
        "field": ".data.a",
    }
    forced = apply(CONFIG_MAP, live, config_map({"a": "x"}), "two", force=True, now=NOW)
    assert forced["data"] == {"a": "x", "b": "2"}
    assert owned(forced) == {"one": {"f:data": {"f:b": {}}}, "two": {"f:data": {"f:a": {}}}}


def test_elements_of_lists_have_owners() -> None:
    """Two managers may own containers of one list; giving one up removes just that one."""

    def deployment(*names: str) -> dict[str, Any]:
        containers = [{"name": name, "image": "i"} for name in names]
        spec = {"template": {"spec": {"containers": containers}}}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}

    def order(obj: dict[str, Any]) -> list[str]:
        return [container["name"] for container in obj["spec"]["template"]["spec"]["containers"]]

    live = apply(DEPLOYMENT, None, deployment("a", "b"), "one", now=NOW)
    live = apply(DEPLOYMENT, live, deployment("c"), "two", now=NOW)
    assert sorted(order(live)) == ["a", "b", "c"]
    live = apply(DEPLOYMENT, live, deployment("b"), "one", now=NOW)
    assert order(live) == ["b", "c"]


def test_first_apply_on_an_untracked_object() -> None:
    """What was there before anyone tracked it belongs to before-first-apply and conflicts like everything else."""
    live = config_map({"a": "1"})
    with pytest.raises(Conflict, match=r'conflict with "before-first-apply" using v1: \.data\.a'):
        apply(CONFIG_MAP, live, config_map({"a": "2"}), "one", now=NOW)


def test_what_is_refused() -> None:
    """managedFields in a configuration and fields that the schema does not know."""
    with pytest.raises(BadRequest, match=r"metadata\.managedFields must be nil"):
        bad = config_map({})
        bad["metadata"]["managedFields"] = []
        apply(CONFIG_MAP, None, bad, "one", now=NOW)
    with pytest.raises(ApiError) as caught:
        apply(CONFIG_MAP, None, {**config_map({}), "nope": 1}, "one", now=NOW)
    assert caught.value.message == (
        "failed to create typed patch object (/x; /v1, Kind=ConfigMap): .nope: field not declared in schema"
    )


def test_updates_take_what_they_change() -> None:
    """An update owns what it changed, nothing changes hands without a change, and a reset forgets everyone."""
    live = track_update(CONFIG_MAP, None, config_map({"a": "1", "b": "1"}), "one", now=NOW)
    assert owned(live) == {"one": {"f:data": {".": {}, "f:a": {}, "f:b": {}}}}
    changed = {**live, "data": {"a": "2", "b": "1"}}
    after = track_update(CONFIG_MAP, live, changed, "two", now=NOW)
    assert owned(after) == {"one": {"f:data": {".": {}, "f:b": {}}}, "two": {"f:data": {"f:a": {}}}}
    assert track_update(CONFIG_MAP, after, after, "three", now=NOW + 60) is after
    meta = {**after["metadata"], "managedFields": [{}]}
    assert "managedFields" not in track_update(CONFIG_MAP, after, {**after, "metadata": meta}, "x", now=NOW)["metadata"]


def test_at_most_ten_update_managers() -> None:
    """Older update managers are put together, so that managedFields cannot grow for ever."""
    live = track_update(CONFIG_MAP, None, config_map({"k": ""}), "first", now=NOW)
    for i in range(20):
        data = {**live["data"], f"k{i}": ""}
        live = track_update(CONFIG_MAP, live, {**live, "data": data}, f"m{i}", now=NOW + i)
    assert len(live["metadata"]["managedFields"]) <= 11
    assert "ancient-changes" in owned(live)


def test_ancient_changes_are_of_one_version_and_any_part() -> None:
    """Parts count too, and appliers do not; what the oldest owned stays owned."""

    def entry(i: int, **more: str) -> dict[str, Any]:
        named = {"manager": f"m{i}", "operation": "Update", "apiVersion": "v1", "time": f"2033-05-18T03:33:{i:02}Z"}
        return {**named, "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {f"f:k{i}": {}}}, **more}

    entries = [entry(i, subresource="status" if i % 2 else "") for i in range(12)]
    entries += [entry(20, operation="Apply"), entry(0, apiVersion="v0", manager="other")]
    kept = owners.capped(owners.read({"metadata": {"managedFields": entries}}))
    updates = [one for one in kept if one.operation == "Update"]
    assert len(updates) == owners.MAX_UPDATE_MANAGERS
    (ancient,) = (one for one in updates if one.manager == "ancient-changes")
    assert ancient.tree == {"f:data": {f"f:k{i}": {} for i in (0, 1, 2, 3)}}
    assert (ancient.api_version, ancient.subresource, ancient.time) == ("v1", "", "2033-05-18T03:33:03Z")


FINALIZERS = DEPLOYMENT.at("metadata", "finalizers")
letters = st.lists(st.sampled_from("abcdef"), max_size=6)


@given(letters, letters.map(lambda found: list(dict.fromkeys(found))).filter(bool))
def test_elements_of_live_survive_a_merge(live: list[str], config: list[str]) -> None:
    """All that only live has stays, doubles included and in its order; the configuration's come once, in its order."""
    merged = fieldset.merge(FINALIZERS, live, config)
    assert [one for one in merged if one not in config] == [one for one in live if one not in config]
    assert [one for one in merged if one in config] == config


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("aa", "aa", ("", "", "")),
        ("aab", "aaab", ("a", "", "")),
        ("aa", "a", ("", "a", "a")),
        ("a", "aa", ("", "a", "a")),
        ("aa", "", ("", "", "a")),
        ("b", "baa", ("", "a", "")),
    ],
)
def test_doubles_are_compared_as_one(old: str, new: str, expected: tuple[str, str, str]) -> None:
    """Elements that share a key change together: modified, added, removed."""
    assert FINALIZERS is not None
    found = fieldset.compare(FINALIZERS, list(old) or ["z"], list(new) or ["z"])
    paths = [{path[0] for path in part if path[0] != 'v:"z"'} for part in found]
    assert paths == [{f'v:"{char}"' for char in part} for part in expected]


data = st.dictionaries(st.sampled_from("abc"), st.sampled_from("123"), max_size=3)


@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), data), min_size=1, max_size=5))
def test_apply_properties(steps: list[tuple[str, dict[str, str]]]) -> None:
    """Applying twice is applying once; each sees its values; what nobody owns is gone; inputs stay as they were."""
    live: dict[str, Any] | None = None
    wanted: dict[str, dict[str, str]] = {}
    for manager, values in steps:
        kept = copy.deepcopy(live)
        config = config_map(values)
        new = schema.prune(KIND, apply(CONFIG_MAP, live, config, manager, force=True, now=NOW))[0]
        assert live == kept
        assert config == config_map(values)
        again = schema.prune(KIND, apply(CONFIG_MAP, new, config, manager, now=NOW + 1))[0]
        assert same_but_times(new, again)
        # By force, a field with another value changes hands.
        wanted = {who: {k: v for k, v in held.items() if values.get(k, v) == v} for who, held in wanted.items()}
        wanted[manager] = values
        shown = new.get("data") or {}
        assert values.items() <= shown.items()
        assert set(shown) == {key for held in wanted.values() for key in held}
        live = new


@given(data, data)
def test_sets_survive_their_written_form(a: dict[str, str], b: dict[str, str]) -> None:
    """A set of fields read from its FieldsV1 tree is the same set; a comparison with itself finds nothing."""
    paths = configured.of_value(CONFIG_MAP, config_map(a, **b))
    assert fieldset.from_fields(fieldset.to_fields(paths)) == paths
    same = fieldset.compare(CONFIG_MAP, config_map(a, **b), copy.deepcopy(config_map(a, **b)))
    assert same.is_same


def test_objects_made_alike_share_their_record() -> None:
    """Thousands of Pods of one template have one tree of owned fields in memory."""
    made = [track_update(CONFIG_MAP, None, config_map({"k": value}), "m", now=NOW) for value in ("x", "y")]
    first, second = (obj["metadata"]["managedFields"][0]["fieldsV1"] for obj in made)
    assert first is second


@given(data, data)
def test_an_apply_that_changes_nothing_keeps_every_part(a: dict[str, str], b: dict[str, str]) -> None:
    """What an apply leaves as it is stays the same object, and what it changes does not."""
    live = config_map(a, **b)
    assert fieldset.merge(CONFIG_MAP, live, copy.deepcopy(live)) is live
    changed = fieldset.merge(CONFIG_MAP, live, {"metadata": {"labels": {"x": "y"}}})
    assert changed["metadata"]["labels"]["x"] == "y"
    assert changed.get("data") is live.get("data")


def recorded() -> list[Any]:
    path = TRANSCRIPTS / "apply.json"
    if not path.exists():
        return []
    return json.loads(path.read_text().replace("<time>", STAMP).replace("<uid>", "u"))


# Scenarios that need the rest of the server: conversion between versions, scale, validation after apply, cut names.
ELSEWHERE = {"errors", "scale-keeps-ownership", "pod-apply", "versions", "missing-namespace", "user-agent-manager"}
ALLOCATED = {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"}


def untimed(obj: dict[str, Any]) -> list[Any]:
    entries = obj["metadata"].get("managedFields", [])
    return [{**entry, "time": bool(entry.get("time"))} for entry in entries]


def replayed(step: dict[str, Any], live: dict[str, Any] | None, part: str) -> dict[str, Any]:
    """The object that a step makes of the live one."""
    query = dict(pair.partition("=")[::2] for pair in step["path"].partition("?")[2].split("&"))
    manager = query.get("fieldManager", "")
    body, answer = step["body"], step["expect"]["body"]
    model = body if "apiVersion" in body else answer
    kind = REGISTRY.of(model)
    assert kind is not None
    node = schema.definition_of(kind)
    if step.get("headers", {}).get("Content-Type") == "application/apply-patch+yaml":
        force = query.get("force") == "true"
        new = apply(node, live, body, manager, force=force, subresource=part, now=NOW)
        return schema.prune(kind, new)[0]
    meta = {key: value for key, value in answer["metadata"].items() if key != "managedFields"}
    if "managedFields" in body.get("metadata", {}):
        meta["managedFields"] = body["metadata"]["managedFields"]
    new = {**answer, "metadata": meta}
    if kind.kind == "Service" and live is None:
        new["spec"] = {key: value for key, value in new["spec"].items() if key not in ALLOCATED}
    ignored = [("f:spec",)] if part == "status" else [("f:status",)]
    return track_update(node, live, new, manager, subresource=part, now=NOW, ignored=ignored)


@pytest.mark.parametrize("scenario", [s for s in recorded() if s["name"] not in ELSEWHERE], ids=lambda s: s["name"])
def test_recorded(scenario: dict[str, Any]) -> None:
    """Owners, data and conflicts come out as recorded, step by step."""
    objects: dict[str, dict[str, Any]] = {}
    for step in scenario["steps"]:
        method, expect = step.get("method"), step.get("expect", {})
        answer = expect.get("body")
        if method not in ("POST", "PUT", "PATCH") or step.get("setup") or not isinstance(step.get("body"), dict):
            continue
        path = step["path"].partition("?")[0]
        part = "status" if path.endswith("/status") else ""
        place = path.removesuffix("/status") + (f"/{answer['metadata'].get('name')}" if method == "POST" else "")
        live = objects.get(place)
        try:
            new = replayed(step, live, part)
        except ApiError as error:
            assert (error.code, error.message) == (expect["status"], answer["message"])
            assert error.details == answer.get("details")
            continue
        assert expect["status"] < 300, answer
        assert untimed(new) == untimed(answer)
        for field in ("data", "rules"):
            assert new.get(field) == answer.get(field)
        objects[place] = answer


@pytest.mark.parametrize(
    ("key", "kept"), [("x", False), ("xy", False), ("k:{", False), ("i:a", False), ("f:data", True)]
)
def test_owners_that_cannot_be_read_are_those_of_before(key: str, kept: bool) -> None:
    """A client's record counts only where each of its keys is one."""
    kind = builtin("v1", "ConfigMap")
    entry = {"manager": "a", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"}
    old = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "managedFields": [{**entry, "fieldsV1": {"f:immutable": {}}}]},
    }
    given = [{**entry, "manager": "b", "fieldsV1": {key: {}}}]
    new = {**old, "metadata": {"name": "x", "managedFields": given}}
    tracked = track_update(schema.definition_of(kind), old, new, "c", now=0)
    managers = [e["manager"] for e in tracked["metadata"].get("managedFields", ())]
    assert managers == (["b"] if kept else ["a"])
