"""What a pod's volumes hold and where they are: the files of configMap, secret, downwardAPI and projected volumes, the
folders of emptyDir and hostPath, and how containers see them.

Pure: the sources come in as objects, paths and bytes go out; `mounts.py` makes it so. Source: the Volume API of Pods.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from k3s.api import quantity
from k3s.api.object import Object, namespace, uid
from k3s.kubelet import environment, resources

DEFAULT_MODE = 0o644
DISK, MEMORY, FILES, HOST = "disk", "memory", "files", "host"
_PLUGINS = {
    "emptyDir": "empty-dir",
    "configMap": "configmap",
    "secret": "secret",
    "downwardAPI": "downward-api",
    "projected": "projected",
}
# Tokens last an hour unless the volume says otherwise; audiences default to the API server's.
DEFAULT_TOKEN_S = 3600


class VolumeError(Exception):
    """A volume cannot be made now; the text goes into the FailedMount event."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One volume. `path` is where it lies on the node; `payload` tells whether it has files of ours to write."""

    name: str
    kind: str  # disk, memory, files, host
    path: str
    spec: Object
    size_bytes: int = 0
    host_type: str = ""
    group: int | None = None
    payload: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A service account token that a volume needs."""

    audience: str
    expiration_s: int
    path: str


File = tuple[bytes, int]
Lookup = environment.Lookup


def pod_folder(root: str, pod: Object) -> str:
    """Everything that a pod has on disk lies below this."""
    return f"{root}/pods/{uid(pod)}"


def plans(pod: Object, root: str) -> list[Plan]:
    """All volumes of a pod. Raises VolumeError for a kind that this node cannot make."""
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return [_plan(volume, pod_folder(root, pod), group) for volume in pod["spec"].get("volumes") or ()]


def _plan(volume: Object, folder: str, group: int | None) -> Plan:
    name = volume["name"]
    if host := volume.get("hostPath"):
        return Plan(name, HOST, host["path"], host, host_type=host.get("type") or "")
    for field, plugin in _PLUGINS.items():
        spec = volume.get(field)
        if spec is None:
            continue
        path = f"{folder}/volumes/kubernetes.io~{plugin}/{name}"
        if field == "emptyDir":
            size = quantity.value(str(spec["sizeLimit"])) if spec.get("sizeLimit") else 0
            kind = MEMORY if spec.get("medium") == "Memory" else DISK
            return Plan(name, kind, path, spec, size_bytes=size, group=group)
        # What is secret stays off the disk.
        kind = MEMORY if field in ("secret", "projected") else FILES
        return Plan(name, kind, path, volume, group=group, payload=True)
    unknown = ", ".join(key for key in volume if key != "name") or "nothing"
    raise VolumeError(f'Cannot make volume "{name}": this node has no driver for {unknown}')


def tokens(volume: Object) -> list[Token]:
    """The service account tokens of a projected volume."""
    parts = (volume.get("projected") or {}).get("sources") or ()
    return [_token(part["serviceAccountToken"]) for part in parts if part.get("serviceAccountToken")]


def _token(spec: Object) -> Token:
    return Token(spec.get("audience") or "", int(spec.get("expirationSeconds") or DEFAULT_TOKEN_S), spec["path"])


def references(pod: Object) -> set[tuple[str, str]]:
    """The ConfigMaps and Secrets that the pod's volumes need, as (kind, name)."""
    found: set[tuple[str, str]] = set()
    for volume in pod["spec"].get("volumes") or ():
        parts = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for part in parts:
            if part.get("configMap"):
                found.add(("ConfigMap", part["configMap"]["name"]))
            if part.get("secret"):
                found.add(("Secret", part["secret"].get("secretName") or part["secret"].get("name")))
    return found


def payload(
    volume: Object,
    pod: Object,
    *,
    config_map: Lookup,
    secret: Lookup,
    token: Callable[[Token], str],
    node: Mapping[str, str],
    allocatable: Mapping[str, int],
) -> dict[str, File]:
    """path -> (content, mode) of a volume with files. Raises VolumeError for what is missing and not optional."""
    parts = [volume]
    mode = DEFAULT_MODE
    if projected := volume.get("projected"):
        parts = list(projected.get("sources") or ())
        mode = projected.get("defaultMode", DEFAULT_MODE)
    made: dict[str, File] = {}
    for part in parts:
        if spec := part.get("configMap"):
            made |= _data(spec, spec["name"], "configmap", config_map(namespace(pod), spec["name"]), mode, pod)
        elif spec := part.get("secret"):
            name = spec.get("secretName") or spec["name"]
            made |= _data(spec, name, "secret", secret(namespace(pod), name), mode, pod)
        elif spec := part.get("downwardAPI"):
            made |= _downward(spec, pod, spec.get("defaultMode", mode), node, allocatable)
        elif spec := part.get("serviceAccountToken"):
            # The token is for its pod's user alone, unless a group shares the volume.
            grouped = (pod["spec"].get("securityContext") or {}).get("fsGroup") is not None
            made[spec["path"]] = (token(_token(spec)).encode(), 0o640 if grouped else _token_mode(pod, mode))
    return made


def _token_mode(pod: Object, mode: int) -> int:
    """0600 when every container runs as the same known user, else the volume's own mode."""
    outer = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    users = {(c.get("securityContext") or {}).get("runAsUser", outer) for c in resources.containers(pod)}
    return 0o600 if len(users) == 1 and users != {None} else mode


def owner(pod: Object) -> int | None:
    """The user to whom a token file belongs: the one user of all containers, or None."""
    outer = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    users = {(c.get("securityContext") or {}).get("runAsUser", outer) for c in resources.containers(pod)}
    return users.pop() if len(users) == 1 else None


def _data(spec: Object, name: str, kind: str, found: Object | None, mode: int, pod: Object) -> dict[str, File]:
    mode = spec.get("defaultMode", mode)
    if found is None:
        if spec.get("optional"):
            return {}
        raise VolumeError(f'{kind} "{name}" not found')
    content = _contents(found, kind)
    items = spec.get("items")
    if not items:
        return {key: (value, mode) for key, value in content.items()}
    made: dict[str, File] = {}
    for item in items:
        if item["key"] not in content:
            if spec.get("optional"):
                continue
            raise VolumeError(f"references non-existent {kind} key: {item['key']} (in {namespace(pod)}/{name})")
        made[item["path"]] = (content[item["key"]], item.get("mode", mode))
    return made


def _contents(found: Object, kind: str) -> dict[str, bytes]:
    data: Mapping[str, Any] = found.get("data") or {}
    if kind == "secret":
        return {key: base64.b64decode(value) for key, value in data.items()}
    binary: Mapping[str, Any] = found.get("binaryData") or {}
    return {
        **{key: str(value).encode() for key, value in data.items()},
        **{key: base64.b64decode(value) for key, value in binary.items()},
    }


def _downward(
    spec: Object, pod: Object, mode: int, node: Mapping[str, str], allocatable: Mapping[str, int]
) -> dict[str, File]:
    made: dict[str, File] = {}
    for item in spec.get("items") or ():
        if ref := item.get("fieldRef"):
            text = environment.field(pod, ref["fieldPath"], node)
        else:
            ref = item["resourceFieldRef"]
            text = resources.resource_field(pod, ref["containerName"], ref, allocatable)
        made[item["path"]] = (text.encode(), item.get("mode", mode))
    return made


def changes_with_pod(volume: Object) -> bool:
    """Whether labels or annotations of the pod are in the volume, which is then written again when they change."""
    parts = [volume, *((volume.get("projected") or {}).get("sources") or ())]
    return any(part.get("downwardAPI") for part in parts)
