"""Fields of features that are off in upstream 1.36 unless somebody turns them on: nobody can begin to use them.

What an object has already it keeps. Source: the table of feature gates, and which fields each of them is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k3s.api.kinds import Kind
from k3s.api.object import Object

Path = tuple[str, ...]
Tree = dict[str, Any]
#: Stands in a path for each element of a list, or each value of a map.
EACH = "*"


def _path(text: str) -> Path:
    return tuple(text.split("."))


_SOURCES = "volumes.*.projected.sources.*."
# gate: the fields of a pod's spec, of which one in use lets all stay.
_POD = (
    ("ClusterTrustBundleProjection", (f"{_SOURCES}clusterTrustBundle",)),
    ("PodCertificateRequest", (f"{_SOURCES}podCertificate",)),
    ("GenericWorkload", ("schedulingGroup",)),
    ("ContainerStopSignals", ("containers.*.lifecycle.stopSignal", "initContainers.*.lifecycle.stopSignal")),
)
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_ATTRIBUTES = "spec.devices.*.attributes.*."
_TEMPLATED = (
    *("deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps", "replicationcontrollers"),
    "jobs.batch",
)


def _within(start: str) -> tuple[tuple[Path, ...], ...]:
    return tuple(tuple(_path(start + field) for field in fields) for _, fields in _POD)


# Kind -> groups of fields that go together.
_FIELDS: dict[str, tuple[tuple[Path, ...], ...]] = {
    **{kind: _within("spec.template.spec.") for kind in _TEMPLATED},
    "podtemplates": _within("template.spec."),
    "cronjobs.batch": _within("spec.jobTemplate.spec.template.spec."),
    "pods": (
        *_within("spec."),
        tuple(_path(f"status.{statuses}.*.stopSignal") for statuses in _STATUSES),  # ContainerStopSignals
        (_path("status.nodeAllocatableResourceClaimStatuses"),),  # DRANodeAllocatableResources
    ),
    "csidrivers.storage.k8s.io": ((_path("spec.preventPodSchedulingIfMissing"),),),  # VolumeLimitScaling
    "resourceslices.resource.k8s.io": (
        (_path("spec.devices.*.nodeAllocatableResourceMappings"),),  # DRANodeAllocatableResources
        tuple(
            _path(_ATTRIBUTES + field) for field in ("bools", "ints", "strings", "versions")
        ),  # DRAListTypeAttributes
    ),
}
# MaxUnavailableStatefulSet
_FIELDS["statefulsets.apps"] += ((_path("spec.updateStrategy.rollingUpdate.maxUnavailable"),),)


def _tree(groups: tuple[tuple[Path, ...], ...]) -> Tree:
    """All paths of a kind together, so that one walk tells whether any of them is used."""
    tree: Tree = {}
    for path in (path for fields in groups for path in fields):
        at = tree
        for step in path[:-1]:
            at = at.setdefault(step, {})
        at[path[-1]] = {}
    return tree


_TREES = {kind: _tree(groups) for kind, groups in _FIELDS.items()}
# What is nothing without the field that goes.
_HOLLOW = frozenset({"lifecycle"})


def closed(kind: Kind, obj: Object, old: Object | None = None) -> Object:
    """The object without fields of features that are off, unless `old` uses them already."""
    name = kind.qualified
    tree = _TREES.get(name)
    if tree is None:
        return obj
    if old is not None:  # what did not change went through this before
        tree = {step: rest for step, rest in tree.items() if obj.get(step) is not old.get(step)}
    if not _touches(obj, tree):
        return obj  # nearly every object
    for fields in _FIELDS[name]:
        if old is not None and any(_uses(old, path) for path in fields):
            continue
        for path in fields:
            if _uses(obj, path):
                obj = _without(obj, path)
    return obj


def _touches(value: Any, tree: Tree) -> bool:
    """Whether a value has any of the fields; it is of its schema's types already."""
    for step, rest in tree.items():
        if step == EACH:
            for inner in value.values() if value.__class__ is dict else value:
                if _touches(inner, rest):
                    return True
            continue
        found = value.get(step)
        if found is not None and (not rest or _touches(found, rest)):
            return True
    return False


def _inner(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value or ())


def _uses(value: Any, path: Path) -> bool:
    for at, step in enumerate(path):
        if step == EACH:
            rest = path[at + 1 :]
            return any(_uses(inner, rest) for inner in _inner(value))
        if not isinstance(value, dict):
            return False
        value = value.get(step)
        if value is None:
            return False
    return True


def _without(value: Any, path: Path) -> Any:
    step, rest = path[0], path[1:]
    if step == EACH:
        if isinstance(value, dict):
            return {key: _without(inner, rest) for key, inner in value.items()}
        return [_without(inner, rest) for inner in value or ()]
    if not isinstance(value, dict) or value.get(step) is None:
        return value
    if not rest:
        return {key: inner for key, inner in value.items() if key != step}
    inner = _without(value[step], rest)
    if not inner and step in _HOLLOW:
        return {key: other for key, other in value.items() if key != step}
    return {**value, step: inner}
