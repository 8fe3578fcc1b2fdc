"""`/scale`: the number of replicas of a workload as autoscaling/v1 Scale, whatever the workload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from k3s.api import apply as fields
from k3s.api import owners, scaling, schema
from k3s.api.errors import ApiError, BadRequest, conflict, invalid
from k3s.api.kinds import Kind, builtin, split_api_version
from k3s.api.object import Object, evolve, get
from k3s.api.selectors import from_object
from k3s.apiserver import body as bodies
from k3s.apiserver.applying import asked
from k3s.apiserver.call import Call
from k3s.apiserver.crud import Outcome
from k3s.apiserver.reads import Reads
from k3s.apiserver.results import One, Result
from k3s.apiserver.strategy import Context, Excerpt
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
        change = self._change(scaled, context)
        places = self._places(call.kind)
        context.applied = True
        context.excerpt = Excerpt(
            lambda obj: scale_of(obj, call.kind), lambda obj, changed: scaled_to(context, obj, changed)
        )

        def produce(old: Object) -> Object:
            before = owners.read(old)
            live = owners.write(scale_of(old, call.kind), scaling.to_scale(before, places))
            wanted = change(live)
            new = scaled_to(context, old, wanted)
            if not context.field_manager:
                return new
            return owners.write(new, scaling.to_parent(before, owners.read(wanted), call.kind.api_version, places))

        outcome, _ = await self._writes.crud.update(context, produce)
        return One(SCALE, None, scale_of(self._object(call.kind, outcome), call.kind))

    def _change(self, call: Call, context: Context) -> Callable[[Object], Object]:
        """What a request makes of the Scale of the moment, owners included."""
        node, manager, views = (
            schema.definition_of(SCALE),
            context.field_manager,
            self._writes.crud.conversions.views(SCALE, {}),
        )
        part, now = context.subresource, context.now
        patch = self._writes.patcher(call, context) if context.verb == "patch" else None
        if context.verb == "patch" and patch is None:
            config = asked(call, context)

            def applied(live: Object) -> Object:
                new = fields.apply(
                    node, live, config, manager, force=context.force, subresource=part, now=now, views=views
                )
                return bodies.shaped(SCALE, new, "Ignore", [])

            return applied
        given = self._writes.object(call, context) if patch is None else {}

        def updated(live: Object) -> Object:
            new = bodies.shaped(SCALE, given if patch is None else patch.apply(live), "Ignore", [])
            if not manager:
                return new
            return fields.track_update(node, live, new, manager, subresource=part, now=now, views=views)

        return updated

    def _places(self, kind: Kind) -> scaling.Places:
        """Where the versions of a kind have their replicas."""

        def place(api_version: str) -> tuple[str, ...] | None:
            other = self._writes.registry.by_kind(*split_api_version(api_version), kind.kind)
            if other is None:
                return None
            return tuple("f:" + step for step in _paths(other)[0]) if "scale" in other.subresources else ()

        return place

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
    uid, own = meta.get("uid"), old["metadata"]["uid"]
    if uid and uid != own:
        kind = context.kind
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {own}"
        raise conflict(kind.group, f"{kind.plural}/scale", context.name, why)
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
