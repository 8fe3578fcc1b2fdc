"""Fields of features that are off in upstream 1.36 unless somebody turns them on: nobody can begin to use them.

What an object has already it keeps. Source: the table of feature gates, and which fields each of them is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k3s.api.kinds import Kind
from k3s.api.object import Object

Path = tuple[str, ...]
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
# What is nothing without the field that goes.
_HOLLOW = frozenset({"lifecycle"})


def closed(kind: Kind, obj: Object, old: Object | None = None) -> Object:
    """The object without fields of features that are off, unless `old` uses them already."""
    groups = _FIELDS.get(kind.qualified)
    if groups is None:
        return obj
    for fields in groups:
        if old is not None and any(_uses(old, path) for path in fields):
            continue
        for path in fields:
            if _uses(obj, path):
                obj = _without(obj, path)
    return obj


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
