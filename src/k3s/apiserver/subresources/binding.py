"""`/binding`: a pod gets its node, once. Also POST of a Binding to the namespace."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

from k3s.api import times
from k3s.api.errors import ApiError, BadRequest, Conflict
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver import body as bodies
from k3s.apiserver.call import Call
from k3s.apiserver.results import One, Result
from k3s.apiserver.strategy import Context
from k3s.apiserver.writes import Writes

POD = builtin("v1", "Pod")
CREATED: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


class Binding:
    """Sets spec.nodeName and the PodScheduled condition in one write."""

    def __init__(self, writes: Writes) -> None:
        self._writes = writes

    def __call__(self, call: Call) -> Result | Awaitable[Result]:
        return self._bind(call)

    async def _bind(self, call: Call) -> Result:
        context = self._writes.context(call, POD)
        value = bodies.read(call.request, "Binding")
        binding = bodies.of_kind(value, POD, self._writes.registry, ("v1", "Binding"))
        name = (binding.get("metadata") or {}).get("name", "")
        if not context.name:
            context.name = name
        elif name and name != context.name:
            raise BadRequest("name in URL does not match name in Binding object")
        target = binding.get("target") or {}
        kind = target.get("kind", "")
        if kind not in ("", "Node"):
            text = f'target.kind: Unsupported value: "{kind}": supported values: "Node", "<empty>"'
            raise ApiError(text, code=500)
        if not target.get("name"):
            raise ApiError("target.name: Required value", code=500)
        context.subresource, context.field_manager = "binding", ""  # where a pod runs is nobody's field
        posted = context if call.kind is POD else replace(context, kind=call.kind, subresource="")
        binding = await self._writes.crud.asked(posted, binding)
        await self._writes.crud.update(context, lambda pod: bound(context, pod, binding))
        return One(None, None, CREATED, 201)


def bound(context: Context, pod: Object, binding: Object) -> Object:
    """The pod on the node that a Binding names. Raises Conflict."""
    name, meta, spec = context.name, pod["metadata"], pod["spec"]
    given = binding.get("metadata") or {}
    for field, what in (("uid", "uid"), ("resourceVersion", "resourceVersion")):
        if given.get(field) and given[field] != meta.get(field):
            raise _conflict(
                name, f"Precondition failed: {what} in precondition: {given[field]}, in object: {meta[field]}"
            )
    if "deletionTimestamp" in meta:
        raise _conflict(name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise _conflict(name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise _conflict(name, f"pod {name} has non-empty .spec.schedulingGates")
    notes = {**(meta.get("annotations") or {}), **(given.get("annotations") or {})}
    status = pod.get("status") or {}
    others = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": times.format(context.now)}
    return {
        **pod,
        "metadata": {**meta, "annotations": notes} if notes else meta,
        "spec": {**spec, "nodeName": binding["target"]["name"]},
        "status": {**status, "conditions": [*others, scheduled]},
    }


def _conflict(name: str, why: str) -> Conflict:
    text = f'Operation cannot be fulfilled on pods/binding "{name}": {why}'
    return Conflict(text, {"name": name, "kind": "pods/binding"})
