"""Rules about pods that are off unless asked for, and the labels of a pod's place.

Source: "Admission Controllers" in the Kubernetes documentation, a section each; texts as upstream's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from k3s.api.errors import BadRequest
from k3s.api.kinds import builtin
from k3s.api.object import Object, decode
from k3s.api.qos import qos_class
from k3s.api.selectors import SelectorError, parse_labels
from k3s.api.taints import MEMORY_PRESSURE
from k3s.api.validation.resources import is_extended
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

NAMESPACE = builtin("v1", "Namespace")
NODE = builtin("v1", "Node")
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_HOSTNAME = "kubernetes.io/hostname"
_PLACES = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


class PodPlugin(Plugin):
    """A plugin that is about pods as a whole."""

    resources = frozenset({"pods"})

    def admit(self, request: AdmissionRequest) -> Object:
        pod = request.obj
        assert pod is not None
        return pod if request.subresource else self.shaped(request, pod)

    def shaped(self, request: AdmissionRequest, pod: Object) -> Object:
        """The pod as it shall be."""
        return pod

    def notes(self, reader: Reader, request: AdmissionRequest) -> Mapping[str, str]:
        """The annotations of the pod's namespace."""
        found = reader.get(NAMESPACE, "", request.namespace) or {}
        notes: Mapping[str, str] = found.get("metadata", {}).get("annotations") or {}
        return notes


class PodTopologyLabels(Plugin):
    """A pod that gets its node gets the labels of the node's zone and region, too."""

    name = "PodTopologyLabels"
    resources = frozenset({"pods"})
    admits = frozenset({UPDATE})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def admit(self, request: AdmissionRequest) -> Object:
        pod = request.obj
        assert pod is not None
        if request.subresource != "binding":
            return pod
        node = self._reader.get(NODE, "", pod["spec"].get("nodeName", "")) or {}
        of_node = node.get("metadata", {}).get("labels") or {}
        new = {label: of_node[label] for label in _PLACES if label in of_node}
        labels = pod["metadata"].get("labels") or {}
        if not new or new.items() <= labels.items():
            return pod
        return {**pod, "metadata": {**pod["metadata"], "labels": {**labels, **new}}}


class AlwaysPullImages(PodPlugin):
    """Every start of a container asks the registry, so that only who may pull an image can use it."""

    name = "AlwaysPullImages"
    resources = frozenset({"pods"})
    admits = frozenset({CREATE, UPDATE})
    validates = frozenset({CREATE, UPDATE})

    def shaped(self, request: AdmissionRequest, pod: Object) -> Object:
        if _has_no_new_images(request, pod):
            return pod
        spec = dict(pod["spec"])
        if any("image" in volume for volume in spec.get("volumes") or ()):
            spec["volumes"] = [
                {**v, "image": {**(v["image"] or {}), "pullPolicy": "Always"}} if "image" in v else v
                for v in spec["volumes"]
            ]
        for field in _CONTAINERS:
            if spec.get(field):
                spec[field] = [{**container, "imagePullPolicy": "Always"} for container in spec[field]]
        return {**pod, "spec": spec}

    def validate(self, request: AdmissionRequest) -> None:
        """Whoever changed the pod after this plugin left it so."""
        pod = request.obj
        if pod is None or request.subresource or _has_no_new_images(request, pod):
            return
        for field in _CONTAINERS:
            for i, container in enumerate(pod["spec"].get(field) or ()):
                policy = container.get("imagePullPolicy")
                if policy != "Always":
                    what = f'spec.{field}[{i}].imagePullPolicy: Unsupported value: "{policy or ""}"'
                    raise refuse(request, f'{what}: supported values: "Always"')


def _has_no_new_images(request: AdmissionRequest, pod: Object) -> bool:
    return request.operation == UPDATE and _images(request.old or {}) >= _images(pod)


def _images(pod: Object) -> set[str]:
    spec = pod.get("spec") or {}
    return {container.get("image", "") for field in _CONTAINERS for container in spec.get(field) or ()}


class PodNodeSelector(PodPlugin):
    """A namespace's annotation says on which nodes its pods run; the configuration says which selectors are allowed."""

    name = "PodNodeSelector"
    admits = frozenset({CREATE})
    validates = frozenset({CREATE})
    _NOTE = "scheduler.alpha.kubernetes.io/node-selector"

    def __init__(self, reader: Reader, allowed: Mapping[str, str]) -> None:
        self._reader = reader
        self._allowed = allowed

    def shaped(self, request: AdmissionRequest, pod: Object) -> Object:
        own = pod["spec"].get("nodeSelector") or {}
        merged = self._merged(request, own)
        self._check(request, merged)
        return {**pod, "spec": {**pod["spec"], "nodeSelector": merged}} if merged != own else pod

    def validate(self, request: AdmissionRequest) -> None:
        """Whoever changed the pod after this plugin kept to it, too."""
        if request.obj is not None and not request.subresource:
            own = request.obj["spec"].get("nodeSelector") or {}
            self._merged(request, own)
            self._check(request, own)

    def _merged(self, request: AdmissionRequest, own: Mapping[str, str]) -> dict[str, str]:
        notes = self.notes(self._reader, request)
        wanted = _pairs(notes.get(self._NOTE, self._allowed.get("clusterDefaultNodeSelector", "")))
        if any(own.get(key, value) != value for key, value in wanted.items()):
            raise refuse(request, "pod node label selector conflicts with its namespace node label selector")
        return {**own, **wanted}

    def _check(self, request: AdmissionRequest, selector: Mapping[str, str]) -> None:
        allowed = _pairs(self._allowed.get(request.namespace, ""))
        if allowed and not selector.items() <= allowed.items():
            raise refuse(request, "pod node label selector labels conflict with its namespace whitelist")


def _pairs(text: str) -> dict[str, str]:
    try:
        return parse_labels(text).required()
    except SelectorError as error:
        raise BadRequest(f"the node selector {text!r} cannot be read: {error}") from error


class PodTolerationRestriction(PodPlugin):
    """A namespace's annotations give its pods tolerations, and say which they may have."""

    name = "PodTolerationRestriction"
    admits = frozenset({CREATE})
    validates = frozenset({CREATE, UPDATE})
    _DEFAULTS = "scheduler.alpha.kubernetes.io/defaultTolerations"
    _ALLOWED = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"

    def __init__(self, reader: Reader, default: list[Object], allowed: list[Object]) -> None:
        self._reader = reader
        self._default, self._allowed = default, allowed

    def shaped(self, request: AdmissionRequest, pod: Object) -> Object:
        notes = self.notes(self._reader, request)
        own = pod["spec"].get("tolerations") or []
        given = _tolerations(notes, self._DEFAULTS, self._default)
        merged = [*given, *(t for t in own if not any(_covers(g, t) for g in given))]
        if qos_class(pod) != "BestEffort":
            pressure = {"key": MEMORY_PRESSURE, "operator": "Exists", "effect": "NoSchedule"}
            merged = merged if pressure in merged else [*merged, pressure]
        self._check(request, merged)
        return {**pod, "spec": {**pod["spec"], "tolerations": merged}} if merged != own else pod

    def validate(self, request: AdmissionRequest) -> None:
        """What others added after this plugin, or an update to a running pod, is allowed, too."""
        if request.obj is not None and not request.subresource:
            self._check(request, request.obj["spec"].get("tolerations") or [])

    def _check(self, request: AdmissionRequest, tolerations: list[Object]) -> None:
        allowed = _tolerations(self.notes(self._reader, request), self._ALLOWED, self._allowed)
        if allowed and not all(any(_covers(a, t) for a in allowed) for t in tolerations):
            why = "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace"
            raise refuse(request, f"{why} whitelist")


def _tolerations(notes: Mapping[str, str], note: str, otherwise: list[Object]) -> list[Object]:
    if note not in notes:
        return otherwise
    try:
        found = decode(notes[note]) if notes[note] else []
    except ValueError as error:
        raise BadRequest(f"the annotation {note} cannot be read: {error}") from error
    return found if isinstance(found, list) else []


def _covers(wide: Object, narrow: Object) -> bool:
    """Whether a toleration tolerates all that another one does."""
    if wide.get("key") and wide["key"] != narrow.get("key"):
        return False
    if wide.get("effect") and wide["effect"] != narrow.get("effect"):
        return False
    lasting, other = wide.get("tolerationSeconds"), narrow.get("tolerationSeconds")
    if lasting is not None and (other is None or other > lasting):
        return False
    if (wide.get("operator") or "Equal") == "Exists":
        return True
    return bool(narrow.get("operator", "Equal") == "Equal" and wide.get("value", "") == narrow.get("value", ""))


class LimitPodHardAntiAffinityTopology(PodPlugin):
    """A pod may insist on being alone on a node, but not in a whole zone."""

    name = "LimitPodHardAntiAffinityTopology"
    validates = frozenset({CREATE, UPDATE})

    def validate(self, request: AdmissionRequest) -> None:
        if request.subresource or request.obj is None:
            return
        rules = (request.obj["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
        for term in rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
            key = term.get("topologyKey", "")
            if key != _HOSTNAME:
                what = "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey"
                raise refuse(request, f"{what} {key} but only key {_HOSTNAME} is allowed")


class ExtendedResourceToleration(PodPlugin):
    """A pod that asks for a device tolerates the taint that nodes with such devices have."""

    name = "ExtendedResourceToleration"
    admits = frozenset({CREATE, UPDATE})

    def shaped(self, request: AdmissionRequest, pod: Object) -> Object:
        own = pod["spec"].get("tolerations") or []
        wanted: list[Any] = [{"key": name, "operator": "Exists"} for name in sorted(set(_devices(pod["spec"])))]
        new = [toleration for toleration in wanted if toleration not in own]
        return {**pod, "spec": {**pod["spec"], "tolerations": [*own, *new]}} if new else pod


def _devices(spec: Object) -> Iterable[str]:
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            requests = (container.get("resources") or {}).get("requests") or {}
            yield from (name for name in requests if is_extended(name))
