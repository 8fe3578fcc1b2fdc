"""`/scale`: the number of replicas of a workload as autoscaling/v1 Scale, whatever the workload."""

from __future__ import annotations

from collections.abc import Awaitable

from k3s.api.errors import BadRequest, invalid
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object, evolve
from k3s.api.selectors import from_object
from k3s.apiserver import body as bodies
from k3s.apiserver.call import Call
from k3s.apiserver.crud import Outcome
from k3s.apiserver.reads import Reads
from k3s.apiserver.results import One, Result
from k3s.apiserver.strategy import Context
from k3s.apiserver.writes import Writes

SCALE = builtin("autoscaling/v1", "Scale")
_SHARED = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


class ScalePart:
    """Reads and writes spec.replicas."""

    def __init__(self, reads: Reads, writes: Writes) -> None:
        self._reads = reads
        self._writes = writes

    def __call__(self, call: Call) -> Result | Awaitable[Result]:
        info = call.target.info
        if info.verb == "get":
            found = self._reads.get(call.kind, call.namespace, info.name, {})
            assert isinstance(found, One) and found.item is not None
            return One(SCALE, None, scale_of(self._reads.as_kind(found.item, call.kind)))
        return self._write(call)

    async def _write(self, call: Call) -> Result:
        context = self._writes.context(call)
        scaled = Call(call.request, call.target, call.user, SCALE, call.media)
        scaled.warnings = call.warnings
        if call.target.info.verb == "patch":
            patch = self._writes.patcher(scaled, context)
            if patch is None:
                raise BadRequest("apply is not supported for a scale: use a merge patch or a PUT")
            change = patch.apply
        else:
            given = self._writes.object(scaled, context)

            def change(old: Object) -> Object:
                return given

        def produce(old: Object) -> Object:
            wanted = bodies.shaped(SCALE, change(scale_of(old)), "Ignore", [])
            return scaled_to(context, old, wanted)

        outcome, _ = await self._writes.crud.update(context, produce)
        return One(SCALE, None, scale_of(self._object(call.kind, outcome)))

    def _object(self, kind: Kind, outcome: Outcome) -> Object:
        if outcome.item is not None:
            return self._reads.as_kind(outcome.item, kind)
        assert outcome.obj is not None
        return outcome.obj


def scaled_to(context: Context, old: Object, wanted: Object) -> Object:
    """The workload with the replicas of a Scale. Raises BadRequest, Invalid."""
    meta = wanted["metadata"]
    name = meta.get("name", "")
    if name and name != context.name:
        raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({context.name})")
    replicas = (wanted.get("spec") or {}).get("replicas") or 0
    if replicas < 0:
        text = f"Invalid value: {replicas}: must be greater than or equal to 0"
        cause = {"reason": "FieldValueInvalid", "message": text, "field": "spec.replicas"}
        raise invalid("autoscaling", "Scale", context.name, [cause])
    new = evolve(old, ("spec", "replicas"), replicas)
    revision = meta.get("resourceVersion", "")
    return evolve(new, ("metadata", "resourceVersion"), revision) if revision else new


def scale_of(obj: Object) -> Object:
    """The Scale of a workload."""
    meta = {key: obj["metadata"][key] for key in _SHARED if key in obj["metadata"]}
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    selector = spec.get("selector")
    if isinstance(selector, dict) and ("matchLabels" in selector or "matchExpressions" in selector):
        text = str(from_object(selector))
    else:
        text = ",".join(f"{key}={value}" for key, value in sorted((selector or {}).items()))
    replicas = spec.get("replicas", 0)
    told = {"replicas": status.get("replicas", 0)}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": replicas} if replicas else {},
        "status": {**told, "selector": text} if text else told,
    }
