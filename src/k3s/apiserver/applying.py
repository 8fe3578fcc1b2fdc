"""Server-side apply as a verb: a PATCH that creates what is not there. The merge is `api.apply`. Source: KEP-555."""

from __future__ import annotations

from typing import Any

from k3s.api import apply as fields
from k3s.api import jsontext, yamltext
from k3s.api.errors import BadRequest
from k3s.api.kinds import Kind
from k3s.api.object import Object, remove
from k3s.api.schema import definition_of
from k3s.api.views import Views
from k3s.apiserver import body as bodies
from k3s.apiserver import resets
from k3s.apiserver.call import Call
from k3s.apiserver.considered import beside
from k3s.apiserver.crud import Crud, Outcome
from k3s.apiserver.strategy import Context
from k3s.base.message import Request


def configuration(request: Request, kind: Kind) -> Object:
    """The configuration in a request's body. Raises BadRequest."""
    value: Any = request.value
    if value is None:
        bodies.check_whole(request)
        value = bodies.apply_value(request.body)
    if not isinstance(value, dict):
        why = f"json: cannot unmarshal {jsontext.kind_of(value)} into Go value of type map[string]interface {{}}"
        raise BadRequest(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {why}")
    if value.get("apiVersion") != kind.api_version or value.get("kind") != kind.kind:
        version = value.get("apiVersion") or "/"
        shown = version if "/" in version else f"/{version}"
        raise BadRequest(f"invalid object type: {shown}, Kind={value.get('kind') or ''}")
    return value


def asked(call: Call, context: Context) -> Object:
    """What a call wants to apply. Raises BadRequest."""
    config = configuration(call.request, call.kind)
    call.sent(config)
    given = (config.get("metadata") or {}).get("name", "")
    if given and given != context.name:
        raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({context.name})")
    return config


def _read(call: Call, context: Context) -> tuple[Object, str]:
    """What a call wants to apply, and what is said of keys that it has twice. Raises BadRequest."""
    config = asked(call, context)
    return config, bodies.repeated(call.request, config) if context.field_validation != "Ignore" else ""


async def apply(crud: Crud, call: Call, context: Context) -> tuple[Outcome, bool]:
    """Applies the body of a call; tells whether the object was created. Raises Conflict, BadRequest, Invalid."""
    kind = call.kind
    config, twice = await beside(context.heavy, lambda: _read(call, context))
    node = definition_of(kind)
    reset = resets.paths(kind, context.subresource, config)
    context.applied = True

    def produced(old: Object | None, views: Views) -> Object:
        merged = fields.apply(
            node,
            old,
            config,
            context.field_manager,
            force=context.force,
            subresource=context.subresource,
            now=context.now,
            ignored=reset,
            views=views,
        )
        if twice and context.field_validation == "Strict":
            raise BadRequest(f"error strict decoding YAML: error converting YAML to JSON: {twice}")
        return bodies.shaped(kind, merged, "Ignore", context.warnings, old=old)

    async def produce(old: Object | None) -> Object:
        return await crud.conversions.viewing(kind, lambda views: produced(old, views), heavy=context.heavy)

    if twice and context.field_validation != "Strict":
        context.warnings.extend(yamltext.sentences(twice))
    if crud.cache.get(kind, context.namespace, context.name) is None and not context.subresource:
        made = remove(await produce(None), ("metadata", "resourceVersion"))
        made = {**made, "metadata": {**made["metadata"], "name": context.name}}
        return await crud.create(context, made), True
    outcome, _ = await crud.update(context, produce)
    return outcome, False
