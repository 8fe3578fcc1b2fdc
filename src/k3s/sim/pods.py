"""What must hold for pods at every moment: in the store, and on the nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from k3s.api import object as objects
from k3s.api.object import Object, decode
from k3s.base.clock import Clock
from k3s.kubelet.runtime.interface import Container
from k3s.sim.invariants import Findings
from k3s.store.interface import Event

_PODS = "/registry/core/pods/"
_SETS = {"/registry/apps/replicasets/": "replicas", "/registry/batch/jobs/": "parallelism"}
_FINISHED = ("Succeeded", "Failed")
# A controller may act on what was wanted so long ago: its watch lags, breaks, and backs off.
_STALE_S = 90.0


@dataclass(slots=True)
class Wanted:
    """How many pods an owner wanted, and since when: (time, count), newest last."""

    kind: str
    key: str
    counts: list[tuple[float, int]] = field(default_factory=list)

    def most(self, now: float) -> int:
        """The most that was wanted within the time that a controller may be behind."""
        recent = [count for at, count in self.counts if at >= now - _STALE_S]
        before = [count for at, count in self.counts if at < now - _STALE_S]
        return max([*recent, *before[-1:]], default=0)


class PodRules:
    """Sees every write and every start of a container."""

    def __init__(
        self, findings: Findings, clock: Clock, running: Callable[[], Mapping[str, Sequence[Container]]]
    ) -> None:
        self._findings = findings
        self._all_running = running
        self._clock = clock
        self._pods: dict[str, Object] = {}
        self._ever: dict[str, Object] = {}
        self._wanted: dict[str, Wanted] = {}
        self._active: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._started: dict[tuple[str, str], int] = {}
        self._addresses: dict[str, str] = {}
        self.created: defaultdict[str, int] = defaultdict(int)

    # -- the store

    def written(self, event: Event) -> None:
        """One write."""
        if event.key.startswith(_PODS):
            new = decode(event.value) if event.value is not None else None
            self._pod_written(event.key.removeprefix(_PODS), new)
            return
        for prefix, field_name in _SETS.items():
            if event.key.startswith(prefix) and event.value is not None:
                self._owner_written(decode(event.value), field_name)

    def _owner_written(self, owner: Object, field_name: str) -> None:
        uid = objects.uid(owner)
        wanted = self._wanted.get(uid)
        if wanted is None:
            wanted = self._wanted[uid] = Wanted(owner["kind"].lower(), objects.key(owner))
        count = int(owner["spec"].get(field_name, 1))
        if not wanted.counts or wanted.counts[-1][1] != count:
            # What stood until now was wanted until now.
            if wanted.counts:
                wanted.counts.append((self._clock.now(), wanted.counts[-1][1]))
            wanted.counts.append((self._clock.now(), count))

    def _pod_written(self, key: str, new: Object | None) -> None:
        old = self._pods.get(key)
        if new is None:
            self._pods.pop(key, None)
            if old is not None:
                self._inactive(old)
            return
        self._pods[key] = new
        self._ever[objects.uid(new)] = new
        if old is None:
            self._made(key, new)
        else:
            self._changed(key, old, new)
        if _active(new):
            self._address(key, new)
        else:
            self._inactive(new)

    def _made(self, key: str, pod: Object) -> None:
        owner = objects.controller_of(pod)
        if owner is None:
            return
        uid = owner["uid"]
        self.created[uid] += 1
        active = self._active[uid]
        active[objects.uid(pod)] = None
        wanted = self._wanted.get(uid)
        if wanted is not None and len(active) > (most := wanted.most(self._clock.now())):
            text = f"{len(active)} active pods after the creation of {key}, wanted are {most} at the most"
            self._findings.add("too many pods", wanted.key, text)

    def _inactive(self, pod: Object) -> None:
        owner = objects.controller_of(pod)
        if owner is not None:
            self._active[owner["uid"]].pop(objects.uid(pod), None)
        for address, uid in list(self._addresses.items()):
            if uid == objects.uid(pod):
                del self._addresses[address]

    def _changed(self, key: str, old: Object, new: Object) -> None:
        if objects.uid(old) != objects.uid(new):
            self._findings.add("replaced in place", key, f"{objects.uid(old)} became {objects.uid(new)}")
        node = old["spec"].get("nodeName")
        if node and new["spec"].get("nodeName") != node:
            self._findings.add("pod moved", key, f"from {node} to {new['spec'].get('nodeName')}")
        phase = _phase(old)
        if phase in _FINISHED and _phase(new) != phase:
            self._findings.add("end undone", key, f"phase {phase} became {_phase(new)}")
        if objects.is_deleting(old) and not objects.is_deleting(new):
            self._findings.add("deletion undone", key, "deletionTimestamp is gone")

    def _address(self, key: str, pod: Object) -> None:
        address = (pod.get("status") or {}).get("podIP")
        if not address or pod["spec"].get("hostNetwork"):
            return
        holder = self._addresses.setdefault(address, objects.uid(pod))
        if holder != objects.uid(pod):
            self._findings.add("one address, two pods", key, f"{address} is also that of pod {holder}")

    # -- the nodes

    def started(self, node: str, container: Container) -> None:
        """A container runs now."""
        uid, name = container.pod_uid, container.name
        key = f"{container.labels.get('io.kubernetes.pod.namespace')}/{container.labels.get('io.kubernetes.pod.name')}"
        pod = self._ever.get(uid)
        if pod is None:
            self._findings.add("unknown pod started", key, f"{uid} on {node} was never in the store")
            return
        if pod["spec"].get("nodeName") != node:
            self._findings.add("started on the wrong node", key, f"on {node}, bound to {pod['spec'].get('nodeName')}")
        count = self._started[uid, name] = self._started.get((uid, name), 0) + 1
        if pod["spec"].get("restartPolicy") == "Never" and count > 1:
            self._findings.add("started again", key, f"container {name}, though its restart policy is Never")

        twins: dict[tuple[str, str], tuple[str, Container]] = {}
        for place, found in self._all_running().items():
            for one in found:
                self._look_at(twins, place, one)

    def _look_at(self, twins: dict[tuple[str, str], tuple[str, Container]], node: str, container: Container) -> None:
        uid = container.pod_uid
        pod = self._ever.get(uid)
        if pod is None:
            return
        key = objects.key(pod)
        owner = objects.controller_of(pod)
        stateful = owner is not None and owner["kind"] == "StatefulSet"
        identity = (key if stateful else uid, container.name)
        other = twins.setdefault(identity, (node, container))
        if other[1] is not container:
            text = f"{container.name} runs as {uid} on {node} and as {other[1].pod_uid} on {other[0]}"
            self._findings.add("two pods where one is wanted", key, text)

    # -- for the checks at the end

    def pods(self) -> dict[str, Object]:
        """The pods in the store, by key."""
        return self._pods


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _active(pod: Object) -> bool:
    return not objects.is_deleting(pod) and _phase(pod) not in _FINISHED
