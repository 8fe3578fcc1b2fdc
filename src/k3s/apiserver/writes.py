"""The writing verbs: from a call to the write path, and from its outcome to a result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from sys import intern
from typing import Any, NamedTuple, Protocol

from k3s.api.errors import ApiError, MethodNotAllowed, NotFound, UnsupportedMediaType, invalid
from k3s.api.kinds import Kind, Registry
from k3s.api.object import Object, encode
from k3s.api.owners import MANAGER_LIMIT
from k3s.apiserver import body as bodies
from k3s.apiserver import deletion, identity, options, written
from k3s.apiserver.call import Call
from k3s.apiserver.considered import HEAVY, beside
from k3s.apiserver.crud import Crud, Outcome
from k3s.apiserver.definitions import DEFINITION, is_terminating
from k3s.apiserver.identity import User
from k3s.apiserver.pending import Pending, again
from k3s.apiserver.reads import scope_of
from k3s.apiserver.request import truth
from k3s.apiserver.results import Many, One, Result
from k3s.apiserver.strategy import Context
from k3s.base.aio import begun
from k3s.base.clock import Clock

Subresource = Callable[["Call"], "Result | Awaitable[Result]"]


class Answers(Protocol):
    """Kinds that are only answers (see `apiserver.virtual`)."""

    def answers(self, kind: Kind) -> bool:
        """Whether a kind is one of them."""

    def create(self, kind: Kind, obj: Object, user: User, namespace: str = "") -> Object:
        """The answer; raises ApiError, Pending."""


class Patcher(NamedTuple):
    """A patch: its type (json, merge, strategic), its value, and what it makes of an object."""

    type: str
    value: Any
    apply: Callable[[Object], Object]


# Deletions of one collection that are under way at the same time: enough for the store's group commit.
_TOGETHER = 64


class Writes:
    """Create, update, patch, delete, deletecollection."""

    def __init__(
        self,
        crud: Crud,
        registry: Registry,
        clock: Clock,
        reviews: Answers | None,
    ) -> None:
        self.crud = crud
        self.registry = registry
        self._clock = clock
        self._reviews = reviews
        self._subresources: dict[str, Subresource] = {}

    def serve(self, subresources: Mapping[str, Subresource]) -> None:
        """Adds handlers of subresources, by name or by `<plural>/<name>`."""
        self._subresources.update(subresources)

    def virtual(self, call: Call) -> Result | Awaitable[Result]:
        """Kinds that are computed, as reviews."""
        verb, kind = call.target.info.verb, call.kind
        if kind.kind == "Binding" and verb == "create":
            return self._subresources["binding"](call)
        if kind.kind == "ComponentStatus" and verb in ("get", "list"):
            return self._components(call)
        if self._reviews is None or verb != "create" or not self._reviews.answers(kind):
            raise MethodNotAllowed("the server does not allow this method on the requested resource", {})
        context = self.context(call)
        return begun(self._admitted_review(call, self._reviews, context, self.object(call, context)))

    async def _admitted_review(self, call: Call, reviews: Answers, context: Context, obj: Object) -> Result:
        """The answer to a review, if admission lets it pass: reviews are creations for it, though nothing is stored."""
        found = self._reviewed(call, reviews, await self.crud.asked(context, obj))
        return await found if isinstance(found, Awaitable) else found

    def _reviewed(self, call: Call, reviews: Answers, obj: Object) -> Result | Awaitable[Result]:
        try:
            return One(call.kind, None, reviews.create(call.kind, obj, call.user, call.namespace), 201)
        except Pending as pending:
            return again(pending, lambda: self._reviewed(call, reviews, obj))

    def _components(self, call: Call) -> Result:
        """What is left of component statuses: an empty list."""
        call.warnings.append("v1 ComponentStatus is deprecated in v1.19+")
        name = call.target.info.name
        if name:
            raise NotFound(f'componentstatus "{name}" not found', {"name": name, "kind": "componentstatus"})
        return Many(call.kind, [], self.crud.cache.revision)

    def subresource(self, call: Call) -> Result | Awaitable[Result]:
        """A part of an object with a path of its own."""
        info = call.target.info
        row = call.kind.subresources[info.subresource]
        verb = {"list": "get", "deletecollection": "delete"}.get(info.verb, info.verb)
        if verb not in row.verbs:
            raise MethodNotAllowed("the server does not allow this method on the requested resource", {})
        handler = self._subresources.get(f"{call.kind.plural}/{info.subresource}")
        handler = handler or self._subresources.get(info.subresource)
        if handler is None:
            raise MethodNotAllowed("the server does not allow this method on the requested resource", {})
        return handler(call)

    def write(self, call: Call) -> Awaitable[Result]:
        """One of the writing verbs."""
        verb = call.target.info.verb
        if verb == "create":
            return self.create(call)
        if verb == "update":
            return self.update(call)
        if verb == "patch":
            return self.patch(call)
        if verb == "delete":
            return self.delete(call)
        return self.delete_collection(call)

    def context(self, call: Call, kind: Kind | None = None) -> Context:
        """The write that a call is about. Raises Invalid for options that are not known."""
        info, query = call.target.info, call.target.query
        patch = bodies.PATCHES.get(bodies.media_type(call.request), "") if info.verb == "patch" else ""
        options.check(call.target, patch)
        return Context(
            kind or call.kind,
            call.namespace,
            info.name,
            call.user,
            self._clock.now(),
            info.verb,
            info.subresource,
            "dryRun" in query,
            manager_of(call),
            query.get("fieldValidation") or "Warn",
            truth(query.get("force")),
            query,
            call.warnings,
            call.notes,
            heavy=len(call.request.body) > HEAVY,
        )

    async def create(self, call: Call) -> Result:
        """POST."""
        kind = call.kind
        if kind.custom and is_terminating(self.crud.cache.get(DEFINITION, "", kind.qualified)):
            why = "create not allowed while custom resource definition is terminating"
            raise MethodNotAllowed(why, {"group": kind.group, "kind": kind.plural})
        context = self.context(call)
        obj = await beside(context.heavy, lambda: self.object(call, context))
        outcome = await self.crud.create(context, obj)
        return self._one(call, outcome, 201)

    def object(self, call: Call, context: Context) -> Object:
        """The body of a create or update as an object of the call's kind."""
        kind, request = call.kind, call.request
        value = bodies.read(request, kind.kind)
        if kind.custom and request.value is None:
            bodies.custom_type(value, kind, request.body)
            value = bodies.rounded(value)
        obj = bodies.of_kind(value, kind, self.registry)
        call.sent(obj)
        twice = bodies.duplicates(request, value) if context.field_validation != "Ignore" else ()
        return bodies.shaped(kind, obj, context.field_validation, context.warnings, twice, request=request)

    async def update(self, call: Call) -> Result:
        """PUT, of an object or of its status."""
        context = self.context(call)
        obj = await beside(context.heavy, lambda: self.object(call, context))
        written.check_identity(context, obj)
        if not obj["metadata"].get("namespace") and context.namespace:
            obj = {**obj, "metadata": {**obj["metadata"], "namespace": context.namespace}}
        outcome, created = await self.crud.update(context, lambda old: obj, body=obj)
        return self._one(call, outcome, 201 if created else 200)

    async def patch(self, call: Call) -> Result:
        """PATCH in one of its types."""
        context = self.context(call)
        kind = call.kind
        patch = await beside(context.heavy, lambda: self.patcher(call, context))
        if patch is None:
            from k3s.apiserver.applying import apply

            outcome, created = await apply(self.crud, call, context)
            return self._one(call, outcome, 201 if created else 200)

        type, before = patch.type, list(context.warnings)
        twice: Sequence[str] = ()
        if call.request.value is None and context.field_validation != "Ignore" and type != "json":
            twice = await beside(context.heavy, lambda: bodies.duplicates(call.request, patch.value))

        def shaped(old: Object) -> Object:
            new = patch.apply(old)
            if kind.custom:
                new = bodies.rounded(new)
            elif type == "strategic":
                new = {"kind": kind.kind, "apiVersion": kind.api_version, **new}
            check_type(kind, new, self.registry)
            context.warnings[:] = before  # of the last try only
            return bodies.shaped(kind, new, context.field_validation, context.warnings, twice, type, old)

        outcome, _ = await self.crud.update(context, shaped)
        return self._one(call, outcome, 200)

    def patcher(self, call: Call, context: Context) -> Patcher | None:
        """What a patch makes of an object; None for an apply. Raises BadRequest, UnsupportedMediaType."""
        from k3s.api import merge, patch
        from k3s.api.schema import definition_of

        kind = call.kind
        media = bodies.media_type(call.request)
        type = bodies.PATCHES.get(media, "")
        if not type or (type == "strategic" and kind.custom):
            raise UnsupportedMediaType("415: Unsupported Media Type", {})
        if type == "apply":
            return None
        bodies.check_whole(call.request)
        value = call.request.value
        if value is None:
            value = patch.parse(media, call.request.body)
        call.sent(value)
        if type == "json":
            return Patcher(type, value, lambda old: patch.json_patch(old, value))
        if type == "merge":
            return Patcher(type, value, lambda old: patch.merge_patch(old, value))
        return Patcher(type, value, lambda old: merge.strategic_merge(definition_of(kind), old, value))

    async def delete(self, call: Call) -> Result:
        """DELETE."""
        context = self.context(call)
        given = self._delete_options(call)
        context.dry_run = context.dry_run or given.dry_run
        outcome = await self.crud.delete(context, given)
        result = self._deleted(call.kind, outcome)
        if not outcome.deleted and given.orphan is False:
            result.status = 202  # who asked in the old way that dependents go, too, is told that this takes time
        return result

    def _delete_options(self, call: Call) -> deletion.DeleteOptions:
        value: Any = call.request.value
        if value is None and call.request.body:
            value = bodies.read(call.request, "DeleteOptions")
        call.sent(value)
        return deletion.parse(value, call.target.query)

    def _deleted(self, kind: Kind, outcome: Outcome) -> One:
        if not outcome.deleted:
            return One(kind, outcome.item, outcome.obj)
        obj = outcome.obj or {}
        if self.crud.strategies(kind).returns_deleted:
            return One(kind, None, obj)
        details = {"name": obj["metadata"]["name"], "group": kind.group, "kind": kind.plural}
        details = {k: v for k, v in details.items() if v}
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {**details, "uid": obj["metadata"].get("uid", "")},
        }
        return One(None, None, status)

    async def delete_collection(self, call: Call) -> Result:
        """DELETE of a collection: each object on its own, as if one by one."""
        kind = call.kind
        context = self.context(call)
        given = self._delete_options(call)
        dry_run = context.dry_run or given.dry_run
        scope = scope_of(kind, call.namespace, call.target.query)
        bucket = self.crud.cache.bucket(kind)
        everywhere = kind.namespaced and not scope.namespace
        items = [item for item in bucket.items(scope.namespace, everywhere=everywhere) if scope.matches(item)]

        async def one(namespace: str, name: str) -> None:
            each = self.context(call)
            each.namespace, each.name, each.dry_run = namespace, name, dry_run
            try:
                await self.crud.delete(each, given)
            except ApiError as error:
                if error.reason != "NotFound":
                    raise

        for start in range(0, len(items), _TOGETHER):
            batch = items[start : start + _TOGETHER]
            errors = await asyncio.gather(*(one(i.namespace, i.name) for i in batch), return_exceptions=True)
            for error in errors:
                if isinstance(error, BaseException):
                    raise error
        return Many(kind, items, self.crud.cache.revision)

    def _one(self, call: Call, outcome: Outcome, status: int) -> One:
        return One(call.kind, outcome.item, outcome.obj, status)


def check_type(kind: Kind, new: Object, registry: Registry) -> None:
    """A patch leaves kind and apiVersion alone. Raises Invalid."""
    version, name = new.get("apiVersion", ""), new.get("kind", "")
    if version == kind.api_version and name == kind.kind:
        return
    other = registry.of(new)
    if other is None:
        why = f'no kind "{name}" is registered for version "{version}" in scheme "pkg/api/legacyscheme/scheme.go:30"'
    elif (unread := _unread(other, new)) is not None:
        why = unread
    else:
        why = f"unable to convert {name} of {version} to {kind.kind} of {kind.api_version}"
    text = f"Invalid value: {encode(encode(new).decode()).decode()}: {why}"
    raise invalid("", "", "", [{"reason": "FieldValueInvalid", "message": text, "field": "patch"}])


def _unread(kind: Kind, obj: Object) -> str | None:
    """Why an object cannot be read as one of this kind; None when it can."""
    from k3s.api import schema
    from k3s.api.errors import BadRequest

    try:
        schema.prune(kind, obj)
    except BadRequest as error:
        return error.message.partition(f" cannot be handled as a {kind.kind}: ")[2]
    return None


def manager_of(call: Call) -> str:
    """Who changes fields: as the request says, or the program's name; nobody for this process's own and for nodes.

    Components write status after status; a record of who owns what in it would cost more than the writes.
    """
    name = call.target.query.get("fieldManager", "")
    if name or call.request.value is not None or identity.node_of(call.user):
        return name
    if bodies.PATCHES.get(bodies.media_type(call.request)) == "apply":
        return ""
    return intern(call.request.headers.get("user-agent", "").partition("/")[0][:MANAGER_LIMIT] or "unknown")
