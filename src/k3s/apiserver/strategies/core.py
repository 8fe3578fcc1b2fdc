"""Specials of small kinds of the core group."""

from __future__ import annotations

from k3s.api import names, times
from k3s.api.object import Object
from k3s.apiserver.strategy import Cause, Context, Strategy

_KUBERNETES = "kubernetes"
_STANDARD = (_KUBERNETES, "orphan", "foregroundDeletion")
NAME_LABEL = "kubernetes.io/metadata.name"


class NamespaceStrategy(Strategy):
    """A namespace stays, Terminating, until its finalizers (in spec, too) are gone; its name is a label."""

    lingers = True

    def prepare_create(self, context: Context, obj: Object) -> Object:
        finalizers = list((obj.get("spec") or {}).get("finalizers") or [])
        if _KUBERNETES not in finalizers:
            finalizers.append(_KUBERNETES)
        obj = {**obj, "spec": {**(obj.get("spec") or {}), "finalizers": finalizers}, "status": {"phase": "Active"}}
        return _labelled(obj)

    def reset_update(self, context: Context, old: Object, new: Object) -> Object:
        if context.subresource == "finalize":
            return {**old, "metadata": {**new["metadata"], **_deletion(old)}, "spec": new.get("spec") or {}}
        new = super().reset_update(context, old, new)
        return {**new, "spec": old["spec"]} if "spec" in old else new

    def prepare_update(self, context: Context, old: Object, new: Object) -> Object:
        return _labelled(new)

    def marked(self, context: Context, obj: Object) -> Object:
        """A namespace has no grace period: it ends when it is empty."""
        meta, status = obj["metadata"], obj.get("status") or {}
        if "deletionGracePeriodSeconds" in meta:
            meta = {k: v for k, v in meta.items() if k != "deletionGracePeriodSeconds"}
            obj = {**obj, "metadata": meta}
        return obj if status.get("phase") == "Terminating" else {**obj, "status": {**status, "phase": "Terminating"}}

    def validate(self, context: Context, old: Object | None, new: Object) -> list[Cause]:
        if context.subresource != "finalize":
            return []
        causes = []
        for i, name in enumerate((new.get("spec") or {}).get("finalizers") or ()):
            at = f"spec.finalizers[{i}]"
            problems = names.qualified_name(name)
            if name not in _STANDARD and "/" not in name:
                problems = [*problems, "name is neither a standard finalizer name nor is it fully qualified"]
            for problem in problems:
                text = f'Invalid value: "{name}": {problem}'
                causes.append({"reason": "FieldValueInvalid", "message": text, "field": at})
        return causes

    def holds(self, obj: Object) -> bool:
        return bool((obj.get("spec") or {}).get("finalizers"))


def _deletion(old: Object) -> Object:
    meta = old["metadata"]
    return {k: meta[k] for k in ("deletionTimestamp", "deletionGracePeriodSeconds") if k in meta}


def _labelled(obj: Object) -> Object:
    meta = obj["metadata"]
    labels = meta.get("labels") or {}
    name = meta.get("name", "")
    if not name or labels.get(NAME_LABEL) == name:
        return obj
    return {**obj, "metadata": {**meta, "labels": {**labels, NAME_LABEL: name}}}


class NodeStrategy(Strategy):
    """A node registers with its status; what it can allocate is its capacity unless it says less."""

    keeps_status = True

    def prepare_create(self, context: Context, obj: Object) -> Object:
        return _allocatable(_networks(obj))

    def prepare_update(self, context: Context, old: Object, new: Object) -> Object:
        return _allocatable(_networks(new))


def _networks(node: Object) -> Object:
    spec = node.get("spec") or {}
    if spec.get("podCIDR") and not spec.get("podCIDRs"):
        return {**node, "spec": {**spec, "podCIDRs": [spec["podCIDR"]]}}
    return node


def _allocatable(node: Object) -> Object:
    status = node.get("status") or {}
    if status.get("capacity") and not status.get("allocatable"):
        return {**node, "status": {**status, "allocatable": status["capacity"]}}
    return node


class VolumeStrategy(Strategy):
    """A volume remembers when its phase changed."""

    def prepare_create(self, context: Context, obj: Object) -> Object:
        return {**obj, "status": {"phase": "Pending", "lastPhaseTransitionTime": times.format(context.now)}}

    def prepare_update(self, context: Context, old: Object, new: Object) -> Object:
        before, status = old.get("status") or {}, new.get("status") or {}
        if status.get("phase") == before.get("phase"):
            return new
        if status.get("lastPhaseTransitionTime") != before.get("lastPhaseTransitionTime"):
            return new
        return {**new, "status": {**status, "lastPhaseTransitionTime": times.format(context.now)}}


class ClaimStrategy(Strategy):
    """A claim begins pending; what it is filled from is said in two fields, of which the older takes only two kinds."""

    def prepare_create(self, context: Context, obj: Object) -> Object:
        return {**obj, "spec": _sources(obj.get("spec") or {}), "status": {"phase": "Pending"}}


# (apiGroup, kind) of what `dataSource` has always taken.
_SOURCES = (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))


def _sources(spec: Object) -> Object:
    """The spec of a claim whose `dataSource` and `dataSourceRef` say the same."""
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if reference is not None and reference.get("namespace"):
        # Sources in other namespaces are a feature that is off (CrossNamespaceVolumeDataSource).
        reference = None
        spec = {key: value for key, value in spec.items() if key != "dataSourceRef"}
    if source is not None and (source.get("apiGroup") or "", source.get("kind", "")) not in _SOURCES:
        source = None
        spec = {key: value for key, value in spec.items() if key != "dataSource"}
    if source is not None and reference is None:
        return {**spec, "dataSourceRef": source}
    if source is None and reference is not None:
        return {**spec, "dataSource": reference}
    return spec
