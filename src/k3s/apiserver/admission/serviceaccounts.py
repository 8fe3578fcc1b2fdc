"""ServiceAccount: every pod runs as one, with its token where clients look for it.

Source: "ServiceAccount admission controller" in the Kubernetes documentation on managing service accounts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k3s.api.errors import Forbidden
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.admission.chain import CREATE, NotYet, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.nodeauthz import MIRROR, references
from k3s.base.entropy import Entropy

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

SERVICE_ACCOUNT = builtin("v1", "ServiceAccount")
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
_ENFORCE_SECRETS = "kubernetes.io/enforce-mountable-secrets"
# One second more than an hour and six: upstream's mark for tokens that the admission asked for, not the user.
_TOKEN_S = 3607
_ROOT_CA = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
_NAMESPACE_FIELD = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
_SOURCES: list[Object] = [
    {"serviceAccountToken": {"expirationSeconds": _TOKEN_S, "path": "token"}},
    {"configMap": _ROOT_CA},
    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": _NAMESPACE_FIELD}]}},
]


class ServiceAccount(Plugin):
    """Sets the account, mounts its token and takes over its image pull secrets."""

    name = "ServiceAccount"
    resources = frozenset({"pods"})
    admits = frozenset({CREATE})

    def __init__(self, reader: Reader, entropy: Entropy) -> None:
        self._reader = reader
        self._entropy = entropy

    def admit(self, request: AdmissionRequest) -> Object:
        pod = request.obj
        assert pod is not None
        if request.subresource:
            return pod
        spec = pod["spec"]
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            _check_mirror(request, pod)
            return pod
        name = spec.get("serviceAccountName") or "default"
        account = self._account(request, name)
        spec = {**spec, "serviceAccountName": name, "serviceAccount": name}
        if _automounts(account, spec):
            spec = self._mounted(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]
        pod = {**pod, "spec": spec}
        if (account["metadata"].get("annotations") or {}).get(_ENFORCE_SECRETS) == "true":
            _check_secrets(request, account, pod)
        return pod

    def _account(self, request: AdmissionRequest, name: str) -> Object:
        account = self._reader.get(SERVICE_ACCOUNT, request.namespace, name)
        if account is not None:
            return account
        why = f'error looking up service account {request.namespace}/{name}: serviceaccount "{name}" not found'
        error: Forbidden = refuse(request, why)
        if name == "default":  # a controller makes it in every new namespace
            error = NotYet(error.message, error.details)
            error.awaited = (SERVICE_ACCOUNT, request.namespace, name)
        raise error

    def _mounted(self, spec: Object) -> Object:
        """The spec with the token volume mounted in every container that has nothing at that path."""
        volumes = spec.get("volumes") or []
        existing = next((v["name"] for v in volumes if str(v.get("name", "")).startswith(VOLUME_PREFIX)), "")
        name = existing or f"{VOLUME_PREFIX}{self._entropy.suffix()}"
        mount = {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}
        new = dict(spec)
        needed = False
        for field in ("initContainers", "containers"):
            containers = spec.get(field)
            if not containers:
                continue
            new[field] = [_with_mount(container, mount) for container in containers]
            needed = needed or any(a is not b for a, b in zip(containers, new[field], strict=True))
        if needed and not existing:
            new["volumes"] = [*volumes, {"name": name, "projected": {"sources": _SOURCES, "defaultMode": 0o644}}]
        return new if needed else spec


def _with_mount(container: Object, mount: Object) -> Object:
    mounts = container.get("volumeMounts") or []
    if any(existing.get("mountPath") == MOUNT_PATH for existing in mounts):
        return container
    return {**container, "volumeMounts": [*mounts, mount]}


def _automounts(account: Object, spec: Object) -> bool:
    for wish in (spec.get("automountServiceAccountToken"), account.get("automountServiceAccountToken")):
        if wish is not None:
            return bool(wish)
    return True


def _check_mirror(request: AdmissionRequest, pod: Object) -> None:
    """A mirror pod only shows what a node runs from its own disk: it must not open anything to that node."""
    spec = pod["spec"]
    if spec.get("serviceAccountName"):
        raise refuse(request, "a mirror pod may not reference service accounts")
    plain: dict[str, Any] = {**pod, "metadata": {**pod["metadata"], "annotations": {}}}
    if any(resource == "secrets" and name for resource, name in references(plain)):
        raise refuse(request, "a mirror pod may not reference secrets")
    sources = (s for v in spec.get("volumes") or () for s in (v.get("projected") or {}).get("sources") or ())
    if any("serviceAccountToken" in source for source in sources):
        raise refuse(request, "a mirror pod may not use ServiceAccountToken volume projections")


def _check_secrets(request: AdmissionRequest, account: Object, pod: Object) -> None:
    """With the annotation enforce-mountable-secrets a pod may only use the secrets that its account lists."""
    name = account["metadata"]["name"]
    mountable = {secret.get("name") for secret in account.get("secrets") or ()}
    pulls = {secret.get("name") for secret in account.get("imagePullSecrets") or ()}
    for pull in pod["spec"].get("imagePullSecrets") or ():
        if pull.get("name") not in pulls:
            why = f'imagePullSecrets[0].name="{pull.get("name")}" is not allowed because service account {name}'
            raise refuse(request, f"{why} does not reference that imagePullSecret")
    without_pulls = {**pod, "spec": {k: v for k, v in pod["spec"].items() if k != "imagePullSecrets"}}
    for resource, secret in sorted(references(without_pulls)):
        if resource == "secrets" and secret and secret not in mountable:
            why = f'secret "{secret}" is not allowed because service account {name} does not reference that secret'
            raise refuse(request, why)
