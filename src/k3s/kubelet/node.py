"""The Node object that this agent speaks for: how it is registered and what its status says.

Pure. Names of labels, conditions, reasons and messages: the Node API and the kubelet; instance type and provider id as
k3s sets them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from k3s.api import quantity, times
from k3s.api.object import Object
from k3s.kubelet.machine import Machine
from k3s.kubelet.runtime.interface import Image, Readiness, Version

LEASE_NAMESPACE = "kube-node-lease"
LEASE_S = 40
RENEW_S = 10.0
REPORT_S = 300.0
_IMAGES, _IMAGE_NAMES = 50, 5
_MI = 1 << 20
_CONDITIONS = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "KubeletHasInsufficientMemory", "memory"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "KubeletHasDiskPressure", "disk"),
    "PIDPressure": ("KubeletHasSufficientPID", "KubeletHasInsufficientPID", "PID"),
}
_CONDITION_TEXTS = {
    "MemoryPressure": ("kubelet has sufficient memory available", "kubelet has insufficient memory available"),
    "DiskPressure": ("kubelet has no disk pressure", "kubelet has disk pressure"),
    "PIDPressure": ("kubelet has sufficient PID available", "kubelet has insufficient PID available"),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What the node is called and how it is reached. `taints` are objects of the Node API."""

    name: str
    internal_ips: tuple[str, ...]
    external_ips: tuple[str, ...] = ()
    hostname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Object, ...] = ()
    provider_id: str = ""
    instance_type: str = "k3s"
    kubelet_port: int = 10250
    version: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """What the node has to give; `reserved` and `disk_reserved` are kept back from pods (cpu in milli-units)."""

    max_pods: int
    disk_bytes: int
    disk_reserved: int = 0
    reserved: Mapping[str, int] = field(default_factory=dict)


def capacity(machine: Machine, room: Room) -> dict[str, str]:
    """status.capacity."""
    return {
        "cpu": str(machine.cpus),
        "memory": f"{machine.memory_bytes // 1024}Ki",
        "pods": str(room.max_pods),
        "ephemeral-storage": f"{room.disk_bytes // 1024}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    }


def allocatable(machine: Machine, room: Room) -> dict[str, str]:
    """status.allocatable: the capacity without what is reserved."""
    milli = machine.cpus * 1000 - room.reserved.get("cpu", 0)
    memory = machine.memory_bytes - room.reserved.get("memory", 0)
    return {
        **capacity(machine, room),
        "cpu": str(milli // 1000) if milli % 1000 == 0 else f"{milli}m",
        "memory": f"{memory // 1024}Ki",
        "ephemeral-storage": str(room.disk_bytes - room.disk_reserved),
    }


def amounts(resources: Mapping[str, str]) -> dict[str, int]:
    """Quantities as numbers, cpu in milli-units."""
    return {k: quantity.milli(v) if k == "cpu" else quantity.value(v) for k, v in resources.items()}


def labels(identity: Identity, machine: Machine) -> dict[str, str]:
    """The labels that every node carries, and the user's."""
    return {
        "beta.kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "kubernetes.io/hostname": identity.hostname or identity.name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": identity.instance_type,
        "beta.kubernetes.io/instance-type": identity.instance_type,
        **identity.labels,
    }


def registration(identity: Identity, machine: Machine, status: Object) -> Object:
    """The Node as it is created."""
    spec: Object = {"providerID": identity.provider_id or f"k3s://{identity.name}"}
    if identity.taints:
        spec["taints"] = list(identity.taints)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": identity.name,
            "labels": labels(identity, machine),
            "annotations": _annotations(identity),
        },
        "spec": spec,
        "status": status,
    }


def _annotations(identity: Identity) -> dict[str, str]:
    return {"volumes.kubernetes.io/controller-managed-attach-detach": "true", **identity.annotations}


def reconcile(found: Object, identity: Identity, machine: Machine) -> Object:
    """The merge patch that gives a Node which exists already the labels and annotations of this start; {} for none."""
    meta = found.get("metadata", {})
    patch: Object = {}
    for part, wanted in (("labels", labels(identity, machine)), ("annotations", _annotations(identity))):
        have = meta.get(part) or {}
        changed = {key: value for key, value in wanted.items() if have.get(key) != value}
        if changed:
            patch.setdefault("metadata", {})[part] = changed
    if not (found.get("spec") or {}).get("providerID"):
        patch["spec"] = {"providerID": identity.provider_id or f"k3s://{identity.name}"}
    return patch


def addresses(identity: Identity) -> list[Object]:
    """status.addresses."""
    made = [{"type": "InternalIP", "address": ip} for ip in identity.internal_ips]
    made += [{"type": "ExternalIP", "address": ip} for ip in identity.external_ips]
    return [*made, {"type": "Hostname", "address": identity.hostname or identity.name}]


def images(stored: Sequence[Image]) -> list[Object]:
    """status.images: the largest fifty, with up to five names each."""
    largest = sorted(stored, key=lambda image: (-image.size, image.id))[:_IMAGES]
    made = []
    for image in largest:
        names = [*image.digests, *image.tags][:_IMAGE_NAMES]
        if names:
            made.append({"names": names, "sizeBytes": image.size})
    return made


def node_status(
    identity: Identity,
    machine: Machine,
    room: Room,
    runtime: Version,
    readiness: Readiness,
    stored: Sequence[Image],
    pressure: set[str],
    now: float,
    old: Object,
) -> Object:
    """The status of the Node; `old` is the one in the API, for the times at which conditions changed."""
    return {
        "addresses": addresses(identity),
        "capacity": capacity(machine, room),
        "allocatable": allocatable(machine, room),
        "conditions": _conditions(readiness, pressure, now, old),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": identity.kubelet_port}},
        "images": images(stored),
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.system_uuid,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": f"{runtime.name}://{runtime.version.removeprefix('v')}",
            "kubeletVersion": identity.version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": machine.architecture,
        },
    }


def _conditions(readiness: Readiness, pressure: set[str], now: float, old: Object) -> list[Object]:
    known = {c["type"]: c for c in old.get("conditions") or ()}
    made: list[Object] = []
    for kind, (good, bad, _what) in _CONDITIONS.items():
        holds = kind in pressure
        made.append(_condition(kind, holds, bad if holds else good, _CONDITION_TEXTS[kind][holds], now, known))
    ready = readiness.runtime and readiness.network
    text = "kubelet is posting ready status" if ready else readiness.message
    made.append(_condition("Ready", ready, "KubeletReady" if ready else "KubeletNotReady", text, now, known))
    return made + [c for kind, c in known.items() if kind not in _CONDITIONS and kind != "Ready"]


def _condition(kind: str, holds: bool, reason: str, message: str, now: float, known: Mapping[str, Object]) -> Object:
    status = "True" if holds else "False"
    before = known.get(kind)
    same = before is not None and before.get("status") == status
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": times.format(now),
        "lastTransitionTime": before["lastTransitionTime"] if same and before else times.format(now),
    }


def differs(old: Object, new: Object) -> bool:
    """Whether a status says anything new, beyond the time of the heartbeat."""

    def plain(status: Object) -> Object:
        conditions = [
            {key: value for key, value in c.items() if key != "lastHeartbeatTime"}
            for c in status.get("conditions") or ()
        ]
        return {**{key: status.get(key) for key in new}, "conditions": conditions}

    return plain(old) != plain(new)


def lease(identity: Identity, node_uid: str, now: float) -> Object:
    """The Lease by which the node says that it lives."""
    reference = {"apiVersion": "v1", "kind": "Node", "name": identity.name, "uid": node_uid}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": identity.name, "namespace": LEASE_NAMESPACE, "ownerReferences": [reference]},
        "spec": {
            "holderIdentity": identity.name,
            "leaseDurationSeconds": LEASE_S,
            "renewTime": times.micro(now),
        },
    }
