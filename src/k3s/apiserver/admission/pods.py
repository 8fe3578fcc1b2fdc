"""What pods get by default or by class: priority, tolerations, runtime class overhead.

Source: "Pod Priority and Preemption", "Taints and Tolerations" and "Runtime Class" in the Kubernetes documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

PRIORITY_CLASS = builtin("scheduling.k8s.io/v1", "PriorityClass")
RUNTIME_CLASS = builtin("node.k8s.io/v1", "RuntimeClass")
_DEFAULT_POLICY = "PreemptLowerPriority"


class Priority(Plugin):
    """Turns a priority class into the number that the scheduler reads; keeps the default class single."""

    name = "Priority"
    resources = frozenset({"pods", "priorityclasses.scheduling.k8s.io"})
    admits = frozenset({CREATE, UPDATE})
    validates = frozenset({CREATE, UPDATE})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def admit(self, request: AdmissionRequest) -> Object:
        assert request.obj is not None
        if request.kind.plural != "pods" or request.subresource:
            return request.obj
        if request.operation == UPDATE:
            return _kept(request.old or {}, request.obj)
        return self._with_priority(request, request.obj)

    def validate(self, request: AdmissionRequest) -> None:
        if request.kind.plural == "pods" or request.obj is None or not request.obj.get("globalDefault"):
            return
        default = self._default()
        if default is not None and default["metadata"]["name"] != request.obj["metadata"].get("name"):
            name = default["metadata"]["name"]
            raise refuse(request, f"PriorityClass {name} is already marked as default. Only one default can exist")

    def _with_priority(self, request: AdmissionRequest, pod: Object) -> Object:
        spec = dict(pod["spec"])
        name = spec.get("priorityClassName") or ""
        found = self._reader.get(PRIORITY_CLASS, "", name) if name else self._default()
        if name and found is None:
            raise refuse(request, f"no PriorityClass with name {name} was found")
        priority = found["value"] if found else 0
        policy = (found.get("preemptionPolicy") if found else None) or _DEFAULT_POLICY
        if found:
            spec["priorityClassName"] = found["metadata"]["name"]
        given = spec.get("priority")
        if given is not None and given != priority:
            raise refuse(
                request,
                f"the integer value of priority ({given}) must not be provided in pod spec; "
                f"priority admission controller computed {priority} from the given PriorityClass name",
            )
        if spec.get("preemptionPolicy") not in (None, policy):
            raise refuse(
                request,
                f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
                f"priority admission controller computed {policy} from the given PriorityClass name",
            )
        spec |= {"priority": priority, "preemptionPolicy": policy}
        return {**pod, "spec": spec}

    def _default(self) -> Object | None:
        defaults = [c for c in self._reader.list(PRIORITY_CLASS) if c.get("globalDefault")]
        return min(defaults, key=lambda found: int(found["value"])) if defaults else None


def _kept(old: Object, pod: Object) -> Object:
    """The pod with the priority it was created with, for clients that do not send it."""
    before, spec = old.get("spec") or {}, pod["spec"]
    lost = {f: before[f] for f in ("priority", "preemptionPolicy") if f in before and spec.get(f) is None}
    return {**pod, "spec": {**spec, **lost}} if lost else pod


_NOT_READY = "node.kubernetes.io/not-ready"
_UNREACHABLE = "node.kubernetes.io/unreachable"


class DefaultTolerationSeconds(Plugin):
    """Lets a pod stay five minutes on a node that is not ready or not reachable, unless it says otherwise."""

    name = "DefaultTolerationSeconds"
    resources = frozenset({"pods"})
    admits = frozenset({CREATE, UPDATE})

    def __init__(self, not_ready_s: int = 300, unreachable_s: int = 300) -> None:
        self._wanted = [
            {"key": _NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": not_ready_s},
            {"key": _UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": unreachable_s},
        ]

    def admit(self, request: AdmissionRequest) -> Object:
        pod = request.obj
        assert pod is not None
        if request.subresource:
            return pod
        own = pod["spec"].get("tolerations") or []
        added = [wanted for wanted in self._wanted if not any(_tolerates(t, wanted["key"]) for t in own)]
        return {**pod, "spec": {**pod["spec"], "tolerations": [*own, *added]}} if added else pod


def _tolerates(toleration: Object, key: object) -> bool:
    return toleration.get("key") in (key, None, "") and toleration.get("effect") in ("NoExecute", None, "")


class RuntimeClass(Plugin):
    """Adds the overhead and the scheduling constraints of a pod's runtime class."""

    name = "RuntimeClass"
    resources = frozenset({"pods"})
    admits = frozenset({CREATE})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def admit(self, request: AdmissionRequest) -> Object:
        pod = request.obj
        assert pod is not None
        if request.subresource:
            return pod
        spec = pod["spec"]
        name = spec.get("runtimeClassName")
        if not name:
            if spec.get("overhead"):
                why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                raise refuse(request, why)
            return pod
        found = self._reader.get(RUNTIME_CLASS, "", name)
        if found is None:
            raise refuse(request, f'pod rejected: RuntimeClass "{name}" not found')
        added = {**_overhead(request, spec, found), **_scheduling(request, spec, found.get("scheduling") or {})}
        return {**pod, "spec": {**spec, **added}} if added else pod


def _overhead(request: AdmissionRequest, spec: Object, found: Object) -> Object:
    fixed = (found.get("overhead") or {}).get("podFixed")
    given = spec.get("overhead")
    if given and given != fixed:
        raise refuse(request, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
    return {"overhead": fixed} if fixed else {}


def _scheduling(request: AdmissionRequest, spec: Object, scheduling: Object) -> Object:
    added: Object = {}
    selector, own = scheduling.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
    for key, value in selector.items():
        if own.get(key, value) != value:
            raise refuse(
                request,
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                f"pod.spec.nodeSelector[{key}] = {own[key]}",
            )
    if selector:
        added["nodeSelector"] = {**own, **selector}
    tolerations, before = scheduling.get("tolerations") or [], spec.get("tolerations") or []
    new = [toleration for toleration in tolerations if toleration not in before]
    if new:
        added["tolerations"] = [*before, *new]
    return added
