"""The status of a pod as everyone sees it: phase, conditions and the state of each container.

Pure. `pod_status` takes what the kubelet knows and the status that the API server has (for conditions that others own
and for the times of transitions). Source of names, reasons and messages: the Pod API and the behaviour of the kubelet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k3s.api import times
from k3s.api.object import Object
from k3s.kubelet import containers, resources
from k3s.kubelet.containers import INIT, MAIN, SIDECAR, Run
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Container

PENDING, RUNNING, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"
_OWN = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
_LOST = "The container could not be located when the pod was terminated"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a status is made of beside the containers. `terminal`: nothing runs any more and nothing will."""

    host_ips: tuple[str, ...]
    started_at: float
    pod_ips: tuple[str, ...] = ()
    sandbox_ready: bool = False
    initialized: bool = False
    terminal: bool = False
    reason: str = ""
    message: str = ""
    failed: bool = False
    messages: Mapping[str, str] | None = None  # container id -> termination message


def pod_status(pod: Object, runs: Mapping[str, Run], facts: Facts, now: float, old: Object) -> Object:
    """The status of `pod`; `old` is the one that was published last (or by others)."""
    groups: dict[str, list[Object]] = {"init": [], "main": [], "ephemeral": []}
    before = _ended_before(old)
    for kind, container in containers.specs(pod):
        run = runs.get(container["name"], Run())
        group = "init" if kind in (INIT, SIDECAR) else "main" if kind == MAIN else "ephemeral"
        if run.current is None and run.last is None and run.waiting is None and container["name"] in before:
            groups[group].append(before[container["name"]])
            continue
        groups[group].append(_container_status(pod, kind, container, run, facts))
    chosen = FAILED if facts.failed and facts.terminal else phase(pod, groups["init"], groups["main"], facts.terminal)
    # A pod has ended only when nothing of it runs any more, sidecars included; and then it does not come back.
    if chosen in (SUCCEEDED, FAILED) and not facts.terminal:
        chosen = old.get("phase") or PENDING
    if old.get("phase") in (SUCCEEDED, FAILED):
        chosen = old["phase"]
    generation = pod["metadata"].get("generation")
    status: Object = {
        "phase": chosen,
        "conditions": _conditions(pod, groups, facts, chosen, now, old),
        "hostIP": facts.host_ips[0] if facts.host_ips else "",
        "hostIPs": [{"ip": ip} for ip in facts.host_ips],
        "startTime": times.format(facts.started_at),
        "containerStatuses": groups["main"],
        "qosClass": old.get("qosClass") or resources.qos_class(pod),
    }
    if generation:
        status["observedGeneration"] = generation
    ips = facts.host_ips if pod["spec"].get("hostNetwork") else facts.pod_ips
    if ips:
        status |= {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
    if groups["init"]:
        status["initContainerStatuses"] = groups["init"]
    if groups["ephemeral"]:
        status["ephemeralContainerStatuses"] = groups["ephemeral"]
    if facts.reason:
        status["reason"] = facts.reason
    if facts.message:
        status["message"] = facts.message
    return status


def phase(pod: Object, inits: Sequence[Object], mains: Sequence[Object], terminal: bool) -> str:
    """Pending, Running, Succeeded or Failed, from the states of the containers."""
    never = pod["spec"].get("restartPolicy") == "Never"
    always = (pod["spec"].get("restartPolicy") or "Always") == "Always"
    sidecars = {c["name"] for kind, c in containers.specs(pod) if kind == SIDECAR}
    pending = failed = False
    for status in inits:
        state, last = status["state"], status["lastState"]
        if status["name"] in sidecars:
            pending = pending or ("running" in state and not status["started"]) or ("waiting" in state and not last)
        elif "terminated" in state:
            failed = failed or state["terminated"]["exitCode"] != 0
        elif "waiting" in state and last:
            failed = failed or last["terminated"]["exitCode"] != 0
            pending = True
        else:
            pending = True
    if failed and (never or terminal):
        return FAILED
    waiting = sum("waiting" in s["state"] and not s["lastState"] for s in mains)
    running = sum("running" in s["state"] for s in mains)
    ended = [
        s["state"].get("terminated") or s["lastState"].get("terminated") for s in mains if "running" not in s["state"]
    ]
    codes = [e["exitCode"] for e in ended if e]
    if failed or (pending and not (running or codes)) or waiting:
        return FAILED if terminal and codes and not running else PENDING
    if running:
        return RUNNING
    if not codes:
        return PENDING
    good = all(code == 0 for code in codes)
    if terminal:
        return SUCCEEDED if good else FAILED
    if always:
        return RUNNING
    if good:
        return SUCCEEDED
    return FAILED if never else RUNNING


def _container_status(pod: Object, kind: str, container: Object, run: Run, facts: Facts) -> Object:
    name = container["name"]
    state, last = _states(pod, kind, run, facts)
    known = run.current or run.last
    ready = run.running and run.ready
    if kind == INIT:
        ready = run.exited and run.current is not None and run.current.exit_code == 0
    status: Object = {
        "name": name,
        "state": state,
        "lastState": last,
        "ready": ready,
        "restartCount": run.restarts,
        "image": _image(container, run.current),
        "imageID": known.image_id if known else "",
        "started": run.running and run.started,
    }
    if known:
        status["containerID"] = f"containerd://{known.id}"
    if kind == INIT:
        status["started"] = run.running
    if mounts := container.get("volumeMounts"):
        status["volumeMounts"] = [_mount(mount) for mount in mounts]
    if wanted := container.get("resources"):
        status["resources"] = wanted
        if wanted.get("requests"):
            status["allocatedResources"] = wanted["requests"]
    return status


def _ended_before(old: Object) -> dict[str, Object]:
    """What was published of containers that had ended: it stays true when the runtime has forgotten them."""
    listed = [*(old.get("initContainerStatuses") or ()), *(old.get("containerStatuses") or ())]
    return {status["name"]: status for status in listed if "terminated" in (status.get("state") or {})}


def _image(container: Object, known: Container | None) -> str:
    # The runtime names an image by its digest when it was started by it: the name that was asked for says more.
    if known is None or known.image.startswith("sha256:"):
        return str(container.get("image", ""))
    return known.image


def _mount(mount: Object) -> Object:
    made = {key: mount[key] for key in ("name", "mountPath", "readOnly") if mount.get(key)}
    if mount.get("readOnly"):
        made["recursiveReadOnly"] = "Disabled"
    return made


def _states(pod: Object, kind: str, run: Run, facts: Facts) -> tuple[Object, Object]:
    """The state and the last state of a container."""
    last = {"terminated": _terminated(run.last, facts)} if run.last is not None else {}
    current = run.current
    if run.running and current is not None:
        return {"running": {"startedAt": times.format(current.started_at)}}, last
    if current is not None and current.state == cri.EXITED:
        ended = {"terminated": _terminated(current, facts)}
        if run.waiting is not None and not facts.terminal:
            return {"waiting": _waiting(*run.waiting)}, ended
        return ended, last
    if facts.terminal and facts.initialized and kind in (MAIN, SIDECAR):
        return {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": _LOST}}, last
    if run.waiting is not None:
        return {"waiting": _waiting(*run.waiting)}, last
    default = "PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating"
    return {"waiting": {"reason": default}}, last


def _waiting(reason: str, message: str) -> Object:
    return {"reason": reason, "message": message} if message else {"reason": reason}


def _terminated(ended: Container, facts: Facts) -> Object:
    reason = ended.reason or ("Completed" if ended.exit_code == 0 else "Error")
    made: Object = {
        "exitCode": ended.exit_code,
        "reason": reason,
        "startedAt": times.format(ended.started_at or ended.created_at),
        "finishedAt": times.format(ended.finished_at),
        "containerID": f"containerd://{ended.id}",
    }
    message = (facts.messages or {}).get(ended.id) or ended.message
    if message:
        made["message"] = message
    return made


def _conditions(
    pod: Object, groups: Mapping[str, list[Object]], facts: Facts, chosen: str, now: float, old: Object
) -> list[Object]:
    known = {c["type"]: c for c in old.get("conditions") or ()}
    ready = _containers_ready(pod, groups, chosen)
    made = [
        ("PodReadyToStartContainers", facts.sandbox_ready and not facts.terminal, "", ""),
        ("Initialized", *_initialized(pod, groups["init"], facts, chosen)),
        ("Ready", *_ready(pod, ready, known)),
        ("ContainersReady", *ready),
        ("PodScheduled", True, "", ""),
    ]
    conditions: list[Object] = []
    for kind, holds, reason, message in made:
        condition: Object = {"type": kind, "status": "True" if holds else "False", "lastProbeTime": None}
        before = known.get(kind)
        same = before is not None and before.get("status") == condition["status"] and before.get("lastTransitionTime")
        condition["lastTransitionTime"] = before["lastTransitionTime"] if same and before else times.format(now)
        if reason:
            condition["reason"] = reason
        if message:
            condition["message"] = message
        if pod["metadata"].get("generation"):
            condition["observedGeneration"] = pod["metadata"]["generation"]
        conditions.append(condition)
    return conditions + [c for kind, c in known.items() if kind not in _OWN]


Verdict = tuple[bool, str, str]


def _initialized(pod: Object, inits: Sequence[Object], facts: Facts, chosen: str) -> Verdict:
    if chosen == SUCCEEDED:
        return True, "PodCompleted", ""
    if facts.initialized or not inits:
        return True, "", ""
    sidecars = {c["name"] for kind, c in containers.specs(pod) if kind == SIDECAR}
    open_ones = [s["name"] for s in inits if not (s["started"] if s["name"] in sidecars else s["ready"])]
    if not open_ones:
        return True, "", ""
    return False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(open_ones)}]"


def _containers_ready(pod: Object, groups: Mapping[str, list[Object]], chosen: str) -> Verdict:
    if chosen == SUCCEEDED:
        return False, "PodCompleted", ""
    if chosen == FAILED:
        return False, "PodFailed", ""
    sidecars = {c["name"] for kind, c in containers.specs(pod) if kind == SIDECAR}
    counted = [*(s for s in groups["init"] if s["name"] in sidecars), *groups["main"]]
    unready = [s["name"] for s in counted if not s["ready"]]
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    return True, "", ""


def _ready(pod: Object, ready: Verdict, known: Mapping[str, Object]) -> Verdict:
    """Ready is ContainersReady and every readiness gate (KEP-580)."""
    if not ready[0]:
        return ready
    problems: list[str] = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in known:
            problems.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif known[kind].get("status") != "True":
            problems.append(f'the status of pod readiness gate "{kind}" is not "True", but {known[kind].get("status")}')
    if problems:
        return False, "ReadinessGatesNotReady", ", ".join(problems)
    return True, "", ""


def changes(old: Any, new: Any) -> Any:
    """The merge patch that makes `old` into `new`: null for a key that goes, lists whole."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif old[key] != value:
            both = isinstance(value, dict) and isinstance(old[key], dict)
            patch[key] = changes(old[key], value) if both else value
    return patch
