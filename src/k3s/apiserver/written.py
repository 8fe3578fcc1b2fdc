"""What every written object is held to and given, whatever its kind: name, revision, metadata, generation, managers."""

from __future__ import annotations

from collections.abc import Callable

from k3s.api import apply as fields
from k3s.api import custom, schema
from k3s.api.errors import ApiError, BadRequest, conflict, invalid
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.validation import validate_update
from k3s.api.validation.meta import told
from k3s.api.views import Views
from k3s.apiserver.considered import beside, considered
from k3s.apiserver.strategy import Cause, Context, Strategy

MODIFIED_MEANWHILE = "the object has been modified; please apply your changes to the latest version and try again"
#: What a creator cannot choose.
SERVER_OWNED = frozenset(
    {
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "selfLink",
    }
)


def with_namespace(context: Context, obj: Object) -> Object:
    """A new object with the namespace of its URL, none without one. Raises BadRequest when it names another."""
    meta = obj.get("metadata") or {}
    if meta.get("resourceVersion"):
        raise ApiError("resourceVersion should not be set on objects to be created", code=500)
    space = meta.get("namespace", "")
    if space != context.namespace:
        if space and context.namespace:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        meta = {key: value for key, value in meta.items() if key != "namespace"}
        meta = {**meta, "namespace": context.namespace} if context.namespace else meta
    return obj if meta is obj.get("metadata") else {**obj, "metadata": meta}


def check_identity(context: Context, new: Object) -> None:
    """An update cannot rename or move. Raises BadRequest."""
    meta = new.get("metadata") or {}
    name, space = meta.get("name", ""), meta.get("namespace", "")
    if not name:
        raise BadRequest(
            f"the name of the object ({context.name} based on URL) was undeterminable: name must be provided"
        )
    if name != context.name:
        raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({context.name})")
    if space and context.namespace and space != context.namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")


def check_revision(context: Context, strategy: Strategy, old: Object, new: Object) -> None:
    """An update that names a revision or a uid is about that one. Raises Conflict, Invalid."""
    kind, meta, before = context.kind, new["metadata"], old["metadata"]
    revision = meta.get("resourceVersion") or ""
    if revision in ("", "0"):
        if strategy.conditional_update and context.verb == "update":
            text = "Invalid value: 0: must be specified for an update"
            cause = {"reason": "FieldValueInvalid", "message": text, "field": "metadata.resourceVersion"}
            raise invalid(kind.group, kind.plural, context.name, [cause])
    elif not revision.isdigit():
        raise ApiError(f'strconv.ParseUint: parsing "{revision}": invalid syntax', code=500)
    elif revision != before.get("resourceVersion"):
        raise conflict(kind.group, kind.plural, context.name, MODIFIED_MEANWHILE)
    uid = meta.get("uid")
    if uid and uid != before["uid"] and context.verb == "update":
        why = (
            f"StorageError: invalid object, Code: 4, Key: {_shown_key(context)}, "
            f"ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, "
            f"UID in object meta: {before['uid']}"
        )
        raise conflict(kind.group, kind.plural, context.name, why)


def _shown_key(context: Context) -> str:
    """Where messages say that an object is stored: the groups of built-in kinds do not show."""
    kind = context.kind
    parts = ("/registry", kind.group if kind.custom else "", kind.plural, context.namespace, context.name)
    return "/".join(part for part in parts if part)


def with_kept_metadata(new: Object, old: Object) -> Object:
    """A changed object with the metadata that only the server sets; what was given otherwise is judged later."""
    before = old["metadata"]
    meta = dict(new["metadata"])
    meta.pop("selfLink", None)
    for key in ("uid", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if not meta.get(key) and key in before:
            meta[key] = before[key]
    for key in ("namespace", "creationTimestamp", "generation", "resourceVersion"):
        if key in before:
            meta[key] = before[key]
        else:
            meta.pop(key, None)
    return {**new, "metadata": meta}


def tracked(context: Context, old: Object | None, new: Object, views: Views) -> Object:
    """The object with the record of who changed which field; the record of before when nobody keeps one."""
    manager = context.field_manager
    if not manager:
        before = (old or {}).get("metadata", {}).get("managedFields")
        meta = new["metadata"]
        if meta.get("managedFields") == before:
            return new
        kept = {k: v for k, v in meta.items() if k != "managedFields"}
        return {**new, "metadata": {**kept, "managedFields": before} if before else kept}
    node = schema.definition_of(context.kind)
    return fields.track_update(node, old, new, manager, subresource=context.subresource, now=context.now, views=views)


def metadata_causes(kind: Kind, old: Object, new: Object) -> list[Cause]:
    """What is wrong with the metadata of an update."""
    causes = []
    for key in ("uid", "deletionTimestamp", "deletionGracePeriodSeconds"):
        was, is_now = old["metadata"].get(key), new["metadata"].get(key)
        if was != is_now:
            shown = f'"{is_now}"' if isinstance(is_now, str) else is_now
            text = f"Invalid value: {shown}: field is immutable"
            # By the rules of every update, and by those of the kind: clients count causes.
            causes += told(kind) * [{"reason": "FieldValueInvalid", "message": text, "field": f"metadata.{key}"}]
    return causes


def counted(context: Context, strategy: Strategy, old: Object, new: Object) -> Object:
    """A changed object with its next generation when its spec changed."""
    if not strategy.counts or not strategy.changed_spec(context, old, new):
        return new
    generation = (old["metadata"].get("generation") or 0) + 1
    return {**new, "metadata": {**new["metadata"], "generation": generation}}


def problems(context: Context, old: Object, new: Object) -> list[Cause]:
    """What the kind's rules say about a change by this path; parts with rules of their own are their strategy's."""
    kind = context.kind
    if kind.custom and kind.schema is not None and context.subresource == "status":
        causes = custom.check_status(kind.schema, new, old)
        scale = kind.subresources.get("scale")
        if scale is not None:
            causes += custom.scale(scale.paths, new, only_status=True)
        return causes + schema.broken_rules(kind.schema, new, old, causes)
    return validate_update(kind, old, new) if context.subresource in ("", "scale", "status") else []


async def judged(context: Context, work: Callable[[], list[Cause]]) -> list[Cause]:
    """What is wrong with an object; rules of custom kinds may take long on small ones, too."""
    if context.heavy or not context.kind.custom:
        return await beside(context.heavy, work)
    return await considered(work)
