"""Pods: phase and class of service at their creation, what each path may change, grace at their end."""

from __future__ import annotations

from k3s.api import times
from k3s.api.object import Object
from k3s.api.qos import qos_class
from k3s.api.validation import podchanges, security
from k3s.apiserver.strategy import Cause, Context, Strategy, kept_metadata

_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_APPARMOR_OLD = 'deprecated since v1.30; use the "appArmorProfile" field instead'


class PodStrategy(Strategy):
    """Rules of pods."""

    def prepare_create(self, context: Context, obj: Object) -> Object:
        status: Object = {"phase": "Pending", "qosClass": qos_class(obj)}
        if obj["spec"].get("schedulingGates"):
            status["conditions"] = [_gated(context.now)]
        return {**_profiled(context, _selecting(obj)), "status": status}

    def reset_update(self, context: Context, old: Object, new: Object) -> Object:
        part = context.subresource
        if part == "ephemeralcontainers":
            return {**old, "metadata": kept_metadata(old, new), "spec": _with(old, new, "ephemeralContainers")}
        if part == "resize":
            return {**old, "metadata": kept_metadata(old, new), "spec": _resized(old["spec"], new["spec"])}
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
        """An address that came alone is the first of its list, and the other way round; generations stay observed."""
        if context.subresource != "status":
            return new
        status = _observed(old, new.get("status") or {})
        was = (old.get("status") or {}).get("qosClass")
        if was and "qosClass" not in status:
            status = {**status, "qosClass": was}
        if status.get("podIP") and not status.get("podIPs"):
            status = {**status, "podIPs": [{"ip": status["podIP"]}]}
        elif status.get("podIPs") and not status.get("podIP"):
            status = {**status, "podIP": status["podIPs"][0].get("ip", "")}
        if status.get("hostIP") and not status.get("hostIPs"):
            status = {**status, "hostIPs": [{"ip": status["hostIP"]}]}
        return new if status is new.get("status") or not status else {**new, "status": status}


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
    """What an old client says of AppArmor by an annotation stands in the field, which nodes read; since 1.34 nothing is
    written the other way round."""
    notes = pod["metadata"].get("annotations") or {}
    spec = pod["spec"]
    if not any(key.startswith(_APPARMOR) for key in notes) or (spec.get("os") or {}).get("name") == "windows":
        return pod
    overall = (spec.get("securityContext") or {}).get("appArmorProfile")
    for part in _CONTAINERS:
        containers = [_with_profile(context, container, notes, overall) for container in spec.get(part) or ()]
        if containers:
            spec = {**spec, part: containers}
    return {**pod, "spec": spec}


def _with_profile(context: Context, container: Object, notes: Object, overall: Object | None) -> Object:
    key, own = _APPARMOR + container["name"], container.get("securityContext") or {}
    if key not in notes or own.get("appArmorProfile") is not None:
        return container
    profile = _profile(notes[key])
    if profile is not None and profile == overall:
        return container
    context.warnings.append(f"metadata.annotations[{key}]: {_APPARMOR_OLD}")
    if profile is None:
        return container
    return {**container, "securityContext": {**own, "appArmorProfile": profile}}


def _profile(text: str) -> Object | None:
    """The profile that an annotation names; None where it names none that a field could have."""
    if text.startswith("localhost/"):
        profile = {"type": "Localhost", "localhostProfile": text.removeprefix("localhost/")}
        return None if any(security.app_armor("", profile)) else profile
    kind = {"unconfined": "Unconfined", "runtime/default": "RuntimeDefault"}.get(text)
    return {"type": kind} if kind else None


_AFFINITIES = ("podAffinity", "podAntiAffinity")
_REQUIRED, _PREFERRED = (f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("required", "preferred"))


def _selecting(pod: Object) -> Object:
    """Selectors with the pod's own values of the labels that its match label keys name (KEP-3633 and KEP-3243)."""
    spec, own = pod["spec"], pod["metadata"].get("labels") or {}
    if "affinity" in spec:
        near = {kind: _near(terms, own) if kind in _AFFINITIES else terms for kind, terms in spec["affinity"].items()}
        spec = {**spec, "affinity": near}
    if "topologySpreadConstraints" in spec:
        spec = {**spec, "topologySpreadConstraints": [_merged(rule, own) for rule in spec["topologySpreadConstraints"]]}
    return pod if spec is pod["spec"] else {**pod, "spec": spec}


def _near(terms: Object, own: Object) -> Object:
    out = dict(terms)
    if _REQUIRED in out:
        out[_REQUIRED] = [_merged(term, own) for term in out[_REQUIRED]]
    if _PREFERRED in out:
        out[_PREFERRED] = [
            {**term, "podAffinityTerm": _merged(term.get("podAffinityTerm") or {}, own)} for term in out[_PREFERRED]
        ]
    return out


def _merged(term: Object, own: Object) -> Object:
    """A term whose selector says what its keys mean for a pod with these labels; without a selector there is none."""
    chosen = term.get("labelSelector")
    if chosen is None:
        return term
    more = [
        {"key": key, "operator": operator, "values": [own[key]]}
        for part, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
        for key in term.get(part) or ()
        if key in own
    ]
    if not more:
        return term
    return {**term, "labelSelector": {**chosen, "matchExpressions": [*(chosen.get("matchExpressions") or ()), *more]}}


def _observed(old: Object, status: Object) -> Object:
    """A status that keeps the generations which its writer left out: of the pod, and of each condition by its type."""
    known: dict[str, list[int]] = {}
    before = old.get("status") or {}
    for condition in before.get("conditions") or ():
        known.setdefault(condition.get("type", ""), []).append(condition.get("observedGeneration") or 0)
    if before.get("observedGeneration") and not status.get("observedGeneration"):
        status = {**status, "observedGeneration": before["observedGeneration"]}
    if not any(any(generations) for generations in known.values()):
        return status
    conditions = []
    for condition in status.get("conditions") or ():
        generations = known.get(condition.get("type", ""))
        generation = generations.pop(0) if generations else 0
        if generation and not condition.get("observedGeneration"):
            condition = {**condition, "observedGeneration": generation}
        conditions.append(condition)
    return {**status, "conditions": conditions} if conditions else status


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
