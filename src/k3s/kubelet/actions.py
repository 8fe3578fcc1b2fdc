"""Carrying out the commands of one pod's state machine: each a coroutine that ends with the event that answers it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from k3s.api.errors import ApiError, NotFound, OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.api.object import Object, key, namespace, uid
from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.client import Client
from k3s.client.recorder import Recorder
from k3s.client.recorder import reference as pod_reference
from k3s.kubelet import containers, environment, launch, resources, signals
from k3s.kubelet.environment import VariableError
from k3s.kubelet.host import Host
from k3s.kubelet.images import ImageFailure, Images
from k3s.kubelet.launch import ConfigError, NodeFacts
from k3s.kubelet.prober import Prober, Target
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Container, Image, Runtime, RuntimeFailure, Sandbox
from k3s.kubelet.sources import Sources
from k3s.kubelet.volumes import VolumeError

log = logging.getLogger(__name__)

# A container that ended is said to be running a moment longer: asked again at these distances, 3 s in all.
_SETTLE_S = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.4, 1.0, 1.0)


@dataclass
class Shared:
    """What all pods of a node share."""

    runtime: Runtime
    client: Client
    clock: Clock
    entropy: Entropy
    tasks: Tasks
    images: Images
    sources: Sources
    recorder: Recorder
    prober: Prober
    facts: Callable[[], NodeFacts]
    services: Callable[[], Iterable[Object]]
    sandbox_slots: asyncio.Semaphore
    host: Host
    logs: Path
    claims: Callable[[str, str], None] = lambda container_id, pod_uid: None


class PodActions:
    """The hands of one pod. `send` gives an event to its state machine; `pod` answers the newest object."""

    def __init__(self, shared: Shared, pod: Callable[[], Object], send: Callable[[signals.Event], None]) -> None:
        self._shared = shared
        self._pod = pod
        self._send = send
        self.files = shared.host.files(shared.client, shared.sources)
        self.sandbox: Sandbox | None = None
        self.token_due: float | None = None
        self.refreshed: Callable[[], None] = lambda: None
        self._hooked: set[str] = set()

    # ── what a pod needs before it starts ──

    def addresses(self) -> tuple[str, ...]:
        """The pod's addresses, as far as they are known."""
        if self._pod()["spec"].get("hostNetwork"):
            return self._shared.facts().addresses
        return self.sandbox.ips if self.sandbox else ()

    def node_fields(self) -> dict[str, str]:
        """The field values that the node and the network give."""
        facts, own = self._shared.facts(), self.addresses()
        return {
            "spec.nodeName": facts.name,
            "status.hostIP": facts.addresses[0] if facts.addresses else "",
            "status.hostIPs": ",".join(facts.addresses),
            "status.podIP": own[0] if own else "",
            "status.podIPs": ",".join(own),
        }

    async def prepare(self) -> None:
        """PrepareVolumes."""
        pod, shared = self._pod(), self._shared
        try:
            await shared.sources.need(pod)
            now = shared.clock.now()
            await self.files.prepare(pod, shared.facts(), self.node_fields(), now)
            shared.host.ensure_cgroup(resources.cgroup_parent(pod), resources.pod_limits(pod))
        except (VolumeError, ApiError, OutcomeUnknown, OSError) as error:
            self.tell("Warning", "FailedMount", str(error))
            self._send(signals.SetupFailed())
            return
        self._next_token()
        self._send(signals.VolumesReady())

    def _next_token(self) -> None:
        due = min((known.refresh_at for known in self.files.tokens.values()), default=None)
        if due != self.token_due:
            self.token_due = due
            self.refreshed()

    async def refresh(self) -> None:
        """Writes volumes anew whose sources changed, and tokens that are due."""
        shared = self._shared
        try:
            await self.files.refresh(self._pod(), shared.facts(), self.node_fields(), shared.clock.now())
        except (VolumeError, ApiError, OutcomeUnknown) as error:
            self.tell("Warning", "FailedMount", str(error))
        self._next_token()

    async def start_sandbox(self, attempt: int) -> None:
        """StartSandbox."""
        pod, shared = self._pod(), self._shared
        config = launch.sandbox_config(pod, shared.facts(), attempt, log_root=str(shared.logs))
        try:
            async with shared.sandbox_slots:
                sandbox_id = await shared.runtime.run_pod_sandbox(config)
            shared.claims(sandbox_id, uid(pod))
            sandbox = await shared.runtime.pod_sandbox_status(sandbox_id)
        except RuntimeFailure as failure:
            text = f"Failed to create pod sandbox: {failure.message}"
            self.tell("Warning", "FailedCreatePodSandBox", text)
            await self._drop_sandbox(attempt)
            self._send(signals.SetupFailed())
            return
        self.sandbox = sandbox
        self._send(signals.SandboxStarted(sandbox))

    async def _drop_sandbox(self, attempt: int) -> None:
        """Removes what a failed start left, so that its name is free for the next try."""
        runtime = self._shared.runtime
        try:
            for sandbox in await runtime.list_pod_sandboxes(uid(self._pod())):
                if sandbox.attempt == attempt:
                    await runtime.stop_pod_sandbox(sandbox.id)
                    await runtime.remove_pod_sandbox(sandbox.id)
        except RuntimeFailure as failure:
            log.warning("Sandbox is left behind", extra={"pod": key(self._pod()), "reason": failure.message})

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """StopSandbox."""
        try:
            await self._shared.runtime.stop_pod_sandbox(sandbox_id)
        except RuntimeFailure as failure:
            self.tell("Warning", "FailedKillPod", f"error killing pod: {failure.message}")
        self._send(signals.SandboxStopped())

    # ── containers ──

    async def start_container(self, name: str, attempt: int) -> None:
        """StartContainer."""
        container = next(c for _kind, c in containers.specs(self._pod()) if c["name"] == name)
        try:
            image = await self._image(container)
            config = await self._config(container, attempt, image)
        except ImageFailure as failure:
            self._send(signals.StartFailed(name, failure.reason, failure.message))
            return
        except (VariableError, ConfigError, VolumeError, OSError) as error:
            self.tell("Warning", "Failed", f"Error: {error}", name)
            self._send(signals.StartFailed(name, "CreateContainerConfigError", str(error)))
            return
        try:
            container_id = await self._create(name, attempt, config)
        except RuntimeFailure as failure:
            self.tell("Warning", "Failed", f"Error: {failure.message}", name)
            self._send(signals.StartFailed(name, "CreateContainerError", failure.message))
            return
        self.tell("Normal", "Created", f"Created container: {name}", name)
        await self._start(container, container_id)

    async def _image(self, container: Object) -> Image:
        pod, shared = self._pod(), self._shared
        secrets = [
            found
            for reference in pod["spec"].get("imagePullSecrets") or ()
            if (found := shared.sources.secret(namespace(pod), reference["name"])) is not None
        ]
        config = launch.sandbox_config(pod, shared.facts(), 0)

        def tell(kind: str, reason: str, message: str) -> None:
            self.tell(kind, reason, message, container["name"])

        return await shared.images.ensure(container, secrets, config, tell)

    async def _config(self, container: Object, attempt: int, image: Image) -> dict[str, Any]:
        pod, shared, facts = self._pod(), self._shared, self._shared.facts()
        if not await shared.sources.need(pod):
            raise VariableError("the API server does not answer for a ConfigMap or Secret")
        variables = environment.environment(
            pod,
            container,
            config_map=shared.sources.config_map,
            secret=shared.sources.secret,
            services=shared.services(),
            node=self.node_fields(),
            allocatable=facts.allocatable,
        )
        mounts = self.files.mounts(pod, container, variables, self.addresses(), facts)
        mounts.append(self.files.message_mount(pod, container, attempt))
        self.files.make_log_folder(pod, container["name"])
        return launch.container_config(
            pod,
            container,
            attempt=attempt,
            image=image,
            environment=variables,
            mounts=mounts,
            facts=facts,
            target=await self._target(container),
        )

    async def _target(self, container: Object) -> str:
        """The container whose processes an ephemeral one sees, by id."""
        wanted = container.get("targetContainerName")
        if not wanted:
            return ""
        found = await self._shared.runtime.list_containers(uid(self._pod()))
        current, _ = containers.newest(found, wanted)
        if current is None:
            raise ConfigError(f'unable to find target container "{wanted}"')
        return current.id

    async def _create(self, name: str, attempt: int, config: dict[str, Any]) -> str:
        pod, shared = self._pod(), self._shared
        assert self.sandbox is not None, "a container needs a sandbox"
        sandbox_config = launch.sandbox_config(pod, shared.facts(), self.sandbox.attempt, log_root=str(shared.logs))
        try:
            container_id = await shared.runtime.create_container(self.sandbox.id, config, sandbox_config)
        except RuntimeFailure:
            # A start that was cut off may have left a container of this name: it goes, and we try once more.
            left = [c for c in await shared.runtime.list_containers(uid(pod)) if (c.name, c.attempt) == (name, attempt)]
            if not left:
                raise
            for container in left:
                await shared.runtime.remove_container(container.id)
            container_id = await shared.runtime.create_container(self.sandbox.id, config, sandbox_config)
        shared.claims(container_id, uid(pod))
        return container_id

    async def _start(self, container: Object, container_id: str) -> None:
        name, runtime = container["name"], self._shared.runtime
        try:
            await runtime.start_container(container_id)
        except RuntimeFailure as failure:
            self.tell("Warning", "Failed", f"Error: {failure.message}", name)
            left: Container | None = None
            with contextlib.suppress(RuntimeFailure):
                left = _as_failed(
                    await runtime.container_status(container_id), failure.message, self._shared.clock.now()
                )
            self._send(signals.StartFailed(name, "RunContainerError", failure.message, left))
            return
        self.tell("Normal", "Started", f"Started container {name}", name)
        try:
            running = await runtime.container_status(container_id)
        except RuntimeFailure as failure:
            self._send(signals.StartFailed(name, "RunContainerError", failure.message))
            return
        self.files.link_log(self._pod(), running)
        hook = (container.get("lifecycle") or {}).get("postStart")
        if hook:
            self._send(signals.Observed(running))
            result = await self._shared.prober.ask(hook, self.target(container, container_id), 3600.0)
            running = await self._status_or(running)
            self._send(signals.Started(name, running))
            if not result.ok:
                self.tell("Warning", "FailedPostStartHook", f"PostStartHook failed: {result.text}", name)
                self._send(signals.HookFailed(name, "FailedPostStartHook"))
            return
        self._send(signals.Started(name, running))

    async def _status_or(self, known: Container) -> Container:
        try:
            return await self._shared.runtime.container_status(known.id)
        except RuntimeFailure:
            return known

    def target(self, container: Object, container_id: str) -> Target:
        """Whom a probe or hook of this container asks."""
        addresses = self.addresses()
        return Target(container, container_id, addresses[0] if addresses else "127.0.0.1")

    async def stop_container(self, name: str, container_id: str, grace_s: float, message: str) -> None:
        """StopContainer."""
        shared = self._shared
        self.tell("Normal", "Killing", message or f"Stopping container {name}", name)
        unknown: Object = {"name": name}
        container = next((c for _kind, c in containers.specs(self._pod()) if c["name"] == name), unknown)
        hook = (container.get("lifecycle") or {}).get("preStop")
        left = grace_s
        if hook and container_id not in self._hooked and grace_s > 0:
            self._hooked.add(container_id)
            began = shared.clock.monotonic()
            result = await self._hook_until(hook, container, container_id, grace_s)
            if not result:
                self.tell("Warning", "FailedPreStopHook", "PreStopHook failed", name)
            left = max(2.0, grace_s - (shared.clock.monotonic() - began))
        try:
            await shared.runtime.stop_container(container_id, round(left))
        except RuntimeFailure as failure:
            self.tell("Warning", "FailedKillPod", f"error killing container {name}: {failure.message}", name)
        await self.check(container_id)

    async def _hook_until(self, hook: Object, container: Object, container_id: str, limit_s: float) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                return (await self._shared.prober.ask(hook, self.target(container, container_id), limit_s)).ok
        except TimeoutError:
            return False

    async def check(self, container_id: str) -> None:
        """Finds out how a container is that has ended, and tells the state machine."""
        for pause in (*_SETTLE_S, None):
            try:
                found = await self._shared.runtime.container_status(container_id)
            except RuntimeFailure as failure:
                if failure.gone:
                    self._send(signals.Vanished(container_id))
                    return
                found = None
            if found is not None and found.state == cri.EXITED:
                self._send(signals.Observed(found))
                return
            if pause is None:
                if found is not None:
                    self._send(signals.Observed(found))
                return
            await asyncio.sleep(pause)

    # ── the end ──

    async def settle(self) -> None:
        """Abort, after everything that was being started has been cancelled: what is there now?"""
        runtime, pod = self._shared.runtime, self._pod()
        newest: Sandbox | None = None
        try:
            sandboxes = await runtime.list_pod_sandboxes(uid(pod))
            newest = max(sandboxes, key=lambda s: (s.attempt, s.created_at), default=None)
            for container in await runtime.list_containers(uid(pod)):
                self._shared.claims(container.id, uid(pod))
                if container.state == cri.CREATED:
                    await runtime.remove_container(container.id)
                else:
                    self._send(signals.Observed(await runtime.container_status(container.id)))
            if newest is not None:
                newest = replace(newest, ips=self.sandbox.ips if self.sandbox else ())
        except RuntimeFailure as failure:
            log.warning("Cannot look at a pod that ends", extra={"pod": key(pod), "reason": failure.message})
        self._send(signals.Aborted(newest))

    async def release(self) -> None:
        """Release."""
        runtime, pod = self._shared.runtime, self._pod()
        try:
            for sandbox in await runtime.list_pod_sandboxes(uid(pod)):
                await runtime.stop_pod_sandbox(sandbox.id)
            self.files.unmount(pod)
        except (RuntimeFailure, OSError) as error:
            self.tell("Warning", "FailedKillPod", f"error killing pod: {error}")
            self._send(signals.DeleteFailed())
            return
        self._shared.sources.forget(uid(pod))
        self._send(signals.Released())

    async def delete_object(self, object_uid: str) -> None:
        """DeleteObject; the watch tells when it is gone."""
        pod = self._pod()
        try:
            await self._shared.client.delete(
                builtin("v1", "Pod"), namespace(pod), pod["metadata"]["name"], grace_s=0, uid=object_uid
            )
        except NotFound:
            self._send(signals.PodGone())
        except (ApiError, OutcomeUnknown) as error:
            log.warning("Pod was not deleted", extra={"pod": key(pod), "reason": str(error)})
            self._send(signals.DeleteFailed())

    async def remove_all(self) -> None:
        """RemoveAll."""
        runtime, pod = self._shared.runtime, self._pod()
        try:
            left = await runtime.list_containers(uid(pod))
            for container in left:
                await runtime.remove_container(container.id)
            for sandbox in await runtime.list_pod_sandboxes(uid(pod)):
                await runtime.stop_pod_sandbox(sandbox.id)
                await runtime.remove_pod_sandbox(sandbox.id)
            self.files.remove(pod, left)
            self._shared.host.remove_cgroup(resources.cgroup_parent(pod))
        except (RuntimeFailure, OSError) as error:
            log.warning("Pod is not removed yet", extra={"pod": key(pod), "reason": str(error)})
            self._send(signals.DeleteFailed())
            return
        self._send(signals.Removed())

    def tell(self, kind: str, reason: str, message: str, container: str = "") -> None:
        """Records an event about the pod or one of its containers."""
        path = ""
        if container:
            for group in ("initContainers", "containers", "ephemeralContainers"):
                if any(c["name"] == container for c in self._pod()["spec"].get(group) or ()):
                    path = f"spec.{group}{{{container}}}"
        self._shared.recorder.tell(pod_reference(self._pod(), path), kind, reason, message)


def _as_failed(left: Container, message: str, now: float) -> Container:
    """A container that was made and did not run, as one that ended (containerd says so itself in most cases)."""
    if left.state == cri.EXITED:
        return left
    return replace(
        left, state=cri.EXITED, exit_code=128, reason="StartError", message=message, finished_at=now, started_at=0.0
    )
