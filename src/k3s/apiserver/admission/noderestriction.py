"""NodeRestriction: what a kubelet may write into the objects that the node authorizer lets it touch.

Source: "NodeRestriction" on the admission controllers page and "Node labels" in the Kubernetes documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3s.api.errors import not_found
from k3s.api.kinds import builtin
from k3s.api.object import Object, get
from k3s.apiserver.admission.chain import CREATE, DELETE, UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Attributes, Authorizes
from k3s.apiserver.identity import NODE_PREFIX, NODES
from k3s.apiserver.nodeauthz import LEASES_NAMESPACE, MIRROR, VOLUME, references

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

POD = builtin("v1", "Pod")
NODE = builtin("v1", "Node")
CLAIM = builtin("v1", "PersistentVolumeClaim")
DRIVER = builtin("storage.k8s.io/v1", "CSIDriver")

# Labels under kubernetes.io and k8s.io that a kubelet may set on its own node.
_KUBELET_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    }
)
_KUBELET_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
# What kinds of volumes, and sources of projected ones, take of the API.
_VOLUMES = {
    "configMap": "configmaps (via configmap volumes)",
    "secret": "secrets (via secret volumes)",
    "csi": "csidrivers (via CSI volumes)",
    "glusterfs": "endpoints (via glusterFS volumes)",
    "persistentVolumeClaim": "persistentvolumeclaims",
    "ephemeral": "persistentvolumeclaims (via ephemeral volumes)",
    "azureFile": "secrets (via azureFile volumes)",
}
_PROJECTED = {
    "configMap": "configmaps (via projected volumes)",
    "secret": "secrets (via projected volumes)",
    "serviceAccountToken": "serviceaccounts (via projected volumes)",
    "clusterTrustBundle": "clustertrustbundles",
    "podCertificate": "podcertificates",
}
_KUBELET_SIGNERS = frozenset({"kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"})
_RESTRICTED_NAMESPACE = "node-restriction.kubernetes.io"


class NodeRestriction(Plugin):
    """The rules for users of the group system:nodes; others pass."""

    name = "NodeRestriction"
    resources = frozenset(
        {
            "pods",
            "nodes",
            "persistentvolumeclaims",
            "serviceaccounts",
            "leases.coordination.k8s.io",
            "csinodes.storage.k8s.io",
            "resourceslices.resource.k8s.io",
            "certificatesigningrequests.certificates.k8s.io",
        }
    )
    admits = frozenset({CREATE, UPDATE})
    validates = frozenset({DELETE})

    def __init__(self, reader: Reader, authorizer: Authorizes) -> None:
        self._reader = reader
        self._authorizer = authorizer

    def admit(self, request: AdmissionRequest) -> Object:
        self.validate(request)
        assert request.obj is not None
        return request.obj

    def validate(self, request: AdmissionRequest) -> None:
        user = request.user
        if NODES not in user.groups or not user.name.startswith(NODE_PREFIX):
            return
        node = user.name.removeprefix(NODE_PREFIX)
        if not node:
            raise refuse(request, f'could not determine node from user "{user.name}"')
        match request.kind.plural:
            case "pods":
                self._pod(request, node)
            case "nodes":
                _check_node(request, node)
            case "persistentvolumeclaims":
                _check_claim(request, node)
            case "serviceaccounts":
                self._token(request, node)
            case "leases":
                _check_lease(request, node)
            case "csinodes":
                _check_named(request, node, "can only access CSINode with the same name as the requesting node")
            case "resourceslices":
                _check_slice(request, node)
            case "certificatesigningrequests":
                _check_signing_request(request, node)

    def _pod(self, request: AdmissionRequest, node: str) -> None:
        match request.subresource, request.operation:
            case "", "CREATE":
                self._mirror_pod(request, node)
            case "", "DELETE":
                if get(self._live_pod(request), "spec", "nodeName") != node:
                    raise refuse(request, f'node "{node}" can only delete pods with spec.nodeName set to itself')
            case "", operation:
                why = f'unexpected operation "{operation}", node "{node}" can only create and delete mirror pods'
                raise refuse(request, why)
            case "status", "UPDATE":
                _check_pod_status(request, node)
            case "eviction", "CREATE":
                if get(self._live_pod(request), "spec", "nodeName") != node:
                    raise refuse(request, f"node {node} can only evict pods with spec.nodeName set to itself")
            case "status", operation:
                raise refuse(request, f'unexpected operation "{operation}"')
            case "eviction", operation:
                raise refuse(request, f"unexpected operation {operation}")
            case other, _:
                why = f"unexpected pod subresource \"{other}\", only 'status' and 'eviction' are allowed"
                raise refuse(request, why)

    def _live_pod(self, request: AdmissionRequest) -> Object:
        pod = request.old or self._reader.get(POD, request.namespace, request.name)
        if pod is None or pod.get("kind") not in ("Pod", None):
            pod = self._reader.get(POD, request.namespace, request.name)
        if pod is None:
            raise not_found("", "pods", request.name)
        return pod

    def _mirror_pod(self, request: AdmissionRequest, node: str) -> None:
        pod = request.obj or {}
        meta, spec = pod["metadata"], pod["spec"]
        if MIRROR not in (meta.get("annotations") or {}):
            why = f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
            raise refuse(request, why)
        if spec.get("nodeName") != node:
            raise refuse(request, f'node "{node}" can only create pods with spec.nodeName set to itself')
        self._check_owner(request, node, meta.get("ownerReferences") or [])
        resource = _needed(pod)
        if resource:
            raise refuse(request, f'node "{node}" can not create pods that reference {resource}')

    def _check_owner(self, request: AdmissionRequest, node: str, owners: list[Object]) -> None:
        if len(owners) > 1:
            why = f'node "{node}" can only create pods with a single owner reference set to itself'
            raise refuse(request, why)
        owner = owners[0] if owners else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            raise refuse(request, f'node "{node}" can only create pods with an owner reference set to itself')
        if not owner.get("controller"):
            why = f'node "{node}" can only create pods with a controller owner reference set to itself'
            raise refuse(request, why)
        if owner.get("blockOwnerDeletion"):
            raise refuse(request, f'node "{node}" must not set blockOwnerDeletion on an owner reference')
        live = self._reader.get(NODE, "", node)
        if live is None:
            raise not_found("", "nodes", node)
        if live["metadata"].get("uid") != owner.get("uid"):
            uids = f"expected {owner.get('uid', '')} got {live['metadata'].get('uid', '')}"
            raise refuse(request, f"node {node} UID mismatch: {uids}")

    def _token(self, request: AdmissionRequest, node: str) -> None:
        """A node gets tokens for its own pods only, and only for audiences that such a pod asks for."""
        if request.operation != CREATE or request.subresource != "token":
            return
        spec = (request.obj or {}).get("spec") or {}
        ref = spec.get("boundObjectRef") or {}
        if (ref.get("apiVersion"), ref.get("kind")) != ("v1", "Pod") or not ref.get("name"):
            raise refuse(request, "node requested token not bound to a pod")
        if not ref.get("uid"):
            raise refuse(request, "node requested token with a pod binding without a uid")
        pod = self._reader.get(POD, request.namespace, ref["name"])
        if pod is None:
            raise not_found("", "pod", ref["name"])
        if pod["metadata"].get("uid") != ref["uid"]:
            raise refuse(
                request,
                f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. "
                "The object might have been deleted and then recreated",
            )
        if get(pod, "spec", "nodeName") != node:
            raise refuse(request, "node requested token bound to a pod scheduled on a different node")
        self._check_audience(request, pod, spec.get("audiences") or [])

    def _check_audience(self, request: AdmissionRequest, pod: Object, audiences: list[str]) -> None:
        if len(audiences) > 1:
            raise refuse(request, "node may only request 0 or 1 audiences")
        audience = audiences[0] if audiences else ""
        if not audience or audience in self._audiences(pod):
            return
        verb = "request-serviceaccounts-token-audience"
        asked = Attributes(request.user, verb, "", "v1", audience, namespace=request.namespace, name=request.name)
        if not self._authorizer.authorize(asked).allowed:
            why = f"{request.user.name} is not authorized to request tokens for this audience"
            raise refuse(request, f'audience "{audience}" not found in pod spec volume, {why}')

    def _audiences(self, pod: Object) -> set[str]:
        """Those that the pod's volumes ask for, themselves or by the driver that mounts them."""
        found: set[str] = set()
        for volume in get(pod, "spec", "volumes") or ():
            for source in get(volume, "projected", "sources") or ():
                if source.get("serviceAccountToken"):
                    found.add(source["serviceAccountToken"].get("audience", ""))
            driver = get(volume, "csi", "driver") or self._driver_of_claim(pod, volume)
            requests = get(self._reader.get(DRIVER, "", driver), "spec", "tokenRequests") if driver else None
            found |= {asked.get("audience", "") for asked in requests or ()}
        return found

    def _driver_of_claim(self, pod: Object, volume: Object) -> str:
        meta, name = pod["metadata"], get(volume, "persistentVolumeClaim", "claimName", default="")
        if volume.get("ephemeral"):
            name = f"{meta['name']}-{volume.get('name', '')}"
        claim = self._reader.get(CLAIM, meta["namespace"], name) if name else None
        bound = get(claim, "spec", "volumeName", default="")
        return str(get(self._reader.get(VOLUME, "", bound), "spec", "csi", "driver", default="")) if bound else ""


def _needed(pod: Object) -> str:
    """The first resource that running a pod would take of the API, as upstream tells it; empty for none."""
    spec = pod["spec"]
    if spec.get("serviceAccountName"):
        return "serviceaccounts"
    plain = {**pod, "metadata": {**pod["metadata"], "annotations": {}}}
    named = {resource for resource, name in references(plain) if name}
    found: list[str] = [resource for resource in ("secrets", "configmaps") if resource in named]
    found += ["resourceclaims"] if spec.get("resourceClaims") else []
    for volume in spec.get("volumes") or ():
        found += [text for kind, text in _VOLUMES.items() if volume.get(kind) is not None]
        for source in get(volume, "projected", "sources") or ():
            found += [text for kind, text in _PROJECTED.items() if source.get(kind) is not None]
    return found[0] if found else ""


def _check_pod_status(request: AdmissionRequest, node: str) -> None:
    old, new = request.old or {}, request.obj or {}
    if get(old, "spec", "nodeName") != node:
        raise refuse(request, f'node "{node}" can only update pod status for pods with spec.nodeName set to itself')
    if (old["metadata"].get("labels") or {}) != (new["metadata"].get("labels") or {}):
        raise refuse(request, f'node "{node}" cannot update labels through pod status')
    if _claims(old) != _claims(new):
        raise refuse(request, f'node "{node}" cannot update resource claim statues')  # upstream's spelling
    extended = "extendedResourceClaimStatus"
    if get(old, "status", extended) != get(new, "status", extended):
        raise refuse(request, f'node "{node}" cannot update extended resource claim status')


def _claims(pod: Object) -> list[tuple[str, str | None]]:
    statuses = get(pod, "status", "resourceClaimStatuses") or ()
    return [(status.get("name", ""), status.get("resourceClaimName")) for status in statuses]


def _check_claim(request: AdmissionRequest, node: str) -> None:
    if request.subresource != "status":
        raise refuse(request, "may only update PVC status")
    if request.operation != UPDATE:
        raise refuse(request, f'unexpected operation "{request.operation}"')
    free = ("capacity", "conditions", "allocatedResources", "allocatedResourceStatuses")

    def fixed(claim: Object) -> Object:
        meta = {k: v for k, v in claim["metadata"].items() if k not in ("resourceVersion", "managedFields")}
        status = {k: v for k, v in (claim.get("status") or {}).items() if k not in free}
        return {**claim, "metadata": meta, "status": status}

    if request.old is not None and request.obj is not None and fixed(request.old) != fixed(request.obj):
        why = f'node "{node}" is not allowed to update fields other than status.quantity and status.conditions'
        raise refuse(request, why)


def _check_lease(request: AdmissionRequest, node: str) -> None:
    if request.namespace != LEASES_NAMESPACE:
        raise refuse(request, f'can only access leases in the "{LEASES_NAMESPACE}" system namespace')
    _check_named(request, node, "can only access node lease with the same name as the requesting node")


def _check_named(request: AdmissionRequest, node: str, why: str) -> None:
    name = request.name or str(get(request.obj, "metadata", "name", default=""))
    if name != node:
        raise refuse(request, why)


def _check_slice(request: AdmissionRequest, node: str) -> None:
    if request.operation == CREATE and get(request.obj, "spec", "nodeName") != node:
        raise refuse(request, "can only create ResourceSlice with the same NodeName as the requesting node")
    if request.operation == DELETE and get(request.old, "spec", "nodeName") != node:
        raise refuse(request, "can only delete ResourceSlice with the same NodeName as the requesting node")


def _check_signing_request(request: AdmissionRequest, node: str) -> None:
    """A kubelet may ask for certificates, to serve with and to be known by, only in its own name."""
    spec = (request.obj or {}).get("spec") or {}
    if request.operation != CREATE or request.subresource or spec.get("signerName") not in _KUBELET_SIGNERS:
        return
    from k3s.apiserver.admission.certificates import subject_of

    if subject_of(spec.get("request", ""))[0] != f"{NODE_PREFIX}{node}":
        raise refuse(request, f"can only create a node CSR with CN={NODE_PREFIX}{node}")


def _check_node(request: AdmissionRequest, node: str) -> None:
    old, new = request.old or {}, request.obj or {}
    name = request.name or str(get(new, "metadata", "name", default=""))
    if name != node:
        raise refuse(request, f'node "{node}" is not allowed to modify node "{name}"')
    if request.operation == CREATE:
        if get(new, "spec", "configSource"):
            raise refuse(request, f'node "{node}" is not allowed to create pods with a non-nil configSource')
        forbidden = sorted(forbidden_labels(get(new, "metadata", "labels") or {}))
        if forbidden:
            why = f'node "{node}" is not allowed to set the following labels: {", ".join(forbidden)}'
            raise refuse(request, why)
    if request.operation != UPDATE:
        return
    if get(new, "spec", "configSource") and get(new, "spec", "configSource") != get(old, "spec", "configSource"):
        raise refuse(request, f'node "{node}" is not allowed to update configSource to a new non-nil configSource')
    if (get(new, "spec", "taints") or []) != (get(old, "spec", "taints") or []):
        raise refuse(request, f'node "{node}" is not allowed to modify taints')
    if (get(new, "metadata", "ownerReferences") or []) != (get(old, "metadata", "ownerReferences") or []):
        raise refuse(request, f'node "{node}" is not allowed to modify ownerReferences')
    before, after = get(old, "metadata", "labels") or {}, get(new, "metadata", "labels") or {}
    modified = {label for label in {*before, *after} if before.get(label) != after.get(label)}
    forbidden = sorted(forbidden_labels(modified))
    if forbidden:
        raise refuse(request, f"is not allowed to modify labels: {', '.join(forbidden)}")


def forbidden_labels(labels: dict[str, str] | set[str]) -> set[str]:
    """Those of `labels` that a kubelet may not set on its node: reserved ones that are not in its allow-list."""
    return {label for label in labels if _is_forbidden(label)}


def _is_forbidden(label: str) -> bool:
    space = label.partition("/")[0] if "/" in label else ""
    if _is_under(space, _RESTRICTED_NAMESPACE):
        return True
    reserved = _is_under(space, "kubernetes.io") or _is_under(space, "k8s.io")
    return reserved and label not in _KUBELET_LABELS and not any(_is_under(space, s) for s in _KUBELET_NAMESPACES)


def _is_under(space: str, domain: str) -> bool:
    return space == domain or space.endswith("." + domain)
