"""Schema nodes, pruning and type errors."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.api import schema
from k3s.api.errors import BadRequest
from k3s.api.kinds import REGISTRY, builtin

POD = builtin("v1", "Pod")
DEPLOYMENT = builtin("apps/v1", "Deployment")


def test_every_kind_has_a_schema_whose_parts_resolve() -> None:
    """Each reference leads to a definition, to the depth of every field of every kind."""
    seen: set[str] = set()

    def walk(node: schema.Node) -> None:
        if node.definition in seen:
            return
        if node.definition:
            seen.add(node.definition)
        for child in node.fields.values():
            walk(child)
        items = node.items()
        if items is not None:
            walk(items)

    for kind in REGISTRY.all():
        walk(schema.definition_of(kind))
    assert len(seen) > 400


def test_merge_keys_are_found_through_lists() -> None:
    """A path names fields; what list it lies in does not matter."""
    assert schema.merge_key(POD, "spec", "containers") == "name"
    assert schema.merge_key(DEPLOYMENT, "spec", "template", "spec", "containers", "ports") == "containerPort"
    assert schema.list_map_keys(POD, "spec", "containers", "ports") == ("containerPort", "protocol")
    assert schema.merge_key(POD, "spec", "nothing") == ""
    node = schema.definition_of(DEPLOYMENT).at("spec", "strategy")
    assert node is not None
    assert node.patch_strategies == {"retainKeys"}
    assert node.type == "object"


def test_unknown_fields_are_left_out_and_named() -> None:
    """The path has list positions as upstream writes them."""
    pod = {"nope": 1, "spec": {"containers": [{"name": "c"}, {"name": "d", "foo": 1}], "x": {"y": 1}}}
    pruned, unknown = schema.prune(POD, pod)
    assert unknown == ["nope", "spec.containers[1].foo", "spec.x"]
    assert pruned == {"spec": {"containers": [{"name": "c"}, {"name": "d"}]}}


def test_values_take_their_one_form() -> None:
    """Nulls and empty maps vanish, quantities and times are canonical, an object without either is the same object."""
    pod = {
        "metadata": {"labels": {}, "annotations": None, "creationTimestamp": "2026-01-01T01:00:00+01:00"},
        "spec": {
            "containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Ki"}}}],
            "volumes": [{"name": "e", "emptyDir": {}}],
        },
    }
    pruned, _ = schema.prune(POD, pod)
    assert pruned["metadata"] == {"creationTimestamp": "2026-01-01T00:00:00Z"}
    assert pruned["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "1Mi"}
    assert pruned["spec"]["volumes"] == [{"name": "e", "emptyDir": {}}]
    assert schema.prune(POD, pruned)[0] is pruned


def test_what_is_known_is_not_looked_at_again() -> None:
    """Parts taken over from a stored object pass as they are, wherever they stand; everything else is looked at."""
    odd, fresh = {"name": "c", "nope": 1}, {"name": "d", "nope": 1}
    labels = {"a": "b", "c": None}
    old = {"metadata": {"labels": labels}, "spec": {"containers": [odd], "enableServiceLinks": True}}
    new = {"metadata": {"labels": labels, "name": "x"}, "spec": {"containers": [fresh, odd]}}
    pruned, unknown = schema.prune(POD, new, old)
    assert unknown == ["spec.containers[0].nope"]
    assert pruned["spec"]["containers"][1] is odd
    assert pruned["metadata"]["labels"] is labels
    filled = schema.defaults(POD, new, old)
    assert filled["spec"]["containers"][1] is odd
    assert filled["spec"]["containers"][0]["terminationMessagePolicy"] == "File"
    assert schema.defaults(POD, {**new, "spec": old["spec"]}, old)["spec"] is old["spec"]


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        ({"value": "1"}, "json: cannot unmarshal string into Go struct field PriorityClass.value of type int32"),
        (
            {"metadata": 1},
            "json: cannot unmarshal number into Go struct field PriorityClass.metadata of type v1.ObjectMeta",
        ),
        (
            {"metadata": {"finalizers": "x"}},
            "cannot unmarshal string into Go struct field ObjectMeta.metadata.finalizers",
        ),
        (
            {"value": 1 << 40},
            "cannot unmarshal number 1099511627776 into Go struct field PriorityClass.value of type int32",
        ),
    ],
)
def test_other_types_are_refused(obj: dict[str, object], text: str) -> None:
    """The error is a BadRequest that names kind, field and type."""
    kind = builtin("scheduling.k8s.io/v1", "PriorityClass")
    with pytest.raises(BadRequest) as error:
        schema.prune(kind, obj)
    assert error.value.message.startswith('PriorityClass in version "v1" cannot be handled as a PriorityClass: ')
    assert text in error.value.message


def test_custom_resources_without_a_schema_keep_everything() -> None:
    """Only the metadata is checked."""
    from k3s.api import kinds

    kind = kinds.make("a.io", "v1", "Thing", "things", namespaced=True, custom=True)
    thing = {"metadata": {"name": "x", "zz": 1}, "spec": {"a": None}}
    pruned, unknown = schema.prune(kind, thing)
    assert unknown == ["metadata.zz"]
    assert pruned == {"metadata": {"name": "x"}, "spec": {"a": None}}


def test_nothing_is_written_in_one_way() -> None:
    """False, zero and empty text vanish where the API does not tell them from a missing value, and only there."""
    pod = {
        "spec": {
            "hostNetwork": False,
            "nodeName": "",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "", "tty": False, "env": [{"name": "A", "value": ""}]}],
        }
    }
    pruned, _ = schema.prune(POD, pod)
    assert pruned["spec"] == {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "", "env": [{"name": "A"}]}],
    }
    claim, _ = schema.prune(
        builtin("v1", "PersistentVolumeClaim"), {"spec": {"storageClassName": "", "volumeName": ""}}
    )
    assert claim["spec"] == {"storageClassName": ""}


@pytest.mark.parametrize(
    ("api_version", "kind", "spec", "kept"),
    [
        ("v1", "PersistentVolumeClaim", {"storageClassName": "", "volumeName": ""}, {"storageClassName": ""}),
        ("v1", "Pod", {"hostNetwork": False, "hostUsers": False, "nodeName": ""}, {"hostUsers": False}),
        ("apps/v1", "Deployment", {"paused": False, "replicas": 0, "minReadySeconds": 0}, {"replicas": 0}),
        ("networking.k8s.io/v1", "Ingress", {"ingressClassName": ""}, {"ingressClassName": ""}),
    ],
)
def test_empty_values_stay_where_they_say_something(
    api_version: str, kind: str, spec: dict[str, Any], kept: dict[str, Any]
) -> None:
    """Empty text, false and 0 vanish from fields that cannot tell them from nothing."""
    row = builtin(api_version, kind)
    assert schema.prune(row, {"apiVersion": api_version, "kind": kind, "spec": spec})[0]["spec"] == kept


@pytest.mark.parametrize(("text", "at"), [("1", 0), ("QUJ", 0), ("QUJD!", 4), ("QUJDQQ=", 4)])
def test_bytes_are_base64(text: str, at: int) -> None:
    """The message says where it stops being that."""
    secret = {"apiVersion": "v1", "kind": "Secret", "data": {"a": text}}
    with pytest.raises(BadRequest, match=f"illegal base64 data at input byte {at}$"):
        schema.prune(builtin("v1", "Secret"), secret)
