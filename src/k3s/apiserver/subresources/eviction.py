"""`/eviction`: a delete that disruption budgets may refuse. Source: "API-initiated Eviction" in the documentation."""

from __future__ import annotations

from collections.abc import Awaitable

from k3s.api import times
from k3s.api.errors import ApiError, BadRequest, InternalError, TooManyRequests
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.api.selectors import from_object
from k3s.apiserver import body as bodies
from k3s.apiserver import deletion
from k3s.apiserver.call import Call
from k3s.apiserver.results import One, Result
from k3s.apiserver.strategy import Context
from k3s.apiserver.subresources.binding import CREATED, POD
from k3s.apiserver.writes import Writes

BUDGET = builtin("policy/v1", "PodDisruptionBudget")
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_RETRY_S = 10
# A budget that has this many evictions under way waits for its controller.
_MAX_DISRUPTED = 2000


class Eviction:
    """Counts the budget down, then deletes the pod."""

    def __init__(self, writes: Writes) -> None:
        self._writes = writes

    def __call__(self, call: Call) -> Result | Awaitable[Result]:
        return self._evict(call)

    async def _evict(self, call: Call) -> Result:
        context = self._writes.context(call)
        value = bodies.read(call.request, "Eviction")
        if isinstance(value, dict) and value.get("apiVersion") == "policy/v1beta1":
            value = {**value, "apiVersion": "policy/v1"}
        eviction = bodies.of_kind(value, POD, self._writes.registry, ("policy/v1", "Eviction"))
        name = (eviction.get("metadata") or {}).get("name", "")
        if name and name != context.name:
            raise BadRequest("name in URL does not match name in Eviction object")
        options = deletion.parse(eviction.get("deleteOptions"), {})
        context.dry_run = context.dry_run or options.dry_run
        crud = self._writes.crud
        await crud.asked(context, eviction)
        pod = crud.cache.get(POD, context.namespace, context.name)
        if pod is not None and not _free(pod):
            await self._count_down(context, pod)
        context.subresource = ""
        await crud.delete(context, options, lambda pod: disrupted(pod, context.now), admitted=True)
        return One(None, None, CREATED, 201)

    async def _count_down(self, context: Context, pod: Object) -> None:
        crud = self._writes.crud
        labels = pod["metadata"].get("labels") or {}
        budgets = [b for b in crud.cache.list(BUDGET, context.namespace) if _covers(b, labels)]
        if len(budgets) > 1:
            raise InternalError(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        if not budgets:
            return
        name = budgets[0]["metadata"]["name"]

        def mutate(budget: Object | None) -> Object | None:
            return budget if budget is None else counted_down(budget, pod, context.now)

        await crud.commit(BUDGET, context.namespace, name, mutate, dry_run=context.dry_run)


def _free(pod: Object) -> bool:
    """Pods that serve nobody are evicted whatever the budget."""
    phase = (pod.get("status") or {}).get("phase", "")
    return phase in ("Succeeded", "Failed", "Pending") or "deletionTimestamp" in pod["metadata"]


def _covers(budget: Object, labels: dict[str, str]) -> bool:
    selector = (budget.get("spec") or {}).get("selector")
    return selector is not None and from_object(selector).matches(labels)


def counted_down(budget: Object, pod: Object, now: float) -> Object:
    """The budget with one disruption less; itself when the pod does not count. Raises TooManyRequests, ApiError."""
    meta, status = budget["metadata"], budget.get("status") or {}
    name = meta["name"]
    if not _ready(pod):
        policy = (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy", "IfHealthyBudget")
        healthy, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
        if policy == "AlwaysAllow" or (healthy >= desired and desired > 0):
            return budget
    if status.get("observedGeneration", 0) < meta.get("generation", 0):
        raise _refuse(f"The disruption budget {name} is still being processed by the server.", _RETRY_S)
    allowed = status.get("disruptionsAllowed", 0)
    if allowed < 0:
        raise ApiError("pdb disruptions allowed is negative", code=403, reason="Forbidden")
    disrupted = status.get("disruptedPods") or {}
    if len(disrupted) > _MAX_DISRUPTED:
        raise ApiError("DisruptedPods map too big - too many evictions not confirmed by PDB controller", code=403)
    if allowed == 0:
        needed, now_healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        raise _refuse(f"The disruption budget {name} needs {needed} healthy pods and has {now_healthy} currently", None)
    disrupted = {**disrupted, pod["metadata"]["name"]: times.format(now)}
    status = {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": disrupted}
    return {**budget, "status": _exhausted(status, now) if allowed == 1 else status}


def _exhausted(status: Object, now: float) -> Object:
    """The status of a budget that allows no more, which its condition says at once."""
    before = next((c for c in status.get("conditions") or () if c.get("type") == "DisruptionAllowed"), None)
    since = before["lastTransitionTime"] if before and before.get("status") == "False" else times.format(now)
    condition = {
        "type": "DisruptionAllowed",
        "status": "False",
        "observedGeneration": status.get("observedGeneration", 0),
        "lastTransitionTime": since,
        "reason": "InsufficientPods",
        "message": "",
    }
    if before is None:
        conditions = [*(status.get("conditions") or ()), condition]
    else:
        conditions = [condition if c is before else c for c in status["conditions"]]
    return {**status, "conditions": conditions}


def disrupted(pod: Object, now: float) -> Object:
    """The pod with the condition that says why it ends."""
    status = pod.get("status") or {}
    others = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionTarget"]
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": times.format(now),
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    return {**pod, "status": {**status, "conditions": [*others, condition]}}


def _ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _refuse(why: str, retry_s: int | None) -> TooManyRequests:
    causes = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    return TooManyRequests(_REFUSED, causes, retry_after_s=retry_s)
