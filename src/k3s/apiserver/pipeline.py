"""The steps that every request takes: parse, authenticate, authorize, decode, shape, admit, read or write, encode.

`start` answers at once when nothing has to be waited for (every read of the cache), and with an awaitable otherwise.
Law: no step knows a kind; what is special about one is in its strategy or its subresource.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from k3s.api.errors import ApiError, InternalError, MethodNotAllowed, NotFound, not_found
from k3s.api.kinds import Kind, Registry
from k3s.api.object import Object
from k3s.apiserver.aggregation.aggregator import Aggregator
from k3s.apiserver.audit.record import Broken, Record
from k3s.apiserver.authn import Authenticates
from k3s.apiserver.authz import Attributes, Authorizes, attributes_of, refusal
from k3s.apiserver.call import Call
from k3s.apiserver.fairness import Fairness, seated
from k3s.apiserver.flows import Flow, Flows
from k3s.apiserver.hub import Hub
from k3s.apiserver.identity import User
from k3s.apiserver.impersonation import Impersonation
from k3s.apiserver.limits import Limits, late, too_many
from k3s.apiserver.media import PLAIN, Media, Negotiation
from k3s.apiserver.pending import Pending, again
from k3s.apiserver.reads import Reads
from k3s.apiserver.render import Renderer
from k3s.apiserver.request import Target, Targets, reaches_in
from k3s.apiserver.results import Many, One, Result, Watching
from k3s.apiserver.warned import warn
from k3s.apiserver.watch import HttpWatch, LocalWatch
from k3s.apiserver.writes import Writes
from k3s.base.message import TEXT, Answer, Chunks, Request, Response, Stream, Upgrade
from k3s.client import transport
from k3s.client.transport import WatchEvent

if TYPE_CHECKING:
    from k3s.apiserver.audit.auditor import Auditor

log = logging.getLogger(__name__)

Route = Callable[[Request, Target], Awaitable[Answer]]
Plain = Callable[[Request, Target, User], "Answer | Awaitable[Answer] | None"]
# Kinds whose every use is answered with a warning.
_DEPRECATED = {("", "endpoints"): "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"}
_STREAMING = (Response, Stream, Chunks, Upgrade)
# Where requests of this process come from.
_ITSELF = "127.0.0.1"
_NOT_FOUND_TEXT = Response(404, b"404 page not found\n", TEXT)


class Pipeline:
    """The ordered steps."""

    def __init__(
        self,
        registry: Registry,
        authenticator: Authenticates,
        authorizer: Authorizes,
        reads: Reads,
        writes: Writes,
        renderer: Renderer,
        hub: Hub,
        plain: Plain,
        routes: Mapping[str, Route],
        observe: Callable[[Target, int, float], None],
        under_way: Callable[[Target, int], None],
        now: Callable[[], float],
        limits: Limits,
        flows: Flows,
        fairness: Fairness,
        aggregator: Aggregator,
        auditor: Auditor | None = None,
    ) -> None:
        self._aggregator = aggregator
        self._auditor = auditor
        self._fairness = fairness
        self._flows = flows
        self._limits = limits
        self._registry = registry
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._impersonation = Impersonation(authorizer.authorize)
        self._reads = reads
        self._writes = writes
        self._renderer = renderer
        self._hub = hub
        self._plain = plain
        self._routes = dict(routes)
        self._observe = observe
        self._under_way = under_way
        self._now = now
        self._targets = Targets()
        self._negotiation = Negotiation()

    # --- over HTTP

    def start(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answers an HTTP request. Never raises."""
        answer, auditor = self._start(request), self._auditor
        return answer if auditor is None or request.record is None else auditor.ended(request.record, answer)

    def _start(self, request: Request) -> Answer | Awaitable[Answer]:
        began = self._now()
        target = self._targets.get(request.method, request.target)
        media = PLAIN
        try:
            if "timeout" in target.query:
                self._limits.seconds(target)
            route = self._route(target.path) if self._routes else None
            if route is not None:
                return self._guard(route(request, target), target, media, began, None, None)
            try:
                user = self._authenticate(request, target)
                flow = self._flows.of(user, target.info)
                if flow is not None:
                    request.lines += flow.lines
                self._authorize(user, target, request.record)
            except Pending as pending:
                request.lines = b""
                return again(pending, lambda: self._start(request))
            remote = self._aggregator.find(target)
            if remote is not None:
                return self._guard(remote.forward(request, user), target, media, began, user, flow)
            headers = request.headers
            if not target.info.is_resource:
                answer = self._plain(request, target, user)
                if answer is None:
                    return _NOT_FOUND_TEXT
                if isinstance(answer, _STREAMING):
                    return self._seen(answer, target, began)
                return self._guard(answer, target, media, began, user, flow)
            if self._unknown(target):
                return self._seen(_NOT_FOUND_TEXT, target, began)
            media = self._negotiation.choose(
                headers.get("accept", ""), target.query.get("pretty"), headers.get("user-agent", "")
            )
            call = Call(request, target, user, self._kind(target), media)
            deprecated = _DEPRECATED.get((call.kind.group, call.kind.plural)) if not call.kind.group else None
            if deprecated is not None:
                call.warnings.append(deprecated)
            try:
                result = self._dispatch(call)
            except ApiError as error:
                return self._seen(self._failed(error, call), target, began)
            if isinstance(result, (One, Many, Watching, *_STREAMING)):
                return self._seen(self._form(call, result), target, began)
            return self._guard(self._later(call, result), target, media, began, user, flow)
        except ApiError as error:
            return self._seen(self._renderer.error(error, media), target, began)
        except Exception:
            return self._seen(self._broken(target), target, began)

    async def _later(self, call: Call, work: Awaitable[Result]) -> Answer:
        try:
            return self._form(call, await work)
        except ApiError as error:
            return self._failed(error, call)

    def _failed(self, error: ApiError, call: Call) -> Response:
        answer = self._renderer.error(error, call.media)
        if call.warnings:
            warn(answer, call.warnings)
        return answer

    async def _guard(
        self,
        work: Awaitable[Answer],
        target: Target,
        media: Media,
        began: float,
        user: User | None,
        flow: Flow | None,
    ) -> Answer:
        """The boundary for what takes time: it is counted and limited, and every error becomes an answer."""
        if not seated(target):
            return await self._caught(work, target, media, began)
        try:
            seconds = self._limits.seconds(target)
            async with asyncio.timeout(seconds):
                seat = self._fairness.enter(flow, target) or await self._fairness.wait(flow, user, target, seconds)
                if seat is None:
                    return self._seen(too_many(self._fairness.retry_after(flow)), target, began)
                entered = self._now()
                try:
                    return await self._caught(work, target, media, began)
                finally:
                    self._fairness.leave(seat, target.info.verb, entered)
        except TimeoutError:
            return self._seen(self._renderer.error(late(), media), target, began)
        finally:
            if isinstance(work, Coroutine):
                work.close()  # what found no seat was never begun

    async def _caught(self, work: Awaitable[Answer], target: Target, media: Media, began: float) -> Answer:
        self._under_way(target, 1)
        try:
            return self._seen(await work, target, began)
        except ApiError as error:
            return self._seen(self._renderer.error(error, media), target, began)
        except Exception:
            return self._seen(self._broken(target), target, began)
        finally:
            self._under_way(target, -1)

    def _broken(self, target: Target) -> Response:
        log.exception("Cannot answer %s %s", target.method, target.path)
        made = self._renderer.error(InternalError("Internal error occurred: see the server's log", {}), PLAIN)
        return Broken(made.status, made.body, made.content_type)

    def _seen(self, answer: Answer, target: Target, began: float) -> Answer:
        status = 101 if isinstance(answer, Upgrade) else answer.status
        self._observe(target, status, self._now() - began)
        return answer

    def _route(self, path: str) -> Route | None:
        for prefix, handler in self._routes.items():
            if path.startswith(prefix) and (
                len(path) == len(prefix) or prefix.endswith("/") or path[len(prefix)] == "/"
            ):
                return handler
        return None

    # --- in memory

    async def local(self, user: User, sent: transport.Request) -> transport.Response:
        """Answers a request of this process: the same steps, no bytes. Raises ApiError."""
        request, target = self._local_request(user, sent)
        record: Record | None = request.record
        if record is None:
            return await self._local(user, request, target)
        try:
            await record.settle()
            response = await self._local(user, request, target)
        except ApiError as error:
            record.done(error.code, error.to_status())
            await record.settle()
            raise
        record.shown = response.body
        record.done(response.status)
        await record.settle()
        return response

    async def _local(self, user: User, request: Request, target: Target) -> transport.Response:
        await self._permit(user, target, request.record)
        call = self._local_call(user, request, target)
        if isinstance(call, Coroutine):
            return await call
        if isinstance(call, Response):
            return transport.Response(call.status, call.body, {"content-type": call.content_type})
        result = self._dispatch(call)
        if not isinstance(result, (One, Many, Watching)) and not isinstance(result, _STREAMING):
            result = await result
        if isinstance(result, (One, Many)):
            return transport.Response(result.status if isinstance(result, One) else 200, self._shown(result))
        if isinstance(result, Response):
            body = result.value if result.value is not None else result.body
            return transport.Response(result.status, body, {"content-type": result.content_type})
        raise InternalError(f"{request.method} {target.path} cannot be answered in memory: it is a stream; use HTTPS")

    def _shown(self, result: One | Many) -> Object | None:
        """What a result tells, as a value."""
        if isinstance(result, Many):
            return self._renderer.listed(result)
        if result.obj is None and result.item is not None and result.kind is not None:
            return self._reads.as_kind(result.item, result.kind)
        return result.obj

    async def local_watch(self, user: User, sent: transport.Request) -> AsyncIterator[WatchEvent]:
        """The events of a watch of this process. Raises ApiError."""
        request, target = self._local_request(user, sent)
        record: Record | None = request.record
        if record is not None:
            await record.settle()
        await self._permit(user, target, record)
        call = self._local_call(user, request, target)
        if not isinstance(call, Call):
            if isinstance(call, Coroutine):
                call.close()
            raise NotFound("the server could not find the requested resource", {})
        result = self._dispatch(call)
        if not isinstance(result, (One, Many, Watching)) and not isinstance(result, _STREAMING):
            result = await result
        if not isinstance(result, Watching):
            raise InternalError(f"{sent.path} is not a watch: say watch=true")
        watch = LocalWatch(
            self._hub, result.bucket, result.kind, result.scope, result.bookmarks, result.begin, result.timeout_s
        )
        if record is not None:
            record.started()
            await record.settle()
        try:
            async for event in watch:
                yield event
        finally:
            await watch.aclose()
            if record is not None:
                record.done(200)

    def _local_request(self, user: User, sent: transport.Request) -> tuple[Request, Target]:
        text = f"{sent.path}?{urlencode(sent.query)}" if sent.query else sent.path
        target = self._targets.get(sent.method, text)
        request = Request(sent.method, text, {"content-type": sent.content_type}, value=sent.body)
        if self._auditor is not None:
            request.source = _ITSELF
            request.record = self._auditor.begin(request, target)
            self._auditor.sender(request.record, target, user)
        return request, target

    def _local_call(
        self, user: User, request: Request, target: Target
    ) -> Call | Response | Coroutine[Any, Any, transport.Response]:
        remote = self._aggregator.find(target)
        if remote is not None:
            return remote.local(request, user)
        if not target.info.is_resource:
            answer = self._plain(request, target, user)
            if isinstance(answer, Response):
                return answer
            raise NotFound("the server could not find the requested resource", {})
        return Call(request, target, user, self._kind(target), PLAIN)

    # --- the steps

    def _authenticate(self, request: Request, target: Target) -> User:
        if self._auditor is not None:
            return self._recorded(request, target, self._auditor)
        user = self._sender(request, target)
        return self._acting(request, target, user)

    def _recorded(self, request: Request, target: Target, auditor: Auditor) -> User:
        """As `_authenticate`; the audit log hears of the sender first, and the request may have to wait for that."""
        record: Record = request.record or auditor.begin(request, target)
        request.record = record
        if not record.heard:
            user = None
            try:
                user = self._sender(request, target)
            except ApiError as error:
                record.refused = error
            auditor.sender(record, target, user)
            if record.waiting is not None:
                raise Pending(record.settled())
        user = record.users[0]
        if record.refused is not None or user is None:
            raise record.refused or InternalError("Internal error occurred: nobody sent the request", {})
        acting = self._acting(request, target, user)
        record.users = user, acting
        return acting

    def _sender(self, request: Request, target: Target) -> User:
        user = self._authenticator.authenticate(request.headers, request.peer, request.remark)
        return self._authenticator.without_credentials(target.path) if user is None else user

    def _acting(self, request: Request, target: Target, user: User) -> User:
        for name in request.headers:
            if name.startswith("impersonate-"):
                found = self._impersonation.acting(request.headers, attributes_of(user, target))
                if found is None:
                    return user
                if request.record is not None:
                    request.record.constraint = found.constraint
                return found.user
        return user

    async def _permit(self, user: User, target: Target, record: Record | None) -> None:
        try:
            self._authorize(user, target, record)
        except Pending as pending:
            await again(pending, lambda: self._authorize(user, target, record))

    def _authorize(self, user: User, target: Target, record: Record | None) -> None:
        asked, info = attributes_of(user, target), target.info
        self._demand(asked, record)
        if info.subresource and info.verb == "get" and reaches_in(info):
            self._demand(asked._replace(verb="create"), record)

    def _demand(self, attributes: Attributes, record: Record | None = None) -> None:
        """Raises Forbidden unless the request is allowed."""
        decision = self._authorizer.authorize(attributes)
        failed = not decision.allowed and decision.error and attributes.path
        if record is not None:
            record.decided(decision.allowed, "internal error" if failed else decision.reason)
        if failed:
            raise InternalError(f'Internal Server Error: "{attributes.path}": {decision.error}')
        if not decision.allowed:
            raise refusal(attributes, decision.reason or decision.error)

    def _unknown(self, target: Target) -> bool:
        """Whether a path is none of the API: nothing is there under a group without built-in kinds, or a custom kind
        is asked for at the wrong scope."""
        info = target.info
        if not info.group or info.group in self._registry.builtin_groups:
            return info.strange and target.path.startswith("//")
        kind = self._registry.by_resource(info.group, info.version, info.resource)
        if kind is None:
            return True
        if kind.namespaced:
            return not info.namespace and info.verb not in ("list", "watch")
        return bool(info.namespace)

    def _kind(self, target: Target) -> Kind:
        info = target.info
        kind = self._registry.by_resource(info.group, info.version, info.resource)
        if kind is None or info.strange or (info.rest and info.subresource != "proxy"):
            raise NotFound("the server could not find the requested resource", {})
        if bool(info.namespace) is not kind.namespaced and _elsewhere(target, kind):
            raise NotFound("the server could not find the requested resource", {})
        if info.subresource and info.subresource not in kind.subresources:
            if kind.custom:
                raise not_found(kind.group, kind.plural, info.name)
            raise NotFound("the server could not find the requested resource", {})
        return kind

    def _dispatch(self, call: Call) -> Result | Awaitable[Result]:
        target, kind = call.target, call.kind
        info = target.info
        verb, name = info.verb, info.name
        if target.method == "HEAD" and not kind.custom and info.subresource != "proxy":
            raise _NOT_ALLOWED  # Upstream's routes of built-in kinds know no HEAD.
        if info.subresource:
            return self._writes.subresource(call)
        self._check_verb(kind, target)
        if verb == "get":
            return (
                self._reads.get(kind, call.namespace, name, target.query) if kind.stored else self._writes.virtual(call)
            )
        if verb == "list":
            return self._reads.list(kind, call.namespace, target.query) if kind.stored else self._writes.virtual(call)
        if verb == "watch":
            return self._reads.watch(kind, call.namespace, target, name if "/watch/" in target.path else "")
        if not kind.stored:
            return self._writes.virtual(call)
        return self._writes.write(call)

    def _check_verb(self, kind: Kind, target: Target) -> None:
        info = target.info
        scoped = not kind.namespaced or bool(info.namespace)
        if info.verb not in kind.verbs or (info.verb in ("create", "deletecollection") and not scoped):
            raise _NOT_ALLOWED
        has_name = _path_name(target)
        if info.verb in ("update", "patch", "delete") and (not has_name or not scoped):
            raise _NOT_ALLOWED
        if info.verb == "create" and has_name:
            raise _NOT_ALLOWED

    # --- answers

    def _form(self, call: Call, result: Result) -> Answer:
        include = call.target.query.get("includeObject", "")
        record = call.request.record
        if record is not None and record.keeps_response and isinstance(result, (One, Many)):
            record.shown = self._shown(result)
        if isinstance(result, One):
            answer: Answer = self._renderer.one(result, call.media, include)
        elif isinstance(result, Many):
            answer = self._renderer.many(result, call.media, include)
        elif isinstance(result, Watching):
            encoding = self._renderer.encoding(result.kind, call.media, include)
            watch = HttpWatch(
                self._hub,
                result.bucket,
                result.kind,
                result.scope,
                result.bookmarks,
                encoding,
                result.begin,
                result.timeout_s,
            )
            return Stream(watch, encoding.content_type)
        else:
            answer = result
        if call.warnings and isinstance(answer, Response):
            warn(answer, call.warnings)
        return answer


def _elsewhere(target: Target, kind: Kind) -> bool:
    """Whether an object is asked for at the wrong scope: a name without its namespace, or in one that it is not in."""
    if kind.namespaced:
        return _path_name(target) and target.info.verb != "watch"
    return kind.plural != "namespaces"


def _path_name(target: Target) -> bool:
    """Whether the path itself names an object (a field selector may have named one for authorization)."""
    info = target.info
    return (
        bool(info.name)
        and target.path.rstrip("/").endswith(info.name)
        and info.verb not in ("list", "deletecollection")
    )


_NOT_ALLOWED = MethodNotAllowed("the server does not allow this method on the requested resource", {})
