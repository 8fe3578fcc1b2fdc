"""What a compromised node may not write."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.apiserver.admission_world import NODE, World, obj, pod, refusal

from k3s.api.errors import NotFound
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.admission.noderestriction import forbidden_labels

MIRROR_META = {
    "annotations": {"kubernetes.io/config.mirror": "h"},
    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "nu", "controller": True}],
}
LIVE_NODE = obj("v1", "Node", "n1", metadata={"uid": "nu", "labels": {"kubernetes.io/hostname": "n1"}}, spec={})


def mirror(spec: Object | None = None, **changes: Any) -> Object:
    return pod({"nodeName": "n1", **(spec or {})}, **{**MIRROR_META, **changes})


OWNER = MIRROR_META["ownerReferences"][0]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (pod({"nodeName": "n1"}), "can only create mirror pods"),
        (mirror({"nodeName": "n2"}), "with spec.nodeName set to itself"),
        (mirror(ownerReferences=[]), "with an owner reference set to itself"),
        (mirror(ownerReferences=[OWNER, OWNER]), "with a single owner reference"),
        (mirror(ownerReferences=[{**OWNER, "name": "n2"}]), "with an owner reference set to itself"),
        (mirror(ownerReferences=[{**OWNER, "controller": False}]), "with a controller owner reference"),
        (mirror(ownerReferences=[{**OWNER, "blockOwnerDeletion": True}]), "must not set blockOwnerDeletion"),
        (mirror(ownerReferences=[{**OWNER, "uid": "x"}]), "UID mismatch"),
        (mirror({"serviceAccountName": "s"}), "may not reference service accounts"),
        (mirror({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}), "secrets"),
        (mirror({"volumes": [{"name": "v", "configMap": {"name": "s"}}]}), "configmaps"),
        (mirror({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "s"}}]}), "persistentvolumeclaims"),
        (mirror({"imagePullSecrets": [{"name": "s"}]}), "secrets"),
        (mirror({"resourceClaims": [{"name": "x", "resourceClaimName": "y"}]}), "resourceclaims"),
        *(
            (mirror({"volumes": [{"name": "v", "projected": {"sources": [{source: {}}]}}]}), resource)
            for source, resource in (
                ("clusterTrustBundle", "reference clustertrustbundles"),
                ("podCertificate", "reference podcertificates"),
                ("serviceAccountToken", "may not use ServiceAccountToken volume projections"),
            )
        ),
        *(
            (mirror({"volumes": [{"name": "v", source: {"driver": "d"}}]}), f"reference {resource}")
            for source, resource in (
                ("csi", "csidrivers (via CSI volumes)"),
                ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
                ("glusterfs", "endpoints (via glusterFS volumes)"),
                ("azureFile", "secrets (via azureFile volumes)"),
            )
        ),
    ],
)
def test_node_creates_mirror_pods_only(made: Object, why: str) -> None:
    """A node shows its static pods and cannot pull anything to itself by one."""
    world = World(LIVE_NODE, obj("v1", "ServiceAccount", "s", "a"))
    assert why in refusal(world.create, made, NODE)
    world.create(mirror(), NODE)


def test_node_touches_its_own_pods_only() -> None:
    """Status, deletion and eviction of a pod elsewhere are refused; labels do not change through status."""
    world = World()
    own, other = pod({"nodeName": "n1"}, uid="1"), pod({"nodeName": "n2"}, uid="1")
    running = {"status": {"phase": "Running"}}
    world.update(own, {**own, **running}, NODE, subresource="status")
    assert refusal(world.update, other, {**other, **running}, NODE, subresource="status") == (
        'pods "p" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself'
    )
    labelled = {**own, "metadata": {**own["metadata"], "labels": {"a": "b"}}}
    assert "cannot update labels through pod status" in refusal(world.update, own, labelled, NODE, subresource="status")
    assert "can only create and delete mirror pods" in refusal(world.update, own, labelled, NODE)
    assert "only 'status' and 'eviction' are allowed" in refusal(
        world.update, own, labelled, NODE, subresource="ephemeralcontainers"
    )
    world.delete(own, NODE)
    assert "can only delete pods with spec.nodeName set to itself" in refusal(world.delete, other, NODE)


def token_request(**ref: str) -> Object:
    spec = {"boundObjectRef": ref} if ref else {}
    return obj("authentication.k8s.io/v1", "TokenRequest", "default", "a", spec=spec)


def test_node_requests_tokens_for_its_pods_only() -> None:
    """A token needs a pod of this node, by name and uid, and an audience that the pod asks for."""
    projected = {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}}]}
    world = World(pod({"nodeName": "n1", **projected}, uid="1"), pod({"nodeName": "n2"}, name="q", uid="2"))
    kind = builtin("v1", "ServiceAccount")

    def ask(spec: Object) -> None:
        world.create(spec, NODE, subresource="token", kind=kind)

    own = token_request(kind="Pod", apiVersion="v1", name="p", uid="1")
    ask(own)
    ask({**own, "spec": {**own["spec"], "audiences": ["vault"]}})
    for bad, why in (
        (token_request(), "node requested token not bound to a pod"),
        (token_request(kind="Secret", apiVersion="v1", name="p", uid="1"), "not bound to a pod"),
        (token_request(kind="Pod", apiVersion="v1", name="p"), "without a uid"),
        (token_request(kind="Pod", apiVersion="v1", name="p", uid="9"), "does not match the UID in record"),
        (token_request(kind="Pod", apiVersion="v1", name="q", uid="2"), "scheduled on a different node"),
        (
            {**own, "spec": {**own["spec"], "audiences": ["bank"]}},
            'audience "bank" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this',
        ),
        ({**own, "spec": {**own["spec"], "audiences": ["vault", "bank"]}}, "node may only request 0 or 1 audiences"),
    ):
        assert why in refusal(ask, bad)
    with pytest.raises(NotFound, match='pod "x" not found'):
        ask(token_request(kind="Pod", apiVersion="v1", name="x", uid="1"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}, "is not allowed to modify taints"),
        (
            {"metadata": {"labels": {"node-role.kubernetes.io/master": ""}}},
            "forbidden: is not allowed to modify labels: ",
        ),
        ({"metadata": {"labels": {"x.node-restriction.kubernetes.io/y": "1"}}}, "is not allowed to modify labels"),
        ({"metadata": {"ownerReferences": [{"name": "x"}]}}, "is not allowed to modify ownerReferences"),
        ({"metadata": {"labels": {"own": "label", "kubelet.kubernetes.io/x": "1"}}}, ""),
        ({"metadata": {"name": "n2"}}, 'is not allowed to modify node "n2"'),
    ],
)
def test_node_changes_itself_within_bounds(change: Object, why: str) -> None:
    """Taints, reserved labels and owners of a node are not the node's business."""
    old: Object = {**LIVE_NODE, "metadata": {**LIVE_NODE["metadata"], "labels": {}}}
    if "name" in change.get("metadata", {}):
        old = {**old, "metadata": {**old["metadata"], "name": "n2"}}
    new = {**old, **change, "metadata": {**old["metadata"], **change.get("metadata", {})}}
    if why:
        assert why in refusal(World().update, old, new, NODE)
    else:
        World().update(old, new, NODE)


def test_labels_a_kubelet_may_set() -> None:
    """The allow-list of kubelet labels."""
    labels = {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/anything",
        "a.node.kubernetes.io/x",
        "example.com/x",
        "plain",
        "node-role.kubernetes.io/control-plane",
        "kubernetes.io/other",
        "k8s.io/x",
        "notkubernetes.io/x",
    }
    assert forbidden_labels(labels) == {"node-role.kubernetes.io/control-plane", "kubernetes.io/other", "k8s.io/x"}


def test_node_leases() -> None:
    """A node writes its own lease in its own namespace."""
    own = obj("coordination.k8s.io/v1", "Lease", "n1", "kube-node-lease")
    World().create(own, NODE)
    assert "same name as the requesting node" in refusal(
        World().create, obj("coordination.k8s.io/v1", "Lease", "n2", "kube-node-lease"), NODE
    )
    assert "system namespace" in refusal(World().create, obj("coordination.k8s.io/v1", "Lease", "n1", "a"), NODE)


@pytest.mark.parametrize(
    "volume",
    [
        {"csi": {"driver": "d"}},
        {"persistentVolumeClaim": {"claimName": "p-v"}},
        {"ephemeral": {"volumeClaimTemplate": {}}},
    ],
)
def test_drivers_of_volumes_have_tokens_of_their_own(volume: Object) -> None:
    """What a CSI driver asks tokens for, the node may ask for a pod that has a volume of it."""
    driver = obj("storage.k8s.io/v1", "CSIDriver", "d", spec={"tokenRequests": [{"audience": "bank"}]})
    claim = obj("v1", "PersistentVolumeClaim", "p-v", "a", spec={"volumeName": "pv"})
    bound = obj("v1", "PersistentVolume", "pv", spec={"csi": {"driver": "d"}})
    running = pod({"nodeName": "n1", "volumes": [{"name": "v", **volume}]}, uid="1")
    wanted = token_request(kind="Pod", apiVersion="v1", name="p", uid="1")
    wanted["spec"] = {**wanted["spec"], "audiences": ["bank"]}
    kind = builtin("v1", "ServiceAccount")
    World(running, driver, claim, bound).create(wanted, NODE, subresource="token", kind=kind)
    assert "not found in pod spec volume" in refusal(
        World(running).create, wanted, NODE, subresource="token", kind=kind
    )


def test_claims_of_a_pod_and_of_a_volume_stay_as_they_are() -> None:
    """A node assigns no resource claims to pods; of a volume claim it tells the size and its conditions only."""
    own = pod({"nodeName": "n1"}, uid="1")
    for status, why in (
        (
            {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "c"}]},
            "cannot update resource claim statues",
        ),
        ({"extendedResourceClaimStatus": {"resourceClaimName": "c"}}, "cannot update extended resource claim status"),
    ):
        changed = {**own, "status": status}
        assert why in refusal(World().update, own, changed, NODE, subresource="status")
    claim = obj("v1", "PersistentVolumeClaim", "c", "a", status={"phase": "Bound"})
    grown = {**claim, "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}}
    World().update(claim, grown, NODE, subresource="status")
    for status in ({"phase": "Lost"}, {"phase": "Bound", "modifyVolumeStatus": {"status": "Pending"}}):
        said = refusal(World().update, claim, {**claim, "status": status}, NODE, subresource="status")
        assert "other than status.quantity and status.conditions" in said


def test_slices_and_signing_requests_of_a_node() -> None:
    """A node publishes and withdraws its own resources only, and asks for certificates in its own name only."""
    own, other = (obj("resource.k8s.io/v1", "ResourceSlice", n, spec={"nodeName": n}) for n in ("n1", "n2"))
    World().create(own, NODE)
    World().delete(own, NODE)
    assert "can only create ResourceSlice with the same NodeName" in refusal(World().create, other, NODE)
    assert "can only delete ResourceSlice with the same NodeName" in refusal(World().delete, other, NODE)
    for signer in ("kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"):
        spec = {"request": "", "signerName": signer, "usages": []}
        asked = obj("certificates.k8s.io/v1", "CertificateSigningRequest", "x", spec=spec)
        assert "can only create a node CSR with CN=system:node:n1" in refusal(World().create, asked, NODE)
