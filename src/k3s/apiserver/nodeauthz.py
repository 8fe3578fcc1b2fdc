"""What a kubelet may do: its own node, lease and CSI node, and what the pods bound to it refer to.

Source: the "Using Node Authorization" page of the Kubernetes documentation. What a node may *write* into what it may
touch is restricted further by the NodeRestriction admission plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from k3s.api import rbac
from k3s.api.kinds import builtin
from k3s.api.object import Object, get
from k3s.api.references import of_pod
from k3s.apiserver.authz import Attributes, Decision
from k3s.apiserver.identity import node_of

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

POD = builtin("v1", "Pod")
VOLUME = builtin("v1", "PersistentVolume")
ATTACHMENT = builtin("storage.k8s.io/v1", "VolumeAttachment")
SLICE = builtin("resource.k8s.io/v1", "ResourceSlice")
MIRROR = "kubernetes.io/config.mirror"
LEASES_NAMESPACE = "kube-node-lease"

_WITNESSES_LIMIT = 16384
_SLICE_VERBS = "get, watch, list, create, update, patch, delete, deletecollection"
_OWN_VERBS = ("get", "create", "update", "patch", "delete")

Rule = Callable[["NodeAuthorizer", str, Attributes], Decision]


class NodeAuthorizer:
    """Answers for users `system:node:<name>` in group system:nodes; says nothing about others.

    `rules` are those of the cluster role system:node, for resources that are not divided further.
    """

    def __init__(self, reader: Reader, rules: list[Object]) -> None:
        self._reader = reader
        self._rules = rules
        # The pod that proved a relation the last time: references of a bound pod hardly ever change.
        self._witnesses: dict[tuple[str, str, str, str], tuple[str, str]] = {}

    def authorize(self, asked: Attributes) -> Decision:
        """Whether the node may; never a final refusal: other authorizers are asked too."""
        node = node_of(asked.user)
        if not node:
            return Decision(False)
        if asked.is_resource:
            rule = _DIVIDED.get((asked.group, asked.resource))
            if rule is not None:
                return rule(self, node, asked)
            resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
            for allowed in self._rules:
                if rbac.allows_resource(allowed, asked.verb, asked.group, resource, asked.name):
                    return Decision(True)
            return Decision(False)
        return Decision(any(rbac.allows_path(allowed, asked.verb, asked.path) for allowed in self._rules))

    # Objects that pods refer to

    def _read(self, node: str, asked: Attributes) -> Decision:
        if asked.verb not in ("get", "list", "watch"):
            return Decision(False, "can only read resources of this type")
        if asked.subresource:
            return Decision(False, "cannot read subresource")
        if not asked.namespace:
            return Decision(False, "can only read namespaced object of this type")
        return self._related(node, asked)

    def _get(self, node: str, asked: Attributes) -> Decision:
        if asked.verb != "get":
            return Decision(False, "can only get individual resources of this type")
        if asked.subresource:
            return Decision(False, "cannot get subresource")
        return self._related(node, asked)

    def _claim(self, node: str, asked: Attributes) -> Decision:
        if asked.subresource != "status":
            return self._get(node, asked)
        if asked.verb not in ("update", "patch"):
            return Decision(False, "can only get/update/patch this type")
        return self._related(node, asked)

    def _service_account(self, node: str, asked: Attributes) -> Decision:
        if asked.verb == "get" and not asked.subresource:
            return self._related(node, asked)
        if asked.verb != "create" or not asked.name:
            return Decision(False, "can only create tokens for individual service accounts")
        if asked.subresource != "token":
            return Decision(False, "can only create token subresource of serviceaccount")
        return self._related(node, asked)

    def _related(self, node: str, asked: Attributes) -> Decision:
        if not asked.name:
            return Decision(False, "No Object name found")
        if self._is_related(node, asked.resource, asked.namespace, asked.name):
            return Decision(True)
        return Decision(False, f"no relationship found between node '{node}' and this object")

    def _is_related(self, node: str, resource: str, namespace: str, name: str) -> bool:
        if resource == "pods":
            pod = self._reader.get(POD, namespace, name)
            return pod is not None and _is_on(pod, node)
        if resource == "resourceslices":
            slice_ = self._reader.get(SLICE, "", name)
            return slice_ is not None and get(slice_, "spec", "nodeName") == node
        if resource == "volumeattachments":
            attachment = self._reader.get(ATTACHMENT, "", name)
            return attachment is not None and get(attachment, "spec", "nodeName") == node
        if resource == "persistentvolumes":
            volume = self._reader.get(VOLUME, "", name)
            claim = get(volume, "spec", "claimRef") or {}
            return bool(claim) and self._is_used(
                node, "persistentvolumeclaims", claim.get("namespace", ""), claim.get("name", "")
            )
        if self._is_used(node, resource, namespace, name):
            return True
        return resource == "secrets" and self._is_secret_of_volume(node, namespace, name)

    def _is_used(self, node: str, resource: str, namespace: str, name: str) -> bool:
        key = (node, resource, namespace, name)
        witness = self._witnesses.get(key)
        if witness is not None:
            pod = self._reader.get(POD, namespace, witness[0])
            if pod is not None and pod["metadata"].get("uid") == witness[1] and _is_on(pod, node):
                return True
            del self._witnesses[key]
        for pod in self._reader.list(POD, namespace):
            if _is_on(pod, node) and (resource, name) in references(pod):
                if len(self._witnesses) >= _WITNESSES_LIMIT:
                    self._witnesses.clear()
                self._witnesses[key] = (pod["metadata"]["name"], pod["metadata"].get("uid", ""))
                return True
        return False

    def _is_secret_of_volume(self, node: str, namespace: str, name: str) -> bool:
        for volume in self._reader.list(VOLUME):
            claim = get(volume, "spec", "claimRef") or {}
            if not claim or (namespace, name) not in _volume_secrets(volume, claim.get("namespace", "")):
                continue
            if self._is_used(node, "persistentvolumeclaims", claim.get("namespace", ""), claim.get("name", "")):
                return True
        return False

    # The node's own objects

    def _lease(self, node: str, asked: Attributes) -> Decision:
        if asked.verb not in _OWN_VERBS:
            return Decision(False, "can only get, create, update, patch, or delete a node lease")
        if asked.namespace != LEASES_NAMESPACE:
            return Decision(False, f'can only access leases in the "{LEASES_NAMESPACE}" system namespace')
        if asked.verb != "create" and asked.name != node:
            return Decision(False, "can only access node lease with the same name as the requesting node")
        return Decision(True)

    def _csi_node(self, node: str, asked: Attributes) -> Decision:
        if asked.verb not in _OWN_VERBS:
            return Decision(False, "can only get, create, update, patch, or delete a CSINode")
        if asked.subresource:
            return Decision(False, "cannot authorize CSINode subresources")
        if asked.verb != "create" and asked.name != node:
            return Decision(False, "can only access CSINode with the same name as the requesting node")
        return Decision(True)

    def _node(self, node: str, asked: Attributes) -> Decision:
        if asked.subresource == "status":
            return Decision(asked.verb in ("update", "patch"))
        if asked.subresource:
            return Decision(False)
        if asked.verb in ("create", "update", "patch"):
            return Decision(True)
        if asked.verb not in ("get", "list", "watch"):
            return Decision(False)
        if asked.name == node:
            return Decision(True)
        if not asked.name:
            return Decision(False, f"node '{node}' cannot read all nodes, only its own Node object")
        return Decision(False, f"node '{node}' cannot read '{asked.name}', only its own Node object")

    def _pod(self, node: str, asked: Attributes) -> Decision:
        if asked.subresource == "status":
            return Decision(asked.verb in ("update", "patch"))
        if asked.subresource == "eviction":
            return Decision(asked.verb == "create")
        if asked.subresource:
            return Decision(False)
        if asked.verb in ("create", "delete"):
            return Decision(True)
        if asked.verb == "get":
            return self._related(node, asked)
        if asked.verb in ("list", "watch"):
            if _selects(asked.fields, "spec.nodeName", node):
                return Decision(True)
            if asked.name:
                return self._related(node, asked)
            return Decision(False, "can only list/watch pods with spec.nodeName field selector")
        return Decision(False)

    def _slice(self, node: str, asked: Attributes) -> Decision:
        if asked.subresource:
            return Decision(False, "cannot authorize ResourceSlice subresources")
        if asked.verb == "create":
            return Decision(True)
        if asked.verb in ("list", "watch", "deletecollection"):
            if _selects(asked.fields, "spec.nodeName", node):
                return Decision(True)
            return Decision(False, "can only list/watch/deletecollection resourceslices with nodeName field selector")
        if asked.verb in ("get", "update", "patch", "delete"):
            return self._related(node, asked)
        return Decision(False, f"only the following verbs are allowed for a ResourceSlice: {_SLICE_VERBS}")


_DIVIDED: dict[tuple[str, str], Rule] = {
    ("", "secrets"): NodeAuthorizer._read,
    ("", "configmaps"): NodeAuthorizer._read,
    ("", "persistentvolumeclaims"): NodeAuthorizer._claim,
    ("", "persistentvolumes"): NodeAuthorizer._get,
    ("resource.k8s.io", "resourceclaims"): NodeAuthorizer._get,
    ("storage.k8s.io", "volumeattachments"): NodeAuthorizer._get,
    ("", "serviceaccounts"): NodeAuthorizer._service_account,
    ("coordination.k8s.io", "leases"): NodeAuthorizer._lease,
    ("storage.k8s.io", "csinodes"): NodeAuthorizer._csi_node,
    ("resource.k8s.io", "resourceslices"): NodeAuthorizer._slice,
    ("", "nodes"): NodeAuthorizer._node,
    ("", "pods"): NodeAuthorizer._pod,
}


def references(pod: Object) -> set[tuple[str, str]]:
    """(resource, name) of everything in the pod's namespace that its node needs; empty for a mirror pod.

    A node makes mirror pods itself, so they must never open anything to it.
    """
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        return set()
    return of_pod(pod)


def _volume_secrets(volume: Object, claim_namespace: str) -> Iterator[tuple[str, str]]:
    """Namespace and name of the secrets that mounting a persistent volume on a node takes; not those of controllers."""
    spec = volume.get("spec") or {}
    for field in ("nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"):
        if ref := get(spec, "csi", field):
            yield ref.get("namespace", ""), ref.get("name", "")
    for source in ("cinder", "storageos"):
        if ref := get(spec, source, "secretRef"):
            yield ref.get("namespace", ""), ref.get("name", "")
    for source in ("cephfs", "flexVolume", "rbd", "scaleIO", "iscsi"):
        if ref := get(spec, source, "secretRef"):
            yield ref.get("namespace") or claim_namespace, ref.get("name", "")
    if azure := spec.get("azureFile"):
        yield azure.get("secretNamespace") or claim_namespace, azure.get("secretName", "")


def _is_on(pod: Object, node: str) -> bool:
    return bool((pod.get("spec") or {}).get("nodeName") == node)


def _selects(fields: str, field: str, value: str) -> bool:
    """Whether a field selector demands exactly this value, whatever else it demands."""
    for requirement in fields.split(","):
        name, equals, wanted = requirement.partition("=")
        if equals and name == field and wanted.removeprefix("=") == value:
            return True
    return False
