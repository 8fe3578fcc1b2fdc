"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: others decide about writes, by configuration.

Source: "Dynamic Admission Control" in the Kubernetes documentation; texts as upstream's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3s.api import schema
from k3s.api.errors import ApiError, BadRequest, InternalError, forbidden
from k3s.api.kinds import Kind, Registry, builtin
from k3s.api.object import Object, encode
from k3s.api.patch import json_patch
from k3s.apiserver.admission import matching, reviews
from k3s.apiserver.admission.chain import CONNECT, CREATE, DELETE, SECOND, UPDATE, Plugin
from k3s.apiserver.admission.conditions import Conditions
from k3s.apiserver.admission.rounds import Rounds
from k3s.apiserver.admission.webhookclient import CallFailed, WebhookClient
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Authorizes
from k3s.apiserver.considered import considered
from k3s.apiserver.conversion import Conversions
from k3s.base.entropy import Entropy

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

log = logging.getLogger(__name__)
MUTATING = builtin("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")
VALIDATING = builtin("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration")
_TIMEOUT_S = 10
_PATCH = "patch.webhook.admission.k8s.io/"


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of a configuration, the `place`th of all; `uid` tells it from others of the same name."""

    configuration: str
    place: int
    uid: str
    name: str
    spec: Object
    selectors: matching.Selectors
    conditions: Conditions | None

    @property
    def ignores_failure(self) -> bool:
        """Whether a write goes on when the webhook cannot be asked."""
        return self.spec.get("failurePolicy") == "Ignore"

    @property
    def version(self) -> str:
        """The first version of AdmissionReview that both sides know."""
        known = [v for v in self.spec.get("admissionReviewVersions") or () if v in reviews.VERSIONS]
        return known[0] if known else "v1"


class _Webhooks(Plugin):
    """What both plugins share: finding the hooks of a write, and asking one."""

    #: How keys for the audit log begin.
    notes = ""
    resources = frozenset({"*"})
    configurations: Kind = MUTATING

    def __init__(
        self,
        reader: Reader,
        registry: Registry,
        conversions: Conversions,
        authorizer: Authorizes,
        entropy: Entropy,
        client: WebhookClient,
    ) -> None:
        self._reader = reader
        self._registry = registry
        self._conversions = conversions
        self._authorizer = authorizer
        self._entropy = entropy
        self._client = client
        self._index = matching.Index(reader, (self.configurations,), self._compiled, self._about, matching.NO_WEBHOOKS)

    def _compiled(self) -> list[Hook]:
        found = sorted(self._reader.list(self.configurations), key=lambda config: str(config["metadata"]["name"]))
        hooks: list[Hook] = []
        for config in found:
            for number, spec in enumerate(config.get("webhooks") or ()):
                name = str(spec.get("name", ""))
                uid = f"{config['metadata']['name']}/{number}/{name}"
                given = spec.get("matchConditions")
                conditions = Conditions(given, self._authorizer) if given else None
                place = str(config["metadata"]["name"]), len(hooks)
                hooks.append(Hook(*place, uid, name, spec, matching.Selectors.of(spec), conditions))
        return hooks

    def _about(self, hook: Hook, kind: Kind, operation: str, subresource: str) -> Kind | None:
        policy = hook.spec.get("matchPolicy") or "Equivalent"
        rules = hook.spec.get("rules") or ()
        return matching.covering(rules, self._registry, kind, operation, subresource, policy)

    async def _hooks(self, request: AdmissionRequest) -> list[tuple[Hook, Kind]]:
        """The hooks that want to see a write, in order. Raises Forbidden when that cannot be told."""
        found = self._index.about(request.kind, request.operation, request.subresource)
        return [(hook, kind) for hook, kind in found if await self._selected(hook, kind, request)]

    async def _selected(self, hook: Hook, kind: Kind, request: AdmissionRequest) -> bool:
        if not hook.selectors.match(request, self._reader):
            return False
        if hook.conditions is None:
            return True
        conditions, obj, old = hook.conditions, await self._as(request.obj, kind), await self._as(request.old, kind)
        matched, problem = await considered(lambda: conditions.match(request, kind, obj, old))
        if problem is None:
            return matched
        if hook.ignores_failure:
            log.warning("Webhook %s is left out: %s", hook.name, problem)
            return False
        raise forbidden(request.kind.group, request.kind.plural, request.name, problem)

    async def _as(self, obj: Object | None, kind: Kind) -> Object | None:
        """An object in the version that a hook wants to see; what is no object of the kind stays as it is."""
        if obj is None or obj.get("apiVersion") == kind.api_version or obj.get("kind") != kind.kind:
            return obj
        return await self._conversions.object(obj, kind)

    async def _ask(
        self, hook: Hook, kind: Kind, request: AdmissionRequest, *, mutating: bool
    ) -> reviews.Verdict | None:
        """The verdict of one webhook; None when it cannot be asked and that is to be ignored. Raises ApiError."""
        if request.dry_run and hook.spec.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
        uid = self._entropy.uid()
        obj, old = await self._as(request.obj, kind), await self._as(request.old, kind)
        body = reviews.question(request, kind, uid, hook.version, obj, old)
        try:
            answer = await self._client.ask(
                hook.spec.get("clientConfig") or {}, body, float(hook.spec.get("timeoutSeconds") or _TIMEOUT_S)
            )
            found = reviews.verdict(answer, uid, hook.version, mutating=mutating)
        except (CallFailed, reviews.BadReview) as error:
            what = "failed to call webhook" if isinstance(error, CallFailed) else "received invalid webhook response"
            text = f'failed calling webhook "{hook.name}": {what}: {error}'
            if hook.ignores_failure:
                log.warning("Failing open: %s", text)
                turn = _turn(hook, request) if mutating else f"round_0_index_{hook.place}"
                request.audit[f"failed-open.{self.notes}{turn}"] = hook.name
                return None
            causes = {"causes": [{"message": text}]}
            raise InternalError(f"Internal error occurred: {text}", causes) from error
        request.audit.update({f"{hook.name}/{key}": value for key, value in found.audit.items()})
        request.warnings.extend(found.warnings)
        if not found.allowed:
            raise reviews.denial(hook.name, found.status)
        return found


class MutatingWebhook(_Webhooks):
    """Asks one after the other; each sees what the ones before it made of the object."""

    name = "MutatingAdmissionWebhook"
    notes = "mutation.webhook.admission.k8s.io/"
    configurations = MUTATING
    admits = frozenset({CREATE, UPDATE})
    validates = frozenset({DELETE, CONNECT})

    def admit(self, request: AdmissionRequest) -> Object | Awaitable[Object]:
        assert request.obj is not None
        if not self._index.about(request.kind, request.operation, request.subresource):
            return request.obj
        return self._admit(request, request.obj)

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Of a deletion or a connection there is nothing to change, only to refuse."""
        if not self._index.about(request.kind, request.operation, request.subresource):
            return None
        return self._check(request)

    async def _check(self, request: AdmissionRequest) -> None:
        for hook, kind in await self._hooks(request):
            await self._ask(hook, kind, request, mutating=True)

    async def _admit(self, request: AdmissionRequest, obj: Object) -> Object:
        rounds = Rounds.of(request, self.name)
        for hook, kind in self._index.about(request.kind, request.operation, request.subresource):
            if not rounds.concerns(hook.uid) or not await self._selected(hook, kind, request):
                continue
            changed = False
            try:
                new = await self._changed(hook, kind, request, obj)
                changed = new != obj
            finally:
                note = {"configuration": hook.configuration, "webhook": hook.name, "mutated": changed}
                request.audit[self.notes + _turn(hook, request)] = encode(note).decode()
            if changed:
                obj, request = new, request.with_object(new)
            rounds.answered(hook.uid, changed=changed, again=hook.spec.get("reinvocationPolicy") == "IfNeeded")
        rounds.end(obj)
        return obj

    async def _changed(self, hook: Hook, kind: Kind, request: AdmissionRequest, obj: Object) -> Object:
        """What a webhook makes of an object."""
        found = await self._ask(hook, kind, request, mutating=True)
        if found is None or found.patch is None:
            return obj
        new = await self._patched(hook, kind, request, obj, found)
        if found.patch:
            said = {"patch": found.patch, "patchType": found.patch_type}
            note = {"configuration": hook.configuration, "webhook": hook.name, **said}
            request.audit[_PATCH + _turn(hook, request)] = encode(note).decode()
        return new

    async def _patched(
        self, hook: Hook, kind: Kind, request: AdmissionRequest, obj: Object, found: reviews.Verdict
    ) -> Object:
        """The object with a webhook's patch, in its own version, with defaults. Raises InternalError."""
        if found.patch_type != "JSONPatch":
            text = f'failed calling webhook "{hook.name}": unsupported patch type "{found.patch_type}"'
            raise InternalError(f"Internal error occurred: {text}", {"causes": [{"message": text}]})
        try:
            seen = await self._as(obj, kind)
            assert seen is not None and found.patch is not None
            new = json_patch(seen, found.patch)
            if new.get("kind") != request.kind.kind:
                return new if isinstance(new, dict) else obj
            new, _ = schema.prune(kind, new)
            back = new if kind is request.kind else await self._conversions.object(new, request.kind)
        except (ApiError, AttributeError) as error:
            text = str(error)
            raise InternalError(f"Internal error occurred: {text}", {"causes": [{"message": text}]}) from error
        return schema.defaults(request.kind, back)


class ValidatingWebhook(_Webhooks):
    """Asks all at the same time; the first refusal counts."""

    name = "ValidatingAdmissionWebhook"
    notes = "validating.webhook.admission.k8s.io/"
    configurations = VALIDATING
    validates = frozenset({CREATE, UPDATE, DELETE, CONNECT})

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        if not self._index.about(request.kind, request.operation, request.subresource):
            return None
        return self._validate(request)

    async def _validate(self, request: AdmissionRequest) -> None:
        hooks = await self._hooks(request)
        asked = (self._ask(hook, kind, request, mutating=False) for hook, kind in hooks)
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome


def _turn(hook: Hook, request: AdmissionRequest) -> str:
    """When a webhook was asked, as keys for the audit log tell it."""
    return f"round_{1 if SECOND in request.state else 0}_index_{hook.place}"
