"""What differs from kind to kind in the life of an object: pure hooks of the one write path (law 1).

A kind without a row in `strategies` has the base strategy, which follows from the table of kinds: a kind with a status
subresource has its status written there only, and counts generations of its spec where upstream does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.apiserver import resets
from k3s.apiserver.identity import User

Cause = dict[str, str]
# Groups of which every kind counts generations, and single kinds that do.
_COUNTED_GROUPS = frozenset({"apps", "batch", "admissionregistration.k8s.io", "flowcontrol.apiserver.k8s.io", "policy"})
_COUNTED = frozenset(
    {
        ("", "Pod"),
        ("", "PodTemplate"),
        ("", "ReplicationController"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("networking.k8s.io", "Ingress"),
        ("networking.k8s.io", "IngressClass"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("resource.k8s.io", "ResourceSlice"),
        ("scheduling.k8s.io", "PriorityClass"),
    }
)
# Parts of an object whose change makes no new generation.
_UNCOUNTED = frozenset({"metadata", "status", "kind", "apiVersion"})
# Kinds that a PUT to a free name creates.
_CREATE_ON_UPDATE = frozenset(
    {
        ("", "LimitRange"),
        ("", "Event"),
        ("", "Endpoints"),
        ("", "Service"),
        ("events.k8s.io", "Event"),
        ("coordination.k8s.io", "Lease"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("rbac.authorization.k8s.io", "Role"),
        ("rbac.authorization.k8s.io", "RoleBinding"),
    }
)
# Kinds whose PUT has to name a resourceVersion.
_CONDITIONAL_UPDATE = frozenset(
    {
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("apiregistration.k8s.io", "APIService"),
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    }
)
# Kinds whose DELETE leaves dependents alone unless it says otherwise (an old promise to old clients).
_ORPHANS = frozenset({("", "ReplicationController"), ("batch", "Job")})
# Kinds of which no finalizer of the garbage collector holds anything.
_UNCOLLECTED = frozenset({("", "Event"), ("events.k8s.io", "Event")})
# Kinds whose DELETE answers with the object that is gone, where others answer with a Status.
_RETURNS_DELETED = frozenset(
    {
        ("", "PersistentVolume"),
        ("", "PersistentVolumeClaim"),
        ("", "Pod"),
        ("", "PodTemplate"),
        ("", "ResourceQuota"),
        ("", "Service"),
        ("", "ServiceAccount"),
        ("resource.k8s.io", "DeviceClass"),
        ("resource.k8s.io", "ResourceClaim"),
        ("resource.k8s.io", "ResourceClaimTemplate"),
        ("resource.k8s.io", "ResourceSlice"),
        ("storage.k8s.io", "CSIDriver"),
        ("storage.k8s.io", "CSINode"),
        ("storage.k8s.io", "StorageClass"),
        ("storage.k8s.io", "VolumeAttachment"),
        ("storage.k8s.io", "VolumeAttributesClass"),
    }
)


# Kinds whose status can be written with the object, too.
_STATUS_BESIDE = frozenset({("networking.k8s.io", "ServiceCIDR")})
# What of the metadata a write of the status leaves alone; of other kinds it may change all of it.
_KEPT_WITH_STATUS = {("", "Pod"): "ownerReferences", ("apps", "Deployment"): "labels"}


class Excerpt(NamedTuple):
    """What a path shows of an object instead of the object, as its Scale."""

    of: Callable[[Object], Object]
    #: The object with a changed excerpt.
    put: Callable[[Object, Object], Object]


@dataclass(slots=True)
class Context:
    """One write: who does what to what, at `now` (seconds since the epoch). `warnings` go into the answer's headers."""

    kind: Kind
    namespace: str
    name: str
    user: User
    now: float
    verb: str = "create"
    subresource: str = ""
    dry_run: bool = False
    #: Who changes fields, for metadata.managedFields; empty: nobody keeps a record.
    field_manager: str = ""
    field_validation: str = "Warn"
    force: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    #: What the audit log shall say of it.
    notes: dict[str, str] = field(default_factory=dict)
    #: What has to be done once the write took effect or failed.
    cleanups: list[Callable[[], None]] = field(default_factory=list)
    #: The write is an apply: managedFields are the caller's work.
    applied: bool = False
    #: What is written is large: what can be is computed beside the event loop.
    heavy: bool = False
    #: What admission sees instead of the object.
    excerpt: Excerpt | None = None


class Strategy:
    """The base: what holds for a kind without specials. Hooks answer new objects and never change the given ones."""

    #: Status survives a create (nodes register with one).
    keeps_status = False
    #: The first DELETE only marks the object, even when nothing holds it.
    lingers = False

    def __init__(self, kind: Kind) -> None:
        row = (kind.group, kind.kind)
        self.kind = kind
        self.has_status = "status" in kind.subresources and row not in _STATUS_BESIDE
        self.counts = (
            row in _COUNTED or (kind.group in _COUNTED_GROUPS and kind.kind != "ControllerRevision") or kind.custom
        )
        self.create_on_update = row in _CREATE_ON_UPDATE
        self.conditional_update = row in _CONDITIONAL_UPDATE or kind.custom
        self.orphans = row in _ORPHANS
        self.collected = row not in _UNCOLLECTED
        self.returns_deleted = row in _RETURNS_DELETED
        self.status_keeps_metadata = resets.keeps_metadata(kind)

    def reset_create(self, obj: Object) -> Object:
        """Takes away what a creator cannot set, before defaults are filled in."""
        if self.has_status and not self.keeps_status and "status" in obj:
            return {k: v for k, v in obj.items() if k != "status"}
        return obj

    def prepare_create(self, context: Context, obj: Object) -> Object:
        """Sets what the server decides about a new object, after admission."""
        return obj

    def reset_update(self, context: Context, old: Object, new: Object) -> Object:
        """Puts back what this path of update does not change: the status, or all but the status."""
        if context.subresource == "status":
            merged = {**old, "metadata": self.status_metadata(old, new)}
            if "status" in new:
                return {**merged, "status": new["status"]}
            return {k: v for k, v in merged.items() if k != "status"}
        if self.has_status and not context.subresource:
            if "status" in old:
                return {**new, "status": old["status"]}
            if "status" in new:
                return {k: v for k, v in new.items() if k != "status"}
        return new

    def status_metadata(self, old: Object, new: Object) -> Object:
        """The metadata that an update of the status leads to."""
        if self.status_keeps_metadata:
            return kept_metadata(old, new)
        meta: Object = new["metadata"]
        field = _KEPT_WITH_STATUS.get((self.kind.group, self.kind.kind))
        if field is None or old["metadata"].get(field) == meta.get(field):
            return meta
        meta = {key: value for key, value in meta.items() if key != field}
        return {**meta, field: old["metadata"][field]} if field in old["metadata"] else meta

    def prepare_update(self, context: Context, old: Object, new: Object) -> Object:
        """Sets what the server decides about a changed object, after admission."""
        return new

    def validate(self, context: Context, old: Object | None, new: Object) -> list[Cause]:
        """Causes to refuse a write (old: None for a create), beyond what the schema and the kind's validation say."""
        return []

    def changed_spec(self, context: Context, old: Object, new: Object) -> bool:
        """Whether a write makes a new generation."""
        if old.get("spec") != new.get("spec"):
            return True
        if not self.has_status and old.get("status") != new.get("status"):
            return True
        return any(old.get(k) != new.get(k) for k in {*old, *new} if k not in _UNCOUNTED)

    def grace(self, context: Context, obj: Object, asked: int | None) -> int | None:
        """Seconds that an object gets to end; None for kinds that have no such time."""
        return None

    def marked(self, context: Context, obj: Object) -> Object:
        """The object as it looks once its deletion has begun."""
        return obj

    def holds(self, obj: Object) -> bool:
        """Whether something besides metadata.finalizers keeps a deleted object."""
        return False

    def advise_delete(self, propagation: str, orphan: bool | None) -> list[str]:
        """Warnings for a DELETE with these options."""
        return []

    def check_delete(self, context: Context, obj: Object) -> None:
        """Raises when an object must not be deleted."""


def kept_metadata(old: Object, new: Object) -> Object:
    """The old metadata, with the revision that the client named and the record of owners, which is made before."""
    meta = new["metadata"]
    kept = {key: meta[key] for key in ("resourceVersion", "managedFields") if meta.get(key)}
    return {**old["metadata"], **kept} if kept else old["metadata"]
