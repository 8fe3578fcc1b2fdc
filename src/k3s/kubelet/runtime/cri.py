"""The real runtime: CRI v1 over gRPC on a unix socket, and containerd's event stream on the same connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from k3s.kubelet.runtime import events as containerd_events
from k3s.kubelet.runtime.connection import REQUEST_S, Connection
from k3s.kubelet.runtime.interface import (
    CREATED,
    EXITED,
    POD_UID,
    RUNNING,
    UNKNOWN,
    Config,
    Container,
    ExecResult,
    Filesystem,
    Image,
    Readiness,
    RuntimeEvent,
    RuntimeFailure,
    Sandbox,
    Usage,
    Version,
)

log = logging.getLogger(__name__)

# What upstream waits for the pull of an image.
_PULL_S = 3600.0
# How long a broken event stream rests before it is opened again; at first at once.
_RECONNECT_S = (0.0, 0.1, 0.5, 1.0, 2.0)

_STATES = {
    "CONTAINER_CREATED": CREATED,
    "CONTAINER_RUNNING": RUNNING,
    "CONTAINER_EXITED": EXITED,
    "CONTAINER_UNKNOWN": UNKNOWN,
}
_CRI_EVENTS = {
    "CONTAINER_STOPPED_EVENT": "exit",
    "CONTAINER_STARTED_EVENT": "start",
    "CONTAINER_DELETED_EVENT": "delete",
}


class CriRuntime:
    """A `Runtime` at a unix socket; `namespace` is where containerd keeps what belongs to Kubernetes."""

    def __init__(self, socket: str, *, namespace: str = "k8s.io") -> None:
        self._connection = Connection(socket)
        self._call = self._connection.call
        self._namespace = namespace

    async def _quiet(self, method: str, timeout_s: float = REQUEST_S, **request: Any) -> None:
        """Calls a verb for which 'not there' means 'already done'."""
        try:
            await self._call(method, timeout_s, **request)
        except RuntimeFailure as failure:
            if not failure.gone:
                raise

    async def version(self) -> Version:
        answer = await self._call("Version")
        return Version(answer["runtime_name"], answer["runtime_version"])

    async def status(self) -> Readiness:
        answer = await self._call("Status")
        conditions = {c["type"]: c for c in (answer["status"] or {}).get("conditions", [])}
        runtime, network = conditions.get("RuntimeReady", {}), conditions.get("NetworkReady", {})
        messages = [
            f"container runtime {what} not ready: {kind}=false "
            f"reason:{c.get('reason', '')} message:{c.get('message', '')}"
            for kind, what, c in (("RuntimeReady", "is", runtime), ("NetworkReady", "network", network))
            if not c.get("status")
        ]
        return Readiness(bool(runtime.get("status")), bool(network.get("status")), ", ".join(messages))

    async def run_pod_sandbox(self, config: Config, handler: str = "") -> str:
        answer = await self._call("RunPodSandbox", 2 * REQUEST_S, config=config, runtime_handler=handler)
        return str(answer["pod_sandbox_id"])

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        await self._quiet("StopPodSandbox", pod_sandbox_id=sandbox_id)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        await self._quiet("RemovePodSandbox", pod_sandbox_id=sandbox_id)

    async def pod_sandbox_status(self, sandbox_id: str) -> Sandbox:
        answer = await self._call("PodSandboxStatus", pod_sandbox_id=sandbox_id)
        return _sandbox(answer["status"])

    async def list_pod_sandboxes(self, pod_uid: str = "") -> list[Sandbox]:
        chosen = {"label_selector": {POD_UID: pod_uid}} if pod_uid else {}
        answer = await self._call("ListPodSandbox", filter=chosen)
        return [_sandbox(item) for item in answer["items"]]

    async def create_container(self, sandbox_id: str, config: Config, sandbox_config: Config) -> str:
        answer = await self._call(
            "CreateContainer", pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox_config
        )
        return str(answer["container_id"])

    async def start_container(self, container_id: str) -> None:
        await self._call("StartContainer", container_id=container_id)

    async def stop_container(self, container_id: str, timeout_s: float) -> None:
        whole = int(timeout_s)
        await self._quiet("StopContainer", REQUEST_S + whole, container_id=container_id, timeout=whole)

    async def remove_container(self, container_id: str) -> None:
        await self._quiet("RemoveContainer", container_id=container_id)

    async def container_status(self, container_id: str) -> Container:
        answer = await self._call("ContainerStatus", container_id=container_id)
        return _container(answer["status"])

    async def list_containers(self, pod_uid: str = "") -> list[Container]:
        chosen = {"label_selector": {POD_UID: pod_uid}} if pod_uid else {}
        answer = await self._call("ListContainers", filter=chosen)
        return [_container(item) for item in answer["containers"]]

    async def update_container_resources(self, container_id: str, linux: Config) -> None:
        await self._call("UpdateContainerResources", container_id=container_id, linux=linux)

    async def reopen_container_log(self, container_id: str) -> None:
        await self._call("ReopenContainerLog", container_id=container_id)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        answer = await self._call(
            "ExecSync",
            timeout_s + 5 if timeout_s else REQUEST_S,
            container_id=container_id,
            cmd=list(command),
            timeout=int(timeout_s),
        )
        return ExecResult(answer["exit_code"], answer["stdout"], answer["stderr"])

    async def exec_url(self, request: Config) -> str:
        return str((await self._call("Exec", **request))["url"])

    async def attach_url(self, request: Config) -> str:
        return str((await self._call("Attach", **request))["url"])

    async def port_forward_url(self, request: Config) -> str:
        return str((await self._call("PortForward", **request))["url"])

    async def pull_image(self, image: str, auth: Config | None, sandbox_config: Config | None) -> str:
        answer = await self._call(
            "PullImage", _PULL_S, image={"image": image}, auth=auth, sandbox_config=sandbox_config
        )
        return str(answer["image_ref"])

    async def image_status(self, image: str) -> Image | None:
        found = (await self._call("ImageStatus", image={"image": image}))["image"]
        return None if found is None or not found["id"] else _image(found)

    async def list_images(self) -> list[Image]:
        return [_image(item) for item in (await self._call("ListImages"))["images"]]

    async def remove_image(self, image: str) -> None:
        await self._quiet("RemoveImage", image={"image": image})

    async def image_fs_info(self) -> list[Filesystem]:
        answer = await self._call("ImageFsInfo")
        return [
            Filesystem(
                (fs["fs_id"] or {}).get("mountpoint", ""), _wrapped(fs["used_bytes"]), _wrapped(fs["inodes_used"])
            )
            for fs in answer["image_filesystems"]
        ]

    async def container_usage(self) -> list[Usage]:
        return [_usage(item) for item in (await self._call("ListContainerStats"))["stats"] if item["attributes"]]

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        """containerd's events; another runtime's are its CRI events. Reconnects for ever, with a resync each time."""
        failures = 0
        source = self._containerd_events
        while True:
            try:
                async for event in source():
                    failures = 0
                    yield event
                # A stream that ends is as broken as one that fails.
                reason = "it ended"
            except GRPCError as error:
                if error.status is Status.UNIMPLEMENTED and source == self._containerd_events:
                    source = self._cri_events
                    continue
                reason = error.message or error.status.name
            except (OSError, StreamTerminatedError, ProtocolError) as error:
                reason = repr(error)
            pause = _RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)]
            failures += 1
            log.warning("Runtime events were interrupted", extra={"reason": reason, "again_in_s": pause})
            await asyncio.sleep(pause)

    async def _containerd_events(self) -> AsyncIterator[RuntimeEvent]:
        codec = containerd_events.codec
        request = {"filters": containerd_events.filters(self._namespace)}
        types = (codec, "SubscribeRequest"), (codec, "Envelope")
        messages = self._connection.stream_of(containerd_events.SUBSCRIBE, types, request)
        async for envelope in messages:
            if envelope is None:
                yield RuntimeEvent("resync")
            elif event := containerd_events.from_envelope(envelope):
                yield event

    async def _cri_events(self) -> AsyncIterator[RuntimeEvent]:
        async for message in self._connection.stream("GetContainerEvents"):
            if message is None:
                yield RuntimeEvent("resync")
            elif kind := _CRI_EVENTS.get(message["container_event_type"]):
                yield RuntimeEvent(kind, message["container_id"])

    async def close(self) -> None:
        self._connection.close()


def _seconds(nanoseconds: int) -> float:
    return nanoseconds / 1e9


def _wrapped(value: Mapping[str, Any] | None) -> int:
    return int(value["value"]) if value else 0


def _sandbox(item: dict[str, Any]) -> Sandbox:
    meta = item["metadata"] or {}
    network = item.get("network") or {}
    ips = [network.get("ip", ""), *(extra["ip"] for extra in network.get("additional_ips", []))]
    return Sandbox(
        id=item["id"],
        pod_uid=meta.get("uid", ""),
        namespace=meta.get("namespace", ""),
        name=meta.get("name", ""),
        attempt=meta.get("attempt", 0),
        ready=item["state"] == "SANDBOX_READY",
        created_at=_seconds(item["created_at"]),
        ips=tuple(ip for ip in ips if ip),
        labels=item["labels"],
        annotations=item["annotations"],
    )


def _container(item: dict[str, Any]) -> Container:
    meta = item["metadata"] or {}
    return Container(
        id=item["id"],
        sandbox_id=item.get("pod_sandbox_id", ""),
        name=meta.get("name", ""),
        attempt=meta.get("attempt", 0),
        state=_STATES.get(item["state"], UNKNOWN),
        created_at=_seconds(item["created_at"]),
        started_at=_seconds(item.get("started_at", 0)),
        finished_at=_seconds(item.get("finished_at", 0)),
        exit_code=item.get("exit_code", 0),
        reason=item.get("reason", ""),
        message=item.get("message", ""),
        image=(item["image"] or {}).get("image", ""),
        image_id=item.get("image_id") or item.get("image_ref", ""),
        log_path=item.get("log_path", ""),
        labels=item["labels"],
        annotations=item["annotations"],
    )


def _image(item: dict[str, Any]) -> Image:
    return Image(
        id=item["id"],
        tags=tuple(item["repo_tags"]),
        digests=tuple(item["repo_digests"]),
        size=item["size"],
        uid=None if item["uid"] is None else int(item["uid"]["value"]),
        username=item["username"],
        pinned=item["pinned"],
    )


def _usage(item: dict[str, Any]) -> Usage:
    cpu, memory, layer = item["cpu"] or {}, item["memory"] or {}, item["writable_layer"] or {}
    return Usage(
        container_id=item["attributes"]["id"],
        labels=item["attributes"]["labels"],
        at=_seconds(cpu.get("timestamp", 0)),
        cpu_ns=_wrapped(cpu.get("usage_core_nano_seconds")),
        memory_working_bytes=_wrapped(memory.get("working_set_bytes")),
        memory_usage_bytes=_wrapped(memory.get("usage_bytes")),
        memory_rss_bytes=_wrapped(memory.get("rss_bytes")),
        disk_bytes=_wrapped(layer.get("used_bytes")),
        inodes=_wrapped(layer.get("inodes_used")),
    )
