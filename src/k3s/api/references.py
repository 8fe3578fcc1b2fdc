"""What a pod names and needs: its account, secrets, config maps, claims. Source: the Pod API documentation."""

from __future__ import annotations

from collections.abc import Iterator

from k3s.api.object import Object, get


def of_pod(pod: Object) -> set[tuple[str, str]]:
    """(resource, name) of everything in its own namespace that a pod needs to run; names may be empty."""
    spec = pod.get("spec") or {}
    found: set[tuple[str, str]] = set()
    if spec.get("serviceAccountName"):
        found.add(("serviceaccounts", spec["serviceAccountName"]))
    for secret in spec.get("imagePullSecrets") or ():
        found.add(("secrets", secret.get("name", "")))
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            found.update(_of_environment(container))
    for volume in spec.get("volumes") or ():
        found.update(_of_volume(volume, pod["metadata"]["name"]))
    for status in get(pod, "status", "resourceClaimStatuses") or ():
        found.add(("resourceclaims", status.get("resourceClaimName", "")))
    found.add(("resourceclaims", get(pod, "status", "extendedResourceClaimStatus", "resourceClaimName", default="")))
    for claim in spec.get("resourceClaims") or ():
        found.add(("resourceclaims", claim.get("resourceClaimName", "")))
    return found


def _of_environment(container: Object) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or ():
        yield "configmaps", get(source, "configMapRef", "name", default="")
        yield "secrets", get(source, "secretRef", "name", default="")
    for variable in container.get("env") or ():
        yield "configmaps", get(variable, "valueFrom", "configMapKeyRef", "name", default="")
        yield "secrets", get(variable, "valueFrom", "secretKeyRef", "name", default="")


def _of_volume(volume: Object, pod_name: str) -> Iterator[tuple[str, str]]:
    yield "configmaps", get(volume, "configMap", "name", default="")
    yield "secrets", get(volume, "secret", "secretName", default="")
    yield "persistentvolumeclaims", get(volume, "persistentVolumeClaim", "claimName", default="")
    if volume.get("ephemeral"):
        yield "persistentvolumeclaims", f"{pod_name}-{volume.get('name', '')}"
    for source in get(volume, "projected", "sources") or ():
        yield "configmaps", get(source, "configMap", "name", default="")
        yield "secrets", get(source, "secret", "name", default="")
    yield "secrets", get(volume, "azureFile", "secretName", default="")
    yield "secrets", get(volume, "csi", "nodePublishSecretRef", "name", default="")
    for source in ("cephfs", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"):
        yield "secrets", get(volume, source, "secretRef", "name", default="")
