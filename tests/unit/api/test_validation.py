"""What makes an object invalid, against the causes that upstream names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k3s.api import kinds, schema
from k3s.api.kinds import REGISTRY, builtin
from k3s.api.object import evolve
from k3s.api.validation import validate_create, validate_update
from k3s.api.validation.cron import problems

DATA = Path(__file__).parents[2] / "data"
# Objects and the causes that upstream names: recorded, and by kind read off its rules.
CASES = [case for file in sorted(DATA.glob("invalid*.json")) for case in json.loads(file.read_text())]
CHANGES = json.loads((DATA / "changes.json").read_text())


def _ready(obj: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    kind = builtin(obj["apiVersion"], obj["kind"])
    return kind, schema.defaults(kind, schema.prune(kind, obj)[0])


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c['object']['kind']}" for i, c in enumerate(CASES)])
def test_new_objects_have_the_causes_of_upstream(case: dict[str, Any]) -> None:
    """Reason, field and message of each cause, in order; none for the objects that upstream takes."""
    kind, obj = _ready(case["object"])
    found = [[c["reason"], c["field"], c["message"]] for c in validate_create(kind, obj)]
    assert found == case["causes"]


@pytest.mark.parametrize("case", CHANGES, ids=[f"{i}-{c['old']['kind']}" for i, c in enumerate(CHANGES)])
def test_changes_have_the_causes_of_upstream(case: dict[str, Any]) -> None:
    """What may not change, of the content and of the status, in upstream's order."""
    (kind, old), (_, new) = _ready(case["old"]), _ready(case["new"])
    found = [[c["reason"], c["field"], c["message"]] for c in validate_update(kind, old, new)]
    assert found == case["causes"]


def test_no_rule_needs_a_field_to_be_there() -> None:
    """An object with nothing but a name is judged, not stumbled over."""
    for kind in REGISTRY.all():
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}}
        validate_create(kind, obj)
        validate_update(kind, obj, {**obj, "spec": {}, "status": {"x": 1}})


def _pod(**spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "i:1"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container], **spec}}
    return _ready(pod)[1]


def _fields(kind: Any, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [c["field"] for c in validate_update(kind, old, new)]


def test_of_a_pod_only_images_and_tolerations_change() -> None:
    """Everything else in the spec is refused; the metadata is free."""
    kind, old = builtin("v1", "Pod"), _pod()
    assert _fields(kind, old, _pod(nodeSelector={"a": "b"})) == ["spec"]
    assert _fields(kind, old, _pod(tolerations=[{"key": "a", "operator": "Exists"}])) == []
    image = {**old, "spec": {**old["spec"], "containers": [{**old["spec"]["containers"][0], "image": "j:2"}]}}
    assert _fields(kind, old, image) == []
    assert _fields(kind, old, evolve(old, ("metadata", "labels"), {"a": "b"})) == []
    assert _fields(kind, old, evolve(old, ("metadata", "labels"), {"a b": "b"})) == 4 * ["metadata.labels"]


@pytest.mark.parametrize(
    ("api_version", "name", "labels", "finalizers"),
    [
        ("v1", "ConfigMap", 4, ["s", "s[0]", "s", "s[0]"]),
        ("v1", "PersistentVolume", 4, ["s", "s", "s[0]", "s", "s[0]"]),
        ("v1", "LimitRange", 3, ["s", "s", "s[0]"]),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", 4, ["s", "s", "s[0]", "s[0]"]),
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", 3, ["s", "s"]),
        ("apps/v1", "Deployment", 3, ["s", "s[0]"]),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", 3, ["s"]),
    ],
)
def test_faults_of_metadata_are_told_by_each_rule_that_finds_them(
    api_version: str, name: str, labels: int, finalizers: list[str]
) -> None:
    """The rules of every object, of every change, and those of the kind: finalizers are judged in whole objects."""
    kind = builtin(api_version, name)
    old = {"apiVersion": api_version, "kind": name, "metadata": {"name": "x"}}
    bad = {**old, "metadata": {"name": "x", "labels": {"a": "b c"}}}
    assert _fields(kind, old, bad) == labels * ["metadata.labels"]
    bad = {**old, "metadata": {"name": "x", "finalizers": ["b c"]}}
    assert [f.removeprefix("metadata.finalizer") for f in _fields(kind, old, bad)] == finalizers


def test_finalizers_that_contradict() -> None:
    """Dependents are orphaned, or deleted first, not both; a custom object may have a finalizer without a domain."""
    both = {"metadata": {"name": "x", "finalizers": ["orphan", "foregroundDeletion"]}}
    [cause] = validate_create(builtin("v1", "ConfigMap"), both)
    shown = 'Invalid value: ["orphan","foregroundDeletion"]: '
    assert cause["message"] == shown + "finalizer orphan and foregroundDeletion cannot be both set"
    custom = kinds.make("g.io", "v1", "Thing", "things", namespaced=True, custom=True)
    assert not validate_create(custom, {"metadata": {"name": "x", "finalizers": ["foo"]}})


def test_a_gated_pod_may_be_steered_and_its_gates_only_go() -> None:
    """Node selector and affinity are open as long as there is a gate."""
    kind, old = builtin("v1", "Pod"), _pod(schedulingGates=[{"name": "a"}, {"name": "b"}])
    assert _fields(kind, old, _pod(schedulingGates=[{"name": "a"}], nodeSelector={"x": "y"})) == []
    more = _pod(schedulingGates=[{"name": "a"}, {"name": "c"}])
    assert _fields(kind, old, more) == ["spec.schedulingGates[1].name"]


@pytest.mark.parametrize(
    ("api_version", "name", "old", "new", "field"),
    [
        ("v1", "ConfigMap", {"immutable": True, "data": {"a": "b"}}, {"immutable": True, "data": {"a": "c"}}, "data"),
        ("v1", "ConfigMap", {"immutable": True}, {"immutable": False}, "immutable"),
        ("v1", "Secret", {"type": "a/b"}, {"type": "c/d"}, "type"),
        ("v1", "Service", {"spec": {"clusterIPs": ["1.2.3.4"]}}, {"spec": {"clusterIPs": ["1.2.3.5"]}}, "clusterIPs"),
        (
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            {"roleRef": {"name": "a"}},
            {"roleRef": {"name": "b"}},
            "roleRef",
        ),
        ("storage.k8s.io/v1", "StorageClass", {"provisioner": "a"}, {"provisioner": "b"}, "provisioner"),
        ("discovery.k8s.io/v1", "EndpointSlice", {"addressType": "IPv4"}, {"addressType": "IPv6"}, "addressType"),
        ("apps/v1", "Deployment", {"spec": {"selector": {}}}, {"spec": {"selector": None}}, "spec.selector"),
        ("batch/v1", "Job", {"spec": {"completionMode": "Indexed"}}, {"spec": {}}, "spec.completionMode"),
        ("v1", "PersistentVolume", {"spec": {"nfs": {}}}, {"spec": {"csi": {}}}, "spec.persistentvolumesource"),
    ],
)
def test_what_never_changes(api_version: str, name: str, old: Any, new: Any, field: str) -> None:
    """A change of an immutable field is named, whatever else is wrong."""
    meta = {"metadata": {"name": "x"}}
    fields = _fields(builtin(api_version, name), {**meta, **old}, {**meta, **new})
    assert any(field in found for found in fields)


def test_a_changed_source_is_quoted_as_a_difference() -> None:
    """The lines of the two structs that differ, with three around them, as the reference server dumps them."""
    kind, meta = builtin("v1", "PersistentVolume"), {"metadata": {"name": "x"}}
    old = {**meta, "spec": {"hostPath": {"path": "/x", "type": ""}}}
    new = {**meta, "spec": {"hostPath": {"path": "/y", "type": ""}}}
    messages = [c["message"] for c in validate_update(kind, old, new) if c["field"] == "spec.persistentvolumesource"]
    lines = [
        "Forbidden: spec.persistentvolumesource is immutable after creation",
        "@@ -2,7 +2,7 @@",
        '  "GCEPersistentDisk": null,',
        '  "AWSElasticBlockStore": null,',
        '  "HostPath": {',
        '-  "Path": "/x",',
        '+  "Path": "/y",',
        '   "Type": ""',
        "  },",
        '  "Glusterfs": null,',
        "",
    ]
    assert messages == ["\n".join(lines)]


def test_counts_of_a_status_fit_each_other() -> None:
    """More ready than there are is refused, on an update of the status as well."""
    kind = builtin("apps/v1", "ReplicaSet")
    old = {"metadata": {"name": "x"}, "status": {"replicas": 1}}
    new = {"metadata": {"name": "x"}, "status": {"replicas": 1, "readyReplicas": 2}}
    assert _fields(kind, old, new) == ["status.readyReplicas"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("*/5 * * * *", ""),
        ("0 0 1,15 jan-mar SUN", ""),
        ("@daily", ""),
        ("@every 1h30m", ""),
        ("5/15 * * * ?", ""),
        ("nope", "expected exactly 5 fields, found 1: [nope]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 5-2", "beginning of range (5) beyond end of range (2): 5-2"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("@fortnightly", "unrecognized descriptor: @fortnightly"),
    ],
)
def test_schedules(text: str, problem: str) -> None:
    """Five fields with ranges, lists, steps and names, or a word."""
    assert problems(text) == ([problem] if problem else [])
