"""The scheduler's loop: informer events feed the queue and the snapshot, `place` decides, bindings are posted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from k3s.api import object as objects
from k3s.api.errors import ApiError, Conflict, NotFound, OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.metrics import Registry
from k3s.base.story import Story
from k3s.client.client import Client
from k3s.client.informer import Informer
from k3s.client.recorder import Recorder, reference
from k3s.scheduler.place import Answer, Bind, Preempt, place
from k3s.scheduler.queue import Queue
from k3s.scheduler.snapshot import PodFacts, Snapshot
from k3s.scheduler.telling import Teller, patch_status

log = logging.getLogger(__name__)

NAME = "default-scheduler"
_POD = builtin("v1", "Pod")
_NODE = builtin("v1", "Node")
_NAMESPACE = builtin("v1", "Namespace")
_CLAIM = builtin("v1", "PersistentVolumeClaim")
_FINISHED = ("Succeeded", "Failed")

# Bindings on their way at once: enough for the datastore to commit them together.
_BINDINGS = 64


class Metrics:
    """What the scheduler counts, under upstream's names."""

    def __init__(self, registry: Registry, pending: Callable[[], float]) -> None:
        labels = ["profile", "result"]
        self.attempts = registry.counter("scheduler_schedule_attempts_total", "Attempts to place a pod", labels)
        self.seconds = registry.histogram(
            "scheduler_scheduling_attempt_duration_seconds", "Time that an attempt took", labels
        )
        registry.gauge("scheduler_pending_pods", "Pods that wait for a node", read=pending)


class Scheduler:
    """Places the pods that name this scheduler and no node."""

    def __init__(
        self,
        client: Client,
        informer_of: Callable[..., Informer],
        clock: Clock,
        recorder: Recorder,
        story: Story,
        metrics: Registry,
    ) -> None:
        self._client = client
        self._clock = clock
        self._recorder = recorder
        self._story = story
        self._pods = informer_of(_POD)
        self._nodes = informer_of(_NODE)
        self._namespaces = informer_of(_NAMESPACE)
        self._claims = informer_of(_CLAIM)
        self._queue = Queue()
        self._metrics = Metrics(metrics, lambda: float(len(self._queue)))
        self._snapshot = Snapshot()
        self._placed: dict[str, str] = {}  # pod key -> node, bound or assumed
        self._nominated: dict[str, str] = {}  # key of a pod that waits -> node on which room was made for it
        self._assumed: set[str] = set()
        self._wake = asyncio.Event()
        self._turn = 0
        self._tasks = Tasks("scheduler")
        self._teller = Teller(client, self._pods, clock, recorder, self._tasks)
        self._slots = asyncio.Semaphore(_BINDINGS)

    async def run(self, ready: Callable[[], None]) -> None:
        """Schedules until cancelled; the informers must run elsewhere and be synced."""
        self._pods.subscribe(self._pod_changed)
        self._nodes.subscribe(self._node_changed)
        self._claims.subscribe(lambda key, old, new: self._moved())
        for node in list(self._nodes.values()):
            self._node_changed(objects.key(node), None, node)
        for pod in list(self._pods.values()):
            self._pod_changed(objects.key(pod), None, pod)
        self._tasks.spawn(self._teller.run(), "teller")
        ready()
        try:
            while True:
                await self._wait()
                await self._schedule()
        finally:
            await self._tasks.close()

    async def _wait(self) -> None:
        """Until something changed, or the next back-off ends."""
        due = self._queue.next_due(self._clock.monotonic())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), due)
        self._wake.clear()

    def _moved(self, at_once: bool = False) -> None:
        self._queue.move_all(at_once)
        self._wake.set()

    # -- what the informers tell ------------------------------------------------------------------------------------

    def _node_changed(self, key: str, old: Object | None, new: Object | None) -> None:
        if new is None:
            self._snapshot = self._snapshot.without_node(key)
            return
        if old is not None and not _matters(old, new):
            return
        self._snapshot = self._snapshot.with_node(new)
        self._moved(at_once=True)

    def _pod_changed(self, key: str, old: Object | None, new: Object | None) -> None:
        if new is None or new.get("status", {}).get("phase") in _FINISHED:
            self._release(key)
            self._queue.remove(key)
            return
        if old is not None and objects.uid(old) != objects.uid(new):
            # The one that was seen before went unseen: this one has its name and nothing else of it.
            self._release(key)
            old = None
        self._nominate(key, new)
        node = new["spec"].get("nodeName")
        if node:
            self._occupy(key, node, new)
        elif _wants_node(new):
            if key not in self._assumed and (old is None or self._may_fit_now(old, new)):
                self._queue.add(key, int(new["spec"].get("priority") or 0))
                self._wake.set()
        else:
            self._queue.remove(key)

    def _may_fit_now(self, old: Object, new: Object) -> bool:
        """True when a change of a pod that waits may help it: labels count only where somebody asks for some."""
        if old["spec"] != new["spec"]:
            return True
        if objects.labels(old) == objects.labels(new):
            return False
        asks = PodFacts(new).has_affinity or bool(new["spec"].get("topologySpreadConstraints"))
        return asks or any(node.with_affinity for node in self._snapshot.nodes.values())

    def _nominate(self, key: str, pod: Object) -> None:
        node = pod.get("status", {}).get("nominatedNodeName")
        if node and not pod["spec"].get("nodeName"):
            self._nominated[key] = node
        else:
            self._nominated.pop(key, None)

    def _occupy(self, key: str, node: str, pod: Object) -> None:
        self._assumed.discard(key)
        self._queue.remove(key)
        before = self._placed.get(key)
        known = self._pods_on(node).get(key)
        if before == node and known is not None and _same_for_placing(known.obj, pod):
            return
        if before is not None and before != node:
            self._snapshot = self._snapshot.without_pod(before, key)
        self._placed[key] = node
        self._snapshot = self._snapshot.with_pod(node, PodFacts(pod))

    def _pods_on(self, node: str) -> Mapping[str, PodFacts]:
        facts = self._snapshot.nodes.get(node)
        return facts.pods if facts else {}

    def _release(self, key: str) -> None:
        node = self._placed.pop(key, None)
        self._assumed.discard(key)
        self._nominated.pop(key, None)
        if node is not None:
            self._snapshot = self._snapshot.without_pod(node, key)
            self._moved()

    # -- placing ----------------------------------------------------------------------------------------------------

    async def _schedule(self) -> None:
        while (key := self._queue.pop(self._clock.monotonic())) is not None:
            pod = self._pods.get(key)
            if pod is None or key in self._assumed:
                self._queue.remove(key)
                continue
            try:
                self._place(key, pod)
            except Exception as error:  # noqa: BLE001 - a pod that cannot be judged must not keep the others waiting
                self._give_up(key, pod, error)
            # Many pods at once must not keep the rest of the process waiting.
            await asyncio.sleep(0)

    def _give_up(self, key: str, pod: Object, error: Exception) -> None:
        log.error("Cannot judge pod: %r", error, extra={"pod": key}, exc_info=error)
        self._metrics.attempts.add(NAME, "error")
        self._queue.park(key, self._clock.monotonic(), self._queue.moves)
        self._recorder.tell(reference(pod), "Warning", "FailedScheduling", f"internal error: {type(error).__name__}")

    def _with_nominated(self, pod: PodFacts) -> Snapshot:
        """The snapshot with the pods for which room was made, as far as they matter as much as this one."""
        snapshot = self._snapshot
        for key, node in self._nominated.items():
            other = self._pods.get(key)
            if other is not None and key != pod.key and key not in self._placed:
                facts = PodFacts(other)
                snapshot = snapshot.with_pod(node, facts) if facts.priority >= pod.priority else snapshot
        return snapshot

    def _place(self, key: str, pod: Object) -> None:
        facts, moves = PodFacts(pod), self._queue.moves
        began = self._clock.monotonic()
        self._turn += 1
        snapshot, problem = self._with_nominated(facts), self._claim_problem(pod)
        answer = place(facts, snapshot, self._namespaces.objects, problem, self._turn)
        self._note(key, answer, began)
        if isinstance(answer, Bind):
            self._queue.remove(key)
            self._assumed.add(key)
            self._placed[key] = answer.node
            self._snapshot = self._snapshot.with_pod(answer.node, facts)
            self._tasks.spawn(self._bind(key, pod, answer.node), "bind")
            return
        self._queue.park(key, self._clock.monotonic(), moves)
        if isinstance(answer, Preempt):
            self._nominated[key] = answer.node
            self._tasks.spawn(self._preempt(pod, answer), "preempt")
        elif not answer.waits and self._nominated.pop(key, None) is not None:
            # The room that was made for it has gone to somebody else: it is not kept free any more.
            self._tasks.spawn(patch_status(self._client, pod, {"nominatedNodeName": None}), "nominate")
        self._teller.put(key, pod, answer.message)

    def _note(self, key: str, answer: Answer, began: float) -> None:
        result = "scheduled" if isinstance(answer, Bind) else "unschedulable"
        self._metrics.attempts.add(NAME, result)
        self._metrics.seconds.observe(self._clock.monotonic() - began, NAME, result)
        said = f"bind to {answer.node}" if isinstance(answer, Bind) else answer.message
        self._story.tell(self._clock.now(), "scheduler", key, said)

    def _claim_problem(self, pod: Object) -> str:
        namespace = objects.namespace(pod)
        for volume in pod["spec"].get("volumes") or ():
            name = objects.get(volume, "persistentVolumeClaim", "claimName")
            if name is None:
                continue
            claim = self._claims.get(f"{namespace}/{name}")
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if claim.get("status", {}).get("phase") != "Bound":
                return "pod has unbound immediate PersistentVolumeClaims"
        return ""

    async def _bind(self, key: str, pod: Object, node: str) -> None:
        meta = pod["metadata"]
        binding = {
            "kind": "Binding",
            "apiVersion": "v1",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "target": {"kind": "Node", "name": node},
        }
        try:
            async with self._slots:
                await self._client.create(_POD, binding, subresource="binding")
        except (NotFound, Conflict):
            # Gone, or bound by somebody else: the informer tells which.
            self._forget(key)
        except (ApiError, OutcomeUnknown) as error:
            log.warning("Cannot bind pod: %s", error, extra={"pod": key, "node": node})
            self._forget(key)
        else:
            self._recorder.tell(reference(pod), "Normal", "Scheduled", f"Successfully assigned {key} to {node}")

    def _forget(self, key: str) -> None:
        """Takes an assumption back; the pod is tried again when it still waits."""
        if key not in self._assumed:
            return
        self._assumed.discard(key)
        node = self._placed.pop(key)
        self._snapshot = self._snapshot.without_pod(node, key)
        pod = self._pods.get(key)
        if pod is not None and _wants_node(pod):
            self._queue.add(key, int(pod["spec"].get("priority") or 0))
            self._queue.retry(key, self._clock.monotonic())
        self._wake.set()

    async def _preempt(self, pod: Object, answer: Preempt) -> None:
        """Names the node that will be free, then evicts; the pod is placed when the victims are gone."""
        await patch_status(self._client, pod, {"nominatedNodeName": answer.node})
        for victim in answer.victims:
            try:
                await self._client.delete(
                    _POD, objects.namespace(victim.obj), objects.name(victim.obj), uid=objects.uid(victim.obj)
                )
            except (NotFound, Conflict):
                continue
            except (ApiError, OutcomeUnknown) as error:
                log.warning("Cannot preempt pod: %s", error, extra={"pod": victim.key})
                continue
            by = f"Preempted by pod {objects.uid(pod)} on node {answer.node}"
            self._recorder.tell(reference(victim.obj), "Normal", "Preempted", by)


def _wants_node(pod: Object) -> bool:
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and not objects.is_deleting(pod)
        and spec.get("schedulerName", NAME) == NAME
        and not spec.get("schedulingGates")
    )


def _same_for_placing(old: Object, new: Object) -> bool:
    """True when others see no difference: a pod's status does not matter to them, but that it is going does."""
    return objects.is_deleting(old) == objects.is_deleting(new) and not _respecified(old, new)


def _respecified(old: Object, new: Object) -> bool:
    """True when a change of the pod may change where it fits: anything but its status."""
    return old["spec"] != new["spec"] or objects.labels(old) != objects.labels(new)


def _matters(old: Object, new: Object) -> bool:
    """True when a change of a node may change what fits on it: heartbeats do not."""
    if old.get("spec") != new.get("spec") or objects.labels(old) != objects.labels(new):
        return True
    before, after = old.get("status", {}), new.get("status", {})
    return any(before.get(part) != after.get(part) for part in ("allocatable", "images"))
