"""One pod, one snapshot, one answer: bind it, evict others for it, or say why it fits nowhere. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.scheduler import filters, scores
from k3s.scheduler.preemption import Victims, find_victims
from k3s.scheduler.snapshot import NodeFacts, PodFacts, Snapshot
from k3s.scheduler.spread import Context, context


@dataclass(frozen=True, slots=True)
class Bind:
    """Put the pod on this node."""

    node: str


@dataclass(frozen=True, slots=True)
class Preempt:
    """Evict these pods from the node, then try again."""

    node: str
    victims: tuple[PodFacts, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """The pod fits nowhere; `message` is what events and the pod's condition tell.

    `waits`: room was made for it already, on the node that its status names; the pods there are still ending.
    """

    message: str
    waits: bool = False


Answer = Bind | Preempt | Unschedulable


def place(
    pod: PodFacts,
    snapshot: Snapshot,
    namespaces: Mapping[str, Object],
    problem: str = "",
    turn: int = 0,
) -> Answer:
    """Where the pod goes. `problem` is a reason that holds for every node (a missing volume claim, for one).

    Among equally good nodes `turn` picks, so that equals take turns and a seed repeats itself.
    """
    nodes = list(snapshot.nodes.values())
    if not nodes:
        return Unschedulable("no nodes available to schedule pods")
    if problem:
        return Unschedulable(_no_nodes(len(nodes), [f"{problem}"], Counter()))
    counted = context(pod, snapshot, namespaces)
    fitting, refused = _split(pod, nodes, counted)
    if fitting:
        return Bind(_best(pod, fitting, counted, turn))
    reasons = Counter(reason for _, texts in refused.values() for reason in texts)
    message = _no_nodes(len(nodes), [], reasons)
    return _preempt(pod, snapshot, namespaces, refused, message)


Refusals = dict[str, tuple[filters.Filter, list[str]]]


def _split(pod: PodFacts, nodes: Sequence[NodeFacts], counted: Context) -> tuple[list[NodeFacts], Refusals]:
    fitting: list[NodeFacts] = []
    refused: Refusals = {}
    nominated = pod.obj.get("status", {}).get("nominatedNodeName")
    for node in nodes:
        check, reasons = filters.refusal(pod, node, counted)
        if check is None:
            if node.name == nominated:
                return [node], {}
            fitting.append(node)
        else:
            refused[node.name] = (check, reasons)
    return fitting, refused


def _best(pod: PodFacts, fitting: Sequence[NodeFacts], counted: Context, turn: int) -> str:
    if len(fitting) == 1:
        return fitting[0].name
    sums = scores.total(pod, fitting, counted)
    top = max(sums.values())
    equals = sorted(name for name, value in sums.items() if value >= top - 1e-9)
    return equals[turn % len(equals)]


def _no_nodes(count: int, everywhere: Sequence[str], reasons: Counter[str]) -> str:
    texts = [*everywhere, *sorted(f"{number} {reason}" for reason, number in reasons.items())]
    return f"0/{count} nodes are available: {', '.join(texts)}."


def _preempt(
    pod: PodFacts, snapshot: Snapshot, namespaces: Mapping[str, Object], refused: Refusals, message: str
) -> Answer:
    count = len(snapshot.nodes)
    hopeful = [name for name, (check, _) in refused.items() if check not in filters.UNRESOLVABLE]
    hopeless = count - len(hopeful)
    if pod.spec.get("preemptionPolicy") == "Never":
        reason = f"{count} Preemption is not helpful for scheduling"
        return Unschedulable(f"{message} preemption: 0/{count} nodes are available: {reason}.")
    if _room_is_made(pod, snapshot, hopeful):
        text = "not eligible due to a terminating pod on the nominated node"
        return Unschedulable(f"{message} preemption: {text}.", waits=True)
    found: Victims | None = find_victims(pod, snapshot, namespaces, hopeful)
    if found is not None:
        return Preempt(found.node, found.pods, message)
    texts = []
    if hopeful:
        texts.append(f"{len(hopeful)} No preemption victims found for incoming pod")
    if hopeless:
        texts.append(f"{hopeless} Preemption is not helpful for scheduling")
    return Unschedulable(f"{message} preemption: 0/{count} nodes are available: {', '.join(sorted(texts))}.")


def _room_is_made(pod: PodFacts, snapshot: Snapshot, hopeful: Sequence[str]) -> bool:
    """Whether pods that matter less are ending on the pod's nominated node: no others are evicted meanwhile."""
    nominated = pod.obj.get("status", {}).get("nominatedNodeName")
    if nominated not in hopeful:
        return False
    others = snapshot.nodes[nominated].pods.values()
    return any(other.priority < pod.priority and objects.is_deleting(other.obj) for other in others)
