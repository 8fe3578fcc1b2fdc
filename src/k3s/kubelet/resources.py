"""How a pod's requests and limits become what the kernel knows: class, shares, quota, limits, scores and cgroup paths.

Pure. Sources of the numbers: the quality-of-service API documentation and the kubelet's constants (shares from 2 to
262144, period 100 ms, quota of at least 1 ms, scores -997, 3 to 999, and 1000).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import quantity
from k3s.api.object import Object, get

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
ROOT = "/kubepods"
PERIOD_US = 100_000

_MIN_SHARES, _MAX_SHARES = 2, 262_144
_MIN_QUOTA_US = 1000
_CRITICAL = 2_000_000_000  # the priority from which a pod is one that the node needs


def containers(pod: Object) -> list[Object]:
    """The init containers and then the containers."""
    spec = pod["spec"]
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def amounts(container: Object, which: str) -> dict[str, int]:
    """`requests` or `limits` of a container: cpu in milli-units, everything else in whole ones.

    A request that is missing is the limit, as defaulting has it.
    """
    resources = container.get("resources") or {}
    chosen = dict(resources.get(which) or {})
    if which == "requests":
        chosen = {**(resources.get("limits") or {}), **chosen}
    return {name: quantity.milli(str(v)) if name == "cpu" else quantity.value(str(v)) for name, v in chosen.items()}


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort; pod-level resources decide alone when they are set."""
    levels = [pod["spec"]] if (pod["spec"].get("resources") or {}) else containers(pod)
    any_set = False
    guaranteed = True
    for level in levels:
        requests, limits = amounts(level, "requests"), amounts(level, "limits")
        for name in ("cpu", "memory"):
            if requests.get(name) or limits.get(name):
                any_set = True
            if not limits.get(name) or requests.get(name) != limits.get(name):
                guaranteed = False
    if not any_set:
        return BEST_EFFORT
    return GUARANTEED if guaranteed else BURSTABLE


def cpu_shares(milli: int) -> int:
    """cpu.shares for a request in milli-cores."""
    return min(_MAX_SHARES, max(_MIN_SHARES, milli * 1024 // 1000)) if milli else _MIN_SHARES


def cpu_weight(shares: int) -> int:
    """cpu.weight of cgroup version 2 for version 1's shares (the mapping of the OCI runtimes)."""
    return 1 + ((shares - 2) * 9999) // 262_142


def cpu_quota(milli: int, period_us: int = PERIOD_US) -> int:
    """Microseconds of processor time in each period for a limit in milli-cores; 0 for no limit."""
    return max(_MIN_QUOTA_US, milli * period_us // 1000) if milli else 0


def is_critical(pod: Object) -> bool:
    """Whether the node needs the pod: its priority is one of the system's."""
    return int(pod["spec"].get("priority") or 0) >= _CRITICAL


def oom_score(pod: Object, container: Object, memory_capacity: int) -> int:
    """oom_score_adj: the more of its request a container is likely to exceed, the earlier it goes."""
    if is_critical(pod):
        return -997
    quality = qos_class(pod)
    if quality == GUARANTEED:
        return -997
    if quality == BEST_EFFORT:
        return 1000
    request = amounts(container, "requests").get("memory", 0)
    return max(3, min(999, 1000 - 1000 * request // max(1, memory_capacity)))


def cgroup_parent(pod: Object) -> str:
    """The pod's cgroup below the root of each hierarchy (driver cgroupfs)."""
    quality = qos_class(pod)
    folder = ROOT if quality == GUARANTEED else f"{ROOT}/{quality.lower()}"
    return f"{folder}/pod{pod['metadata']['uid']}"


def container_resources(pod: Object, container: Object, memory_capacity: int) -> dict[str, Any]:
    """LinuxContainerResources of the runtime interface for one container."""
    requests, limits = amounts(container, "requests"), amounts(container, "limits")
    made: dict[str, Any] = {
        "cpu_shares": cpu_shares(requests.get("cpu", 0)),
        "oom_score_adj": oom_score(pod, container, memory_capacity),
    }
    if limits.get("cpu"):
        made |= {"cpu_period": PERIOD_US, "cpu_quota": cpu_quota(limits["cpu"])}
    if limits.get("memory"):
        # No swap beyond the memory limit, as long as swap is not asked for.
        made |= {"memory_limit_in_bytes": limits["memory"], "memory_swap_limit_in_bytes": limits["memory"]}
    return made


def _peak(pod: Object, which: str, name: str) -> tuple[int, bool]:
    """The most of a resource that the pod holds at once, and whether every container names an amount.

    Init containers run one after the other beside the sidecars that were started before them (KEP-753).
    """
    complete = True
    sidecars = highest = 0
    for container in pod["spec"].get("initContainers") or ():
        amount = amounts(container, which).get(name, 0)
        complete = complete and bool(amount)
        if container.get("restartPolicy") == "Always":
            sidecars += amount
            highest = max(highest, sidecars)
        else:
            highest = max(highest, sidecars + amount)
    main = 0
    for container in pod["spec"].get("containers") or ():
        amount = amounts(container, which).get(name, 0)
        complete = complete and bool(amount)
        main += amount
    return max(highest, sidecars + main), complete


def pod_limits(pod: Object) -> dict[str, int]:
    """What the pod's own cgroup gets: `cpu_shares`; `cpu_quota` and `memory` when all its containers have limits."""
    level = pod["spec"] if pod["spec"].get("resources") else None
    overhead = amounts({"resources": {"limits": pod["spec"].get("overhead") or {}}}, "limits")

    def total(which: str, name: str) -> tuple[int, bool]:
        if level is not None and name in amounts(level, which):
            return amounts(level, which)[name], True
        amount, complete = _peak(pod, which, name)
        return amount + overhead.get(name, 0), complete

    made = {"cpu_shares": cpu_shares(total("requests", "cpu")[0])}
    for name, key in (("cpu", "cpu_quota"), ("memory", "memory")):
        amount, complete = total("limits", name)
        if complete and amount:
            made[key] = cpu_quota(amount) if name == "cpu" else amount
    return made


def burstable_shares(pods: list[Object]) -> int:
    """cpu.shares of the burstable class: what its pods ask for together."""
    milli = sum(_peak(pod, "requests", "cpu")[0] for pod in pods if qos_class(pod) == BURSTABLE)
    return cpu_shares(milli)


def resource_field(pod: Object, container_name: str, ref: Mapping[str, Any], node: Mapping[str, int]) -> str:
    """The text of a resourceFieldRef; an absent limit is what the node has. Raises KeyError for an unknown container.

    `node` is the allocatable amounts with cpu in milli-units. The result is in units of the divisor, rounded up.
    """
    name = ref.get("containerName") or container_name
    container = next(c for c in containers(pod) if c["name"] == name)
    which, _, resource = str(ref["resource"]).partition(".")
    amount = amounts(container, which).get(resource, 0)
    if not amount and which == "limits":
        amount = node.get(resource, 0)
    divisor = str(ref.get("divisor") or "0")
    scale = quantity.milli(divisor) if resource == "cpu" else quantity.value(divisor)
    if not scale:
        scale = 1000 if resource == "cpu" else 1
    return str(-(-amount // scale))


def ephemeral_limit(container: Object) -> int:
    """The limit of local storage in bytes, 0 when there is none."""
    limits = get(container, "resources", "limits", default={}) or {}
    return quantity.value(str(limits["ephemeral-storage"])) if "ephemeral-storage" in limits else 0
