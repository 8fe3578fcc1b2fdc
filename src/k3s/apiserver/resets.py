"""What each way of writing cannot change of an object: it is put back, and nobody comes to own it that way.

    paths(kind, subresource, config)    the prefixes of fields that are put back; none where anything may change
    keeps_metadata(kind)                whether a write of the status leaves the metadata as it is

Source: the reset fields of upstream's strategies (KEP-555, "Status wiping"), and what their status strategies put back.
"""

from __future__ import annotations

from k3s.api.kinds import Kind
from k3s.api.object import Object

Prefix = tuple[str, ...]
_SPEC, _STATUS, _METADATA = ("f:spec",), ("f:status",), ("f:metadata",)

#: Kinds of which a write of the status puts back all metadata that clients write.
_KEPT = frozenset(
    {
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
        ("apiregistration.k8s.io", "APIService"),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
        ("networking.k8s.io", "ServiceCIDR"),
        ("resource.k8s.io", "ResourceClaim"),
        ("storage.k8s.io", "VolumeAttachment"),
    }
)
# (group, kind) and subresource -> what differs from "the status, or all but the status".
_OWN: dict[tuple[str, str], dict[str, tuple[Prefix, ...]]] = {
    ("", "Pod"): {"status": (_SPEC, ("f:metadata", "f:deletionTimestamp"), ("f:metadata", "f:ownerReferences"))},
    ("apiextensions.k8s.io", "CustomResourceDefinition"): {"status": (_METADATA, _SPEC)},
    ("apps", "Deployment"): {"status": (_SPEC, ("f:metadata", "f:labels"))},
    ("certificates.k8s.io", "CertificateSigningRequest"): {
        "": (_SPEC, _STATUS),
        "approval": (_SPEC, ("f:status", "f:certificate")),
        "status": (_SPEC, ("f:status", "f:conditions")),
    },
}


def keeps_metadata(kind: Kind) -> bool:
    """Whether labels, annotations, owners and finalizers cannot be written together with the status."""
    return kind.custom or (kind.group, kind.kind) in _KEPT


def paths(kind: Kind, subresource: str, config: Object) -> tuple[Prefix, ...]:
    """Prefixes of the fields that this way of writing puts back, as managedFields spells them; `config` is what is
    written: a custom kind may have any fields beside its status."""
    if "status" not in kind.subresources:
        return ()
    own = _OWN.get((kind.group, kind.kind), {}).get(subresource)
    if own is not None:
        return own
    if not subresource:
        return (_STATUS,)
    if subresource != "status":
        return ()
    if kind.custom:
        return tuple(("f:" + name,) for name in config if name not in ("apiVersion", "kind", "status"))
    return (_METADATA, _SPEC) if keeps_metadata(kind) else (_SPEC,)
