"""What the API fills in, against what upstream fills in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k3s.api import schema
from k3s.api.kinds import REGISTRY, builtin

CASES = json.loads((Path(__file__).parents[2] / "data/defaults.json").read_text())


def overlay(base: Any, added: Any) -> Any:
    """The small object with what defaulting adds laid over it; lists are aligned by position."""
    if isinstance(base, dict) and isinstance(added, dict):
        return {**base, **{k: overlay(base[k], v) if k in base else v for k, v in added.items()}}
    if isinstance(base, list) and isinstance(added, list):
        return [overlay(a, b) for a, b in zip(base, added, strict=True)]
    return added


def without_empty(value: Any) -> Any:
    """The value without empty structs, which the list of facts leaves out."""
    if isinstance(value, dict):
        inner = {k: without_empty(v) for k, v in value.items()}
        return {k: v for k, v in inner.items() if v != {}}
    return [without_empty(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c['object']['kind']}" for i, c in enumerate(CASES)])
def test_small_objects_become_what_upstream_makes_of_them(case: dict[str, Any]) -> None:
    """Defaulting adds exactly what upstream 1.36 adds."""
    kind = builtin(case["object"]["apiVersion"], case["object"]["kind"])
    pruned, unknown = schema.prune(kind, case["object"])
    assert unknown == []
    expected = without_empty(overlay(case["object"], case["added"]))
    assert without_empty(schema.defaults(kind, pruned)) == expected


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c['object']['kind']}" for i, c in enumerate(CASES)])
def test_defaulting_twice_changes_nothing(case: dict[str, Any]) -> None:
    """An object with its defaults is returned as it is, and the given one is not changed."""
    kind = builtin(case["object"]["apiVersion"], case["object"]["kind"])
    before = json.dumps(case["object"])
    once = schema.defaults(kind, case["object"])
    assert schema.defaults(kind, once) == once
    assert json.dumps(case["object"]) == before


def test_a_pod_requests_what_its_containers_do_together_or_its_limits() -> None:
    """All that run at once, and no less than what one needs that runs before them; only for a pod with limits."""

    def container(name: str, cpu: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "image": "i:1", "resources": {"requests": {"cpu": cpu}}, **more}

    kind, pod = builtin("v1", "Pod"), {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}}
    spec: dict[str, Any] = {
        "initContainers": [container("i", "600m", restartPolicy="Always"), container("j", "1")],
        "containers": [container("c", "300m"), container("d", "200m")],
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
    }
    assert schema.defaults(kind, {**pod, "spec": spec})["spec"]["resources"]["requests"] == {
        "cpu": "1600m",
        "memory": "1Gi",
    }
    spec["initContainers"] = spec["initContainers"][:1]
    assert schema.defaults(kind, {**pod, "spec": spec})["spec"]["resources"]["requests"]["cpu"] == "1100m"
    spec["resources"] = {"requests": {"memory": "1Gi"}}
    assert schema.defaults(kind, {**pod, "spec": spec})["spec"]["resources"] == spec["resources"]


def test_a_pod_with_its_defaults_stays_the_same_object() -> None:
    """Rules that find nothing to do make no new objects, so that later steps see that nothing changed."""
    container = {"name": "c", "image": "i:1", "resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Mi"}}}
    spec = {"serviceAccountName": "sa", "containers": [container], "resources": {"limits": {"cpu": "1"}}}
    kind = builtin("v1", "Pod")
    once = schema.defaults(kind, {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}, "spec": spec})
    assert once["spec"]["serviceAccount"] == "sa"
    assert once["spec"]["resources"]["requests"] == {"cpu": "1", "memory": "1Mi"}
    assert schema.defaults(kind, once) is once


def test_every_kind_takes_an_empty_object() -> None:
    """No rule needs a field to be there."""
    for kind in REGISTRY.all():
        schema.defaults(kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}})


def test_custom_defaults() -> None:
    """A custom schema's defaults are filled in where their parent is there."""
    raw = {
        "properties": {
            "spec": {"type": "object", "properties": {"n": {"type": "integer", "default": 3}}},
            "mode": {"type": "object", "default": {}, "properties": {"a": {"type": "string", "default": "x"}}},
        }
    }
    kind = _custom_kind(raw)
    assert schema.defaults(kind, {"spec": {}}) == {"spec": {"n": 3}, "mode": {"a": "x"}}
    assert schema.defaults(kind, {}) == {"mode": {"a": "x"}}


def _custom_kind(raw: dict[str, Any]) -> Any:
    from k3s.api import kinds

    node = schema.custom(raw)
    return kinds.make("a.io", "v1", "Thing", "things", namespaced=True, custom=True, schema=node)
