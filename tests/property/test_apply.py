"""What server-side apply promises, whatever is applied: by chance, for a built-in and a custom kind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s.api import apply as api
from k3s.api import schema
from k3s.api.errors import ApiError
from k3s.api.fieldset import from_fields, to_fields
from k3s.api.kinds import builtin, make

DEPLOYMENT = schema.definition_of(builtin("apps/v1", "Deployment"))
_RAW = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer"},
                "selector": {"type": "object", "additionalProperties": {"type": "string"}},
                "template": {
                    "type": "object",
                    "properties": {
                        "spec": {
                            "type": "object",
                            "properties": {
                                "containers": {
                                    "type": "array",
                                    "x-kubernetes-list-type": "map",
                                    "x-kubernetes-list-map-keys": ["name"],
                                    "items": {
                                        "type": "object",
                                        "properties": {
                                            "name": {"type": "string"},
                                            "image": {"type": "string"},
                                            "args": {"type": "array", "items": {"type": "string"}},
                                        },
                                    },
                                }
                            },
                        }
                    },
                },
            },
        }
    },
}
CUSTOM = schema.definition_of(
    make("example.com", "v1", "Widget", "widgets", namespaced=True, custom=True, schema=schema.custom(_RAW))
)
NODES = pytest.mark.parametrize("node", [DEPLOYMENT, CUSTOM], ids=["built-in", "custom"])

_texts = st.sampled_from(["a", "b", "c"])
_containers = st.dictionaries(
    _texts, st.fixed_dictionaries({}, optional={"image": _texts, "args": st.lists(_texts, max_size=2)}), max_size=3
).map(lambda found: [{"name": name, **rest} for name, rest in found.items()])


def configs(labels: st.SearchStrategy[str] = _texts) -> st.SearchStrategy[dict[str, Any]]:
    """Configurations with scalars, a map, a list by key with an atomic list inside."""
    spec = st.fixed_dictionaries({}, optional={"replicas": st.integers(1, 3), "containers": _containers})
    return st.builds(_config, spec, st.dictionaries(labels, _texts, max_size=3))


def _config(spec: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {"metadata": {"name": "d", "labels": labels} if labels else {"name": "d"}}
    body = {"replicas": spec["replicas"]} if "replicas" in spec else {}
    if spec.get("containers"):
        body["template"] = {"spec": {"containers": spec["containers"]}}
    return {**made, "spec": body} if body else made


def applied(node: Any, live: Any, config: Any, manager: str, *, force: bool = True) -> Any:
    """One apply at a fixed time."""
    typed = {"apiVersion": "v1", "kind": "X", **config}
    return api.apply(node, live, typed, manager, force=force, now=1.0)


def values(obj: Any) -> Any:
    """The object without its record of owners, lists by key in any order, nothing empty."""
    if isinstance(obj, dict):
        kept = {key: values(inner) for key, inner in obj.items() if key != "managedFields"}
        return {key: inner for key, inner in kept.items() if inner not in ({}, [], None)}
    if isinstance(obj, list) and obj and isinstance(obj[0], dict):
        return sorted((values(inner) for inner in obj), key=lambda inner: str(inner.get("name")))
    return obj


def owners(obj: Any) -> dict[str, Any]:
    """Who owns what."""
    entries = (obj.get("metadata") or {}).get("managedFields") or []
    return {entry["manager"]: from_fields(entry["fieldsV1"]) for entry in entries}


@NODES
@settings(max_examples=60, deadline=None)
@given(first=configs(), second=configs())
def test_apply_is_idempotent(node: Any, first: Any, second: Any) -> None:
    """The same configuration a second time changes nothing, owners included, whoever else has applied."""
    once = applied(node, applied(node, None, first, "a"), second, "b")
    again = applied(node, once, second, "b")
    assert values(again) == values(once)
    assert owners(again) == owners(once)


@NODES
@settings(max_examples=60, deadline=None)
@given(first=configs(st.sampled_from(["x", "y"])), second=configs(st.sampled_from(["z", "w"])))
def test_the_order_of_managers_that_do_not_meet_does_not_matter(node: Any, first: Any, second: Any) -> None:
    """Without a conflict between them, either may come first: the same object, the same owners."""
    try:
        one = applied(node, applied(node, None, first, "a", force=False), second, "b", force=False)
        two = applied(node, applied(node, None, second, "b", force=False), first, "a", force=False)
    except ApiError:
        return
    assert values(one) == values(two)
    assert owners(one) == owners(two)


@NODES
@settings(max_examples=80, deadline=None)
@given(first=configs(), second=configs())
def test_a_field_goes_exactly_with_its_last_owner(node: Any, first: Any, second: Any) -> None:
    """When one manager gives everything up, what the other applied is what is left."""
    both = applied(node, applied(node, None, first, "a"), second, "b")
    left = applied(node, both, {"metadata": {"name": "d"}}, "a")
    alone = applied(node, None, second, "b")
    # A forced apply takes values over; what both named stays with the one who still names it.
    assert values(left) == values(alone)
    assert owners(left).get("b") == owners(alone).get("b")


@NODES
@settings(max_examples=60, deadline=None)
@given(config=configs())
def test_a_record_survives_its_written_form(node: Any, config: Any) -> None:
    """FieldsV1 says what was owned, no more and no less."""
    for paths in owners(applied(node, None, config, "a")).values():
        assert from_fields(to_fields(paths)) == paths
