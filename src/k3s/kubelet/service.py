"""The kubelet: follows the pods of this node, gives each a worker, and speaks for the node.

    informer of pods ──► one PodWorker a pod ──► runtime
    runtime events ────► the worker that owns the container
    Heartbeat: Node, Lease, conditions        Collector: images, dead containers, orphans

When it stops, containers go on; when it starts, it finds them again by their labels.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k3s.api.kinds import builtin
from k3s.api.object import Object, key, uid
from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.client import Client
from k3s.client.informer import Informer
from k3s.client.recorder import Recorder
from k3s.client.recorder import reference as pod_reference
from k3s.kubelet import containers, eviction, node, pause, resources, signals
from k3s.kubelet.actions import Shared
from k3s.kubelet.collector import Collector
from k3s.kubelet.heartbeat import Heartbeat, HeartbeatConfig
from k3s.kubelet.host import Host, LinuxHost
from k3s.kubelet.images import Images
from k3s.kubelet.launch import NodeFacts
from k3s.kubelet.node import Identity, Room
from k3s.kubelet.pod_state import Phase, State, adopt, begin
from k3s.kubelet.prober import Prober
from k3s.kubelet.rotation import ROTATE_S, Rotation
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Container, Runtime, RuntimeFailure, Sandbox
from k3s.kubelet.sources import Sources
from k3s.kubelet.static import StaticPods, is_mirror
from k3s.kubelet.worker import PodWorker

log = logging.getLogger(__name__)

# A slow look at everything, in case an event was lost (upstream's evented relist: 5 min).
_RESYNC_S = 300.0
# How often a node that is short of something lets a pod go (upstream: evictionMonitoringPeriod).
_EVICT_S = 10.0


@dataclass(frozen=True, slots=True)
class KubeletConfig:
    """All that a kubelet is told. Paths: `root` for pods' files, `logs` for container logs."""

    identity: Identity
    root: Path = Path("/var/lib/kubelet")
    logs: Path = Path("/var/log/pods")
    links: Path = Path("/var/log/containers")
    manifests: Path | None = None
    cni_folder: Path | None = None
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    resolv_conf: str = ""
    max_pods: int = 110
    eviction_hard: Mapping[str, str] = field(default_factory=lambda: dict(eviction.DEFAULT))
    reserved: Mapping[str, int] = field(default_factory=dict)
    image_gc_high: int = 85
    image_gc_low: int = 80
    seccomp_default: bool = False
    keep_images: tuple[str, ...] = (pause.IMAGE,)
    log_max_bytes: int = 10 << 20
    log_max_files: int = 5
    # Several sandboxes at once fill the processors; more only get in each other's way.
    parallel_sandboxes: int = 0


class Kubelet:
    """The node agent. `run(ready)` serves until cancelled; `became_ready` is set once the node is Ready."""

    def __init__(
        self,
        config: KubeletConfig,
        client: Client,
        runtime: Runtime,
        clock: Clock,
        entropy: Entropy,
        *,
        host: Host | None = None,
    ) -> None:
        self.config = config
        self.runtime = runtime
        self.became_ready = asyncio.Event()
        self.host = host or LinuxHost(config.root, config.logs, config.links)
        self.machine = self.host.machine()
        self._client, self._clock, self._entropy = client, clock, entropy
        self._failure: asyncio.Future[None] | None = None
        self._tasks = Tasks("kubelet", self._failed)
        self._workers: dict[str, PodWorker] = {}
        self._names: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        self._waiting: dict[str, Object] = {}
        name = config.identity.name
        self._pods = Informer(
            client, builtin("v1", "Pod"), fields=f"spec.nodeName={name}", clock=clock, entropy=entropy
        )
        self._services = Informer(client, builtin("v1", "Service"), clock=clock, entropy=entropy)
        self._recorder = Recorder(client, "kubelet", clock, entropy, host=name)
        self._static = StaticPods(config.manifests, name, client, clock) if config.manifests else None
        self._facts = self._node_facts()
        self._heartbeat = self._make_heartbeat()
        self._shared = self._make_shared()
        self._collector = Collector(
            runtime,
            clock,
            self.host,
            self._heartbeat.images_changed,
            config.image_gc_high,
            config.image_gc_low,
            config.keep_images,
        )

    # ── what others may see of it (server, logs, exec) ──

    def pods(self) -> list[Object]:
        """Every pod that this kubelet runs, with its status as the kubelet knows it."""
        return [{**worker.state.pod, "status": worker.current_status()} for worker in self._workers.values()]

    def pod(self, namespace: str, name: str) -> Object | None:
        """A pod by name, or None when this kubelet does not run it."""
        worker = self._worker(namespace, name)
        return None if worker is None else {**worker.state.pod, "status": worker.current_status()}

    def _worker(self, namespace: str, name: str) -> PodWorker | None:
        return self._workers.get(self._names.get(f"{namespace}/{name}", ""))

    def container(self, namespace: str, name: str, container: str, *, previous: bool = False) -> Container | None:
        """The newest (or the one before it) container of that name in a pod."""
        worker = self._worker(namespace, name)
        run = worker.state.runs.get(container) if worker is not None else None
        if run is None:
            return None
        return run.last if previous else run.current

    def listen(self, namespace: str, name: str, tell: Callable[[], None]) -> Callable[[], None]:
        """Has `tell` called whenever a pod's state may have changed; answers how to stop that."""
        worker = self._worker(namespace, name)
        if worker is None:
            return lambda: None
        worker.listeners.append(tell)
        return lambda: worker.listeners.remove(tell)

    def sandbox(self, namespace: str, name: str) -> Sandbox | None:
        """The sandbox of a pod."""
        worker = self._worker(namespace, name)
        return None if worker is None else worker.state.sandbox

    def log_path(self, namespace: str, name: str, container: str, *, previous: bool = False) -> str | None:
        """The log file of a container's newest run (or of the one before it)."""
        worker = self._worker(namespace, name)
        found = self.container(namespace, name, container, previous=previous)
        if worker is None or found is None:
            return None
        return worker.actions.files.log_path(worker.state.pod, container, found.attempt)

    # ── making ──

    def _node_facts(self) -> NodeFacts:
        config = self.config
        resolver = self.host.resolver(config.resolv_conf)
        amounts = node.amounts(node.allocatable(self.machine, self._room()))
        return NodeFacts(
            name=config.identity.name,
            addresses=config.identity.internal_ips,
            memory_bytes=self.machine.memory_bytes,
            allocatable=amounts,
            cluster_dns=config.cluster_dns,
            cluster_domain=config.cluster_domain,
            resolv_servers=resolver.servers,
            resolv_searches=resolver.searches,
            resolv_options=resolver.options,
            seccomp_default=config.seccomp_default,
        )

    def _room(self) -> Room:
        size = self.host.disk().capacity
        kept = self.config.eviction_hard.get("nodefs.available", "0")
        return Room(self.config.max_pods, size, eviction.threshold(kept, size), self.config.reserved)

    def _make_heartbeat(self) -> Heartbeat:
        config = self.config
        made = HeartbeatConfig(config.identity, self._room(), config.cni_folder, tuple(config.eviction_hard.items()))
        return Heartbeat(made, self.host, self._client, self.runtime, self._clock, self._entropy)

    def _make_shared(self) -> Shared:
        slots = self.config.parallel_sandboxes or max(2, self.machine.cpus)
        return Shared(
            runtime=self.runtime,
            client=self._client,
            clock=self._clock,
            entropy=self._entropy,
            tasks=self._tasks,
            images=Images(self.runtime, self._tasks),
            sources=Sources(self._client, self._clock, self._entropy, self._tasks, self._source_changed),
            recorder=self._recorder,
            prober=Prober(self.runtime),
            facts=lambda: self._facts,
            services=self._services.values,
            sandbox_slots=asyncio.Semaphore(slots),
            host=self.host,
            logs=self.config.logs,
            claims=self._owners.__setitem__,
        )

    # ── running ──

    def _failed(self, name: str, error: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def run(self, ready: Callable[[], None]) -> None:
        """Serves until cancelled. Raises the error of any part that fails for a reason that is not the world's."""
        self._failure = asyncio.get_running_loop().create_future()
        try:
            await self._heartbeat.register()
            synced = [asyncio.Event(), asyncio.Event()]
            for informer, event in zip((self._pods, self._services), synced, strict=True):
                self._tasks.spawn(informer.run(event.set), f"follow {informer.kind.plural}")
            self._tasks.spawn(self._recorder.run(), "events")
            for event in synced:
                await self._or_failure(event.wait())
            await self._or_failure(self._adopt())
            self._tasks.spawn(self._runtime_events(), "runtime events")
            self._tasks.spawn(self._heartbeat.run(self.became_ready.set), "heartbeat")
            self._tasks.spawn(self._collect(), "collect")
            self._tasks.spawn(self._resync(), "resync")
            self._tasks.spawn(self._rotate_logs(), "rotate logs")
            self._tasks.spawn(self._evict(), "evict")
            ready()
            await self._failure
        finally:
            await self._tasks.close()

    async def _or_failure(self, work: Coroutine[Any, Any, object]) -> None:
        assert self._failure is not None
        task = self._tasks.spawn(work, "start")
        waiting: set[asyncio.Future[Any]] = {task, self._failure}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self._failure.done():
            self._failure.result()
        await task

    async def _adopt(self) -> None:
        """Begins with the pods that there are, each with what the runtime already holds for it."""
        sandboxes = await self.runtime.list_pod_sandboxes()
        found = await self.runtime.list_containers()
        by_pod: dict[str, tuple[list[Sandbox], list[Container]]] = {}
        for sandbox in sandboxes:
            by_pod.setdefault(sandbox.pod_uid, ([], []))[0].append(sandbox)
            self._owners[sandbox.id] = sandbox.pod_uid
        for container in found:
            by_pod.setdefault(container.pod_uid, ([], []))[1].append(container)
            self._owners[container.id] = container.pod_uid
        if self._static is not None:
            await self._static.start(self._tasks, self._static_changed)
        before = dict(self._pods.objects)
        wanted = [p for p in before.values() if not is_mirror(p)]
        wanted += self._static.pods() if self._static is not None else []
        for one in wanted:
            known = by_pod.pop(uid(one), ([], []))
            await self._begin_adopted(one, *known)
        self._pods.subscribe(self._pod_changed)
        # What changed while the runtime was asked about each pod.
        for where in {**before, **self._pods.objects}:
            old, new = before.get(where), self._pods.get(where)
            if old is not new:
                self._pod_changed(where, old, new)
        self._tasks.spawn(self._collector.orphans(by_pod, lambda: set(self._workers)), "orphans")

    async def _begin_adopted(self, one: Object, sandboxes: list[Sandbox], found: list[Container]) -> None:
        detailed: list[Container] = []
        for _kind, spec in containers.specs(one):
            current, last = containers.newest(found, spec["name"])
            for item in (current, last):
                if item is None:
                    continue
                try:
                    detailed.append(await self.runtime.container_status(item.id))
                except RuntimeFailure as failure:
                    log.warning("Container is not known any more", extra={"id": item.id, "reason": failure.message})
        newest = max(sandboxes, key=lambda s: (s.attempt, s.created_at), default=None)
        if newest is not None:
            try:
                newest = await self.runtime.pod_sandbox_status(newest.id)
            except RuntimeFailure:
                newest = None
        state = adopt(begin(one, self._clock.now()), [newest] if newest else [], detailed)
        self._start_worker(one, state, adopted=True)

    def _start_worker(self, one: Object, state: State, *, adopted: bool = False) -> None:
        where, who = key(one), uid(one)
        worker = PodWorker(self._shared, state, lambda: self._api_pod(where, who), adopted=adopted)
        self._workers[who] = worker
        self._names[where] = who
        self._tasks.spawn(self._work(worker, where), f"pod {where}")

    def _api_pod(self, where: str, who: str) -> Object | None:
        """The object in the API that shows a pod's status: itself, or the mirror of a static pod."""
        found = self._pods.get(where)
        if found is None:
            return None
        return found if uid(found) == who or is_mirror(found) else None

    async def _work(self, worker: PodWorker, where: str) -> None:
        try:
            await worker.run()
        finally:
            who = worker.uid
            self._workers.pop(who, None)
            for container_id in [k for k, v in self._owners.items() if v == who]:
                del self._owners[container_id]
            self._shared.sources.forget(who)
            if self._names.get(where) == who:
                del self._names[where]
        later = self._waiting.pop(where, None)
        if later is not None:
            self._start_worker(later, begin(later, self._clock.now()))

    def _pod_changed(self, where: str, old: Object | None, new: Object | None) -> None:
        """What the watch says. A pod of the same name but another uid waits until the first one is gone."""
        if old is not None and (new is None or uid(new) != uid(old)) and not is_mirror(old):
            self._gone(where, uid(old))
        if new is None:
            if old is not None and is_mirror(old) and self._static is not None:
                self._static.mirror_gone(where)
            return
        if is_mirror(new):
            if self._static is not None:
                self._static.mirror_seen(new)
            return
        worker = self._workers.get(uid(new))
        if worker is not None:
            worker.send(signals.PodChanged(new))
        elif where in self._names:
            self._waiting[where] = new
        else:
            self._start_worker(new, begin(new, self._clock.now()))

    def _gone(self, where: str, who: str) -> None:
        if where in self._waiting and uid(self._waiting[where]) == who:
            del self._waiting[where]
        worker = self._workers.get(who)
        if worker is not None:
            worker.send(signals.PodGone())

    def _static_changed(self, where: str, new: Object | None, gone: str) -> None:
        """A manifest came, changed or went; `gone` is the uid of what it was before."""
        if gone:
            self._gone(where, gone)
        if new is None:
            return
        if where in self._names:
            self._waiting[where] = new
        else:
            self._start_worker(new, begin(new, self._clock.now()))

    def _source_changed(self, pod_uid: str) -> None:
        worker = self._workers.get(pod_uid)
        if worker is not None:
            worker.sources_changed()

    # ── what the runtime tells ──

    async def _runtime_events(self) -> None:
        first = True
        async for event in self.runtime.events():
            if event.kind == "resync":
                # What happened before the first event was read while adopting.
                await self._look_at_all()
                first = False
                continue
            worker = self._workers.get(self._owners.get(event.container_id, ""))
            if worker is None or first:
                continue
            if event.kind in ("exit", "delete"):
                self._ended(worker, event.container_id)

    def _ended(self, worker: PodWorker, container_id: str) -> None:
        sandbox = worker.state.sandbox
        if sandbox is not None and sandbox.id == container_id:
            worker.send(signals.SandboxDied(container_id))
        else:
            # Also one that we have not heard of yet: it may end before its start is told.
            worker.check(container_id)

    async def _look_at_all(self) -> None:
        """Compares what the workers believe with what the runtime holds."""
        try:
            running = {c.id: c.state for c in await self.runtime.list_containers()}
            ready = {s.id for s in await self.runtime.list_pod_sandboxes() if s.ready}
        except RuntimeFailure as failure:
            log.warning("Cannot look at the runtime", extra={"reason": failure.message})
            return
        for worker in list(self._workers.values()):
            sandbox = worker.state.sandbox
            if sandbox is not None and sandbox.ready and sandbox.id not in ready:
                worker.send(signals.SandboxDied(sandbox.id))
            for run in worker.state.runs.values():
                if run.running and run.current is not None and running.get(run.current.id) != cri.RUNNING:
                    worker.check(run.current.id)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(_RESYNC_S)
            await self._look_at_all()

    async def _collect(self) -> None:
        while True:
            await asyncio.sleep(self._collector.period_s)
            try:
                await self._collector.images()
                await self._collector.containers(self._kept())
                self._share_burstable()
            except (RuntimeFailure, OSError) as error:
                log.warning("Cannot collect garbage", extra={"reason": str(error)})

    async def _evict(self) -> None:
        """Lets one pod go at each look for as long as the node is short of something; disk is first won from images."""
        while True:
            await asyncio.sleep(_EVICT_S)
            for condition in sorted(self._heartbeat.pressed):
                try:
                    if condition == "DiskPressure":
                        await self._collector.images()
                    await self._evict_one(condition)
                except RuntimeFailure as failure:
                    log.warning("Cannot evict", extra={"reason": failure.message})

    async def _evict_one(self, condition: str) -> None:
        live = [w.state.pod for w in self._workers.values() if w.state.phase is Phase.SYNC]
        used: dict[str, int] = {}
        for usage in await self.runtime.container_usage():
            who = usage.labels.get(cri.POD_UID, "")
            amount = usage.disk_bytes if condition == "DiskPressure" else usage.memory_working_bytes
            used[who] = used.get(who, 0) + amount
        found = eviction.victim(live, used, condition)
        if found is not None:
            chosen, message = found
            log.warning("Pod is evicted", extra={"pod": key(chosen), "reason": condition})
            self._recorder.tell(pod_reference(chosen), "Warning", "Evicted", message)
            self._workers[uid(chosen)].send(signals.Evict("Evicted", message))

    async def _rotate_logs(self) -> None:
        rotation = Rotation(self.runtime, self._clock, self.config.log_max_bytes, self.config.log_max_files)
        while True:
            await asyncio.sleep(ROTATE_S)
            for worker in list(self._workers.values()):
                for name, run in worker.state.runs.items():
                    if run.running and run.current is not None:
                        path = worker.actions.files.log_path(worker.state.pod, name, run.current.attempt)
                        await rotation.check(Path(path), run.current.id)

    def _kept(self) -> set[str]:
        """The ids of containers that a pod still shows."""
        kept: set[str] = set()
        for worker in self._workers.values():
            for run in worker.state.runs.values():
                kept |= {known.id for known in (run.current, run.last) if known is not None}
        return kept

    def _share_burstable(self) -> None:
        live: Iterable[Object] = [w.state.pod for w in self._workers.values() if w.state.phase is Phase.SYNC]
        shares = resources.burstable_shares(list(live))
        self.host.ensure_cgroup(f"{resources.ROOT}/burstable", {"cpu_shares": shares})
        self.host.ensure_cgroup(f"{resources.ROOT}/besteffort", {"cpu_shares": 2})
