"""Pods: phase and class of service at their creation, what each path may change, grace at their end."""

from __future__ import annotations

from k3s.api import times
from k3s.api.object import Object
from k3s.api.qos import qos_class
from k3s.api.validation import podchanges
from k3s.apiserver.strategy import Cause, Context, Strategy

_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_APPARMOR_OLD = 'deprecated since v1.30; use the "appArmorProfile" field instead'


class PodStrategy(Strategy):
    """Rules of pods."""

    def prepare_create(self, context: Context, obj: Object) -> Object:
        status: Object = {"phase": "Pending", "qosClass": qos_class(obj)}
        if obj["spec"].get("schedulingGates"):
            status["conditions"] = [_gated(context.now)]
        return {**_profiled(context, obj), "status": status}

    def reset_update(self, context: Context, old: Object, new: Object) -> Object:
        part = context.subresource
        if part == "ephemeralcontainers":
            return {**old, "metadata": _same_revision(old, new), "spec": _with(old, new, "ephemeralContainers")}
        if part == "resize":
            return {**old, "metadata": _same_revision(old, new), "spec": _resized(old["spec"], new["spec"])}
        if part == "binding":
            return new
        return super().reset_update(context, old, new)

    def validate(self, context: Context, old: Object | None, new: Object) -> list[Cause]:
        if old is not None and context.subresource == "ephemeralcontainers":
            return [*podchanges.ephemeral(old, new)]
        if old is None or context.subresource != "resize":
            return []
        from k3s.apiserver.subresources import resize

        return resize.causes(old, new)

    def changed_spec(self, context: Context, old: Object, new: Object) -> bool:
        """Being bound to a node is no new generation."""
        return context.subresource != "binding" and bool(old["spec"] != new["spec"])

    def grace(self, context: Context, obj: Object, asked: int | None) -> int | None:
        """What the client asked for or the pod says; nothing for a pod that runs nowhere or is over."""
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
            return 0
        period = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30)
        return 1 if period < 0 else int(period)

    def prepare_update(self, context: Context, old: Object, new: Object) -> Object:
        """An address that came alone is the first of its list, and the other way round."""
        if context.subresource != "status":
            return new
        status = new.get("status") or {}
        was = (old.get("status") or {}).get("qosClass")
        if was and "qosClass" not in status:
            status = {**status, "qosClass": was}
        if status.get("podIP") and not status.get("podIPs"):
            status = {**status, "podIPs": [{"ip": status["podIP"]}]}
        elif status.get("podIPs") and not status.get("podIP"):
            status = {**status, "podIP": status["podIPs"][0].get("ip", "")}
        if status.get("hostIP") and not status.get("hostIPs"):
            status = {**status, "hostIPs": [{"ip": status["hostIP"]}]}
        return new if status is new.get("status") else {**new, "status": status}


def _gated(now: float) -> Object:
    return {
        "type": "PodScheduled",
        "status": "False",
        "lastProbeTime": None,
        "lastTransitionTime": times.format(now),
        "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
    }


def _profiled(context: Context, pod: Object) -> Object:
    """A field says the AppArmor profile, and to old nodes an annotation: what only one says, the other repeats."""
    spec, notes = pod["spec"], dict(pod["metadata"].get("annotations") or {})
    overall = (spec.get("securityContext") or {}).get("appArmorProfile")
    if overall is None and not any(key.startswith(_APPARMOR) for key in notes):
        parts = [c for part in _CONTAINERS for c in spec.get(part) or ()]
        if not any((c.get("securityContext") or {}).get("appArmorProfile") for c in parts):
            return pod
    for part in _CONTAINERS:
        containers = list(spec.get(part) or ())
        for i, container in enumerate(containers):
            key = _APPARMOR + container["name"]
            own = (container.get("securityContext") or {}).get("appArmorProfile")
            if key not in notes:
                text = _profile_text(own or overall)
                if text:
                    notes[key] = text
            elif own is None:
                context.warnings.append(f"metadata.annotations[{key}]: {_APPARMOR_OLD}")
                profile = _profile(notes[key])
                if profile is not None and profile != overall:
                    security = {**(container.get("securityContext") or {}), "appArmorProfile": profile}
                    containers[i] = {**container, "securityContext": security}
        if containers:
            spec = {**spec, part: containers}
    meta = {**pod["metadata"], "annotations": notes} if notes else pod["metadata"]
    return {**pod, "metadata": meta, "spec": spec}


def _profile_text(profile: Object | None) -> str:
    kind = (profile or {}).get("type")
    if kind == "Localhost":
        return f"localhost/{(profile or {}).get('localhostProfile', '')}"
    return {"Unconfined": "unconfined", "RuntimeDefault": "runtime/default"}.get(str(kind), "")


def _profile(text: str) -> Object | None:
    if text.startswith("localhost/"):
        return {"type": "Localhost", "localhostProfile": text.removeprefix("localhost/")}
    kind = {"unconfined": "Unconfined", "runtime/default": "RuntimeDefault"}.get(text)
    return {"type": kind} if kind else None


def _same_revision(old: Object, new: Object) -> Object:
    """The old metadata, but with the resourceVersion that the client named."""
    revision = new["metadata"].get("resourceVersion")
    return {**old["metadata"], "resourceVersion": revision} if revision else old["metadata"]


def _with(old: Object, new: Object, field: str) -> Object:
    spec = dict(old["spec"])
    if field in new["spec"]:
        spec[field] = new["spec"][field]
    else:
        spec.pop(field, None)
    return spec


def _resized(old: Object, new: Object) -> Object:
    """The old spec with the resources (and resize policies) of the new one's containers.

    Other containers than there were stay as asked for: that is refused later.
    """
    spec = dict(old)
    for field in ("containers", "initContainers"):
        was, now = old.get(field) or (), new.get(field) or ()
        if len(was) != len(now):
            return new
        if was and [c.get("name") for c in was] == [c.get("name") for c in now]:
            spec[field] = [_one_resized(c, other) for c, other in zip(was, now, strict=True)]
        elif was:
            spec[field] = now
    if "resources" in new:
        spec["resources"] = new["resources"]
    else:
        spec.pop("resources", None)
    return spec


def _one_resized(old: Object, new: Object) -> Object:
    changed = {**old, "resources": new.get("resources") or {}}
    if "resizePolicy" in new:
        changed["resizePolicy"] = new["resizePolicy"]
    return changed
