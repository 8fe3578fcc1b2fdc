"""Pods, containers and sandboxes for tests of the kubelet's pure parts."""

from __future__ import annotations

from typing import Any

from k3s.api.object import Object
from k3s.kubelet.launch import container_hash
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Container, Sandbox

UID = "11111111-2222-4333-8444-555555555555"


def spec(name: str = "main", **more: Any) -> Object:
    """A container of a pod."""
    return {"name": name, "image": "busybox:1", **more}


def pod(*containers: Object, meta: Object | None = None, **more: Any) -> Object:
    """A pod with these containers (one called main when none is given)."""
    metadata = {"name": "web", "namespace": "default", "uid": UID, "generation": 1, **(meta or {})}
    return {"metadata": metadata, "spec": {"containers": list(containers) or [spec()], **more}, "status": {}}


def deleting(obj: Object, grace_s: float = 30) -> Object:
    """The pod as it is after DELETE."""
    meta = {**obj["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace_s}
    return {**obj, "metadata": meta}


def sandbox(attempt: int = 0, ip: str = "10.42.0.2") -> Sandbox:
    """A sandbox that runs."""
    return Sandbox(f"sandbox{attempt}", UID, "default", "web", attempt, True, 0.0, (ip,))


def running(name: str = "main", attempt: int = 0, at: float = 0.0, image: str = "busybox:1") -> Container:
    """A container that runs since `at`."""
    labels = {cri.POD_UID: UID, cri.CONTAINER_NAME: name}
    annotations = {cri.CONTAINER_HASH: container_hash({"name": name, "image": image})}
    return Container(
        f"{name}-{attempt}", "sandbox0", name, attempt, cri.RUNNING, at, at, labels=labels, annotations=annotations
    )


def exited(name: str = "main", code: int = 0, attempt: int = 0, at: float = 0.0, reason: str = "") -> Container:
    """A container that ended at `at`."""
    labels = {cri.POD_UID: UID, cri.CONTAINER_NAME: name}
    return Container(
        *(f"{name}-{attempt}", "sandbox0", name, attempt, cri.EXITED, at, at, at, code),
        reason or ("Completed" if code == 0 else "Error"),
        labels=labels,
    )
