"""Specials of small kinds of the core group."""

from __future__ import annotations

from k3s.api.object import Object
from k3s.apiserver.strategy import Context, Strategy

_KUBERNETES = "kubernetes"
NAME_LABEL = "kubernetes.io/metadata.name"


class NamespaceStrategy(Strategy):
    """A namespace stays, Terminating, until its finalizers (in spec, too) are gone; its name is a label."""

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
        status = obj.get("status") or {}
        if status.get("phase") == "Terminating":
            return obj
        return {**obj, "status": {**status, "phase": "Terminating"}}

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
    """A node registers with its status."""

    keeps_status = True
