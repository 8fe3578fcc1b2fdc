"""Defaults and marks of cluster objects: storage and ingress classes, protection of volumes in use, new nodes.

Source: "Admission Controllers", "Storage Classes" and "Ingress" in the Kubernetes documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3s.api import quantity
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

STORAGE_CLASS = builtin("storage.k8s.io/v1", "StorageClass")
INGRESS_CLASS = builtin("networking.k8s.io/v1", "IngressClass")
_NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_STORAGE_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
_INGRESS_DEFAULT = ("ingressclass.kubernetes.io/is-default-class",)


def default_class(reader: Reader, kind: Kind, marks: tuple[str, ...]) -> str:
    """The name of the class marked as default: of several the newest, then the first by name; empty without one."""
    marked = [
        found["metadata"]
        for found in reader.list(kind)
        if any((found["metadata"].get("annotations") or {}).get(mark) == "true" for mark in marks)
    ]
    marked.sort(key=lambda meta: str(meta["name"]))
    marked.sort(key=lambda meta: str(meta.get("creationTimestamp", "")), reverse=True)
    return str(marked[0]["name"]) if marked else ""


class DefaultStorageClass(Plugin):
    """Gives a claim without a class the default one."""

    name = "DefaultStorageClass"
    resources = frozenset({"persistentvolumeclaims"})
    admits = frozenset({CREATE})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def admit(self, request: AdmissionRequest) -> Object:
        claim = request.obj
        assert claim is not None
        asked = "volume.beta.kubernetes.io/storage-class" in (claim["metadata"].get("annotations") or {})
        if request.subresource or asked or claim["spec"].get("storageClassName") is not None:
            return claim
        name = default_class(self._reader, STORAGE_CLASS, _STORAGE_DEFAULT)
        return {**claim, "spec": {**claim["spec"], "storageClassName": name}} if name else claim


class DefaultIngressClass(Plugin):
    """Gives an ingress without a class the default one."""

    name = "DefaultIngressClass"
    resources = frozenset({"ingresses.networking.k8s.io"})
    admits = frozenset({CREATE})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def admit(self, request: AdmissionRequest) -> Object:
        ingress = request.obj
        assert ingress is not None
        asked = "kubernetes.io/ingress.class" in (ingress["metadata"].get("annotations") or {})
        spec = ingress.get("spec") or {}
        if request.subresource or asked or spec.get("ingressClassName") is not None:
            return ingress
        name = default_class(self._reader, INGRESS_CLASS, _INGRESS_DEFAULT)
        return {**ingress, "spec": {**spec, "ingressClassName": name}} if name else ingress


_PROTECTION = {
    "persistentvolumeclaims": "kubernetes.io/pvc-protection",
    "persistentvolumes": "kubernetes.io/pv-protection",
    "volumeattributesclasses": "kubernetes.io/vac-protection",
}


class StorageObjectInUseProtection(Plugin):
    """Marks volumes and claims so that they stay until nobody uses them."""

    name = "StorageObjectInUseProtection"
    resources = frozenset({"persistentvolumeclaims", "persistentvolumes", "volumeattributesclasses.storage.k8s.io"})
    admits = frozenset({CREATE})

    def admit(self, request: AdmissionRequest) -> Object:
        obj = request.obj
        assert obj is not None
        finalizer = _PROTECTION[request.kind.plural]
        own = obj["metadata"].get("finalizers") or []
        if request.subresource or finalizer in own:
            return obj
        return {**obj, "metadata": {**obj["metadata"], "finalizers": [*own, finalizer]}}


class PersistentVolumeClaimResize(Plugin):
    """Lets a claim grow only when it is bound and its class allows it."""

    name = "PersistentVolumeClaimResize"
    resources = frozenset({"persistentvolumeclaims"})
    validates = frozenset({UPDATE})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def validate(self, request: AdmissionRequest) -> None:
        if request.subresource or request.obj is None or request.old is None:
            return
        new, old = _storage(request.obj), _storage(request.old)
        if new == old or not new or not old:
            return
        if quantity.compare(new, old) <= 0:
            return
        if (request.old.get("status") or {}).get("phase") != "Bound":
            raise refuse(request, "Only bound persistent volume claims can be expanded")
        name = request.obj["spec"].get("storageClassName")
        found = self._reader.get(STORAGE_CLASS, "", name) if name else None
        if found is None or not found.get("allowVolumeExpansion"):
            raise refuse(
                request,
                "only dynamically provisioned pvc can be resized and "
                "the storageclass that provisions the pvc must support resize",
            )


def _storage(claim: Object) -> str:
    return str(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", ""))


class TaintNodesByCondition(Plugin):
    """A new node takes no pods until it was seen ready."""

    name = "TaintNodesByCondition"
    resources = frozenset({"nodes"})
    admits = frozenset({CREATE})

    def admit(self, request: AdmissionRequest) -> Object:
        node = request.obj
        assert node is not None
        spec = node.get("spec") or {}
        taints = spec.get("taints") or []
        if request.subresource or any(_same_taint(taint, _NOT_READY) for taint in taints):
            return node
        return {**node, "spec": {**spec, "taints": [*taints, _NOT_READY]}}


def _same_taint(taint: Object, other: Object) -> bool:
    return (taint.get("key"), taint.get("effect")) == (other["key"], other["effect"])
