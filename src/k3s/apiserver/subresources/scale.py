"""`/scale`: the number of replicas of a workload as autoscaling/v1 Scale, whatever the workload."""

from __future__ import annotations

from collections.abc import Awaitable

from k3s.api.apply import apply
from k3s.api.errors import ApiError, BadRequest, invalid
from k3s.api.fieldset import Path
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object, evolve, get
from k3s.api.schema import definition_of
from k3s.api.selectors import from_object
from k3s.apiserver import body as bodies
from k3s.apiserver.applying import asked
from k3s.apiserver.call import Call
from k3s.apiserver.crud import Outcome
from k3s.apiserver.reads import Reads
from k3s.apiserver.results import One, Result
from k3s.apiserver.strategy import Context
from k3s.apiserver.subresources.scaleowners import in_scale, in_workload
from k3s.apiserver.writes import Writes

SCALE = builtin("autoscaling/v1", "Scale")
_USUAL = (("spec", "replicas"), ("status", "replicas"), ("spec", "selector"))
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
            return self._shown(call.kind, found) if isinstance(found, One) else self._shown_later(call.kind, found)
        return self._write(call)

    def _shown(self, kind: Kind, found: One) -> One:
        assert found.item is not None
        return One(SCALE, None, shown(kind, self._reads.as_kind(found.item, kind)))

    async def _shown_later(self, kind: Kind, found: Awaitable[One]) -> One:
        return self._shown(kind, await found)

    async def _write(self, call: Call) -> Result:
        context = self._writes.context(call)
        scaled = Call(call.request, call.target, call.user, SCALE, call.media)
        scaled.warnings = call.warnings
        if call.target.info.verb == "patch":
            patch = self._writes.patcher(scaled, context)
            if patch is None:
                return await self._apply(scaled, call.kind, context)
            change = patch.apply
        else:
            given = self._writes.object(scaled, context)

            def change(old: Object) -> Object:
                return given

        def produce(old: Object) -> Object:
            wanted = bodies.shaped(SCALE, change(scale_of(old, call.kind)), "Ignore", [])
            return scaled_to(context, old, wanted)

        outcome, _ = await self._writes.crud.update(context, produce)
        return One(SCALE, None, scale_of(self._object(call.kind, outcome), call.kind))

    async def _apply(self, call: Call, kind: Kind, context: Context) -> Result:
        """Applies a Scale. Raises Conflict, BadRequest, Invalid."""
        config = asked(call, context)
        context.applied = True
        places = self._places(kind)

        def produce(old: Object) -> Object:
            owners = old["metadata"].get("managedFields") or []
            before = evolve(scale_of(old, kind), ("metadata", "managedFields"), in_scale(owners, places))
            node, who = definition_of(SCALE), context.field_manager
            merged = apply(node, before, config, who, force=context.force, subresource="scale", now=context.now)
            wanted = bodies.shaped(SCALE, merged, "Ignore", [])
            mine = in_workload(owners, merged["metadata"].get("managedFields") or [], places, kind.api_version)
            return evolve(scaled_to(context, old, wanted), ("metadata", "managedFields"), mine)

        outcome, _ = await self._writes.crud.update(context, produce)
        return One(SCALE, None, scale_of(self._object(kind, outcome), kind))

    def _places(self, kind: Kind) -> dict[str, Path]:
        """Where each version of a kind keeps the number of replicas, as managedFields have it."""
        rows = [row for row in self._writes.registry.all() if row.storage_prefix == kind.storage_prefix]
        return {row.api_version: tuple(f"f:{part}" for part in _paths(row)[0]) for row in rows}

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
    if replicas < 0 and not context.kind.custom:
        text = f"Invalid value: {replicas}: must be greater than or equal to 0"
        cause = {"reason": "FieldValueInvalid", "message": text, "field": "spec.replicas"}
        raise invalid("autoscaling", "Scale", context.name, [cause])
    new = evolve(old, _paths(context.kind)[0], replicas)
    revision = meta.get("resourceVersion", "")
    return evolve(new, ("metadata", "resourceVersion"), revision) if revision else new


def shown(kind: Kind, obj: Object) -> Object:
    """The Scale of a workload. Raises InternalError when a custom one does not say how many it wants."""
    path = _paths(kind)[0]
    if kind.custom and get(obj, *path) is None:
        why = f'the spec replicas field ".{".".join(path)}" does not exist'
        details = {"causes": [{"message": why}]}
        raise ApiError(f"Internal error occurred: {why}", details, code=500, reason="InternalError")
    return scale_of(obj, kind)


def _paths(kind: Kind) -> tuple[tuple[str, ...], ...]:
    part = kind.subresources.get("scale")
    return (part.paths if part is not None else ()) or _USUAL


def scale_of(obj: Object, kind: Kind) -> Object:
    """The Scale of a workload."""
    meta = {key: obj["metadata"][key] for key in _SHARED if key in obj["metadata"]}
    wanted, current, chosen = _paths(kind)
    selector = get(obj, *chosen) if chosen else None
    if isinstance(selector, str):
        text = selector
    elif isinstance(selector, dict) and ("matchLabels" in selector or "matchExpressions" in selector):
        text = str(from_object(selector))
    else:
        text = ",".join(f"{key}={value}" for key, value in sorted((selector or {}).items()))
    replicas = _number(obj, wanted)
    told = {"replicas": _number(obj, current)}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": replicas} if replicas else {},
        "status": {**told, "selector": text} if text else told,
    }


def _number(obj: Object, path: tuple[str, ...]) -> int:
    value = get(obj, *path)
    return value if isinstance(value, int) else 0
