"""`/resize`: what a running pod's resources may become. Source: KEP-1287 (in-place update of pod resources)."""

from __future__ import annotations

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.api.qos import qos_class
from k3s.api.validation import validate_create

Cause = dict[str, str]
POD = builtin("v1", "Pod")
_MIRROR = "kubernetes.io/config.mirror"
_RESIZABLE = ("cpu", "memory")


def causes(old: Object, new: Object) -> list[Cause]:
    """Why a pod cannot be resized so: only cpu and memory change, none is taken away, the class of service stays."""
    found = validate_create(POD, new)
    if _MIRROR in (old["metadata"].get("annotations") or {}):
        return [*found, _forbidden("", "static pods cannot be resized")]
    spec = old["spec"]
    if (spec.get("os") or {}).get("name") == "windows":
        return [*found, _forbidden("", "windows pods cannot be resized")]
    was = (old.get("status") or {}).get("qosClass") or qos_class(old)
    if was != qos_class(new):
        text = f'Invalid value: "{was}": Pod QOS Class may not change as a result of resizing'
        found.append({"reason": "FieldValueInvalid", "message": text, "field": "spec"})
    others = False
    for field in ("containers", "initContainers"):
        for i, (before, after) in enumerate(zip(spec.get(field) or (), new["spec"].get(field) or (), strict=True)):
            if before.get("resources") == after.get("resources"):
                continue
            others = others or _unresizable(before) != _unresizable(after) or not _may_resize(field, before)
            found += _removed(before, after, f"spec.{field}[{i}].resources")
    if others:
        found.append(_forbidden("spec", "only cpu and memory resources are mutable"))
    return found


def _forbidden(field: str, why: str) -> Cause:
    return {"reason": "FieldValueForbidden", "message": f"Forbidden: {why}", "field": field or "<nil>"}


def _may_resize(field: str, container: Object) -> bool:
    """Init containers that end before the others start have nothing to resize."""
    return field == "containers" or container.get("restartPolicy") == "Always"


def _unresizable(container: Object) -> Object:
    """The resources of a container besides cpu and memory."""
    resources = container.get("resources") or {}
    rest = {part: {k: v for k, v in (resources.get(part) or {}).items() if k not in _RESIZABLE} for part in _PARTS}
    return {**rest, "claims": resources.get("claims") or []}


_PARTS = ("requests", "limits")


def _removed(before: Object, after: Object, at: str) -> list[Cause]:
    old, new = before.get("resources") or {}, after.get("resources") or {}
    gone = [part for part in _PARTS if set(old.get(part) or ()) - set(new.get(part) or ())]
    return [_forbidden(f"{at}.{part}", f"resource {part} cannot be removed") for part in gone]
