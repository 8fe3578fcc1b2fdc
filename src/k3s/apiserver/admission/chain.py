"""The chain: which plugins see which write, worked out once per kind and operation.

Source: the "Admission Controllers" page of the Kubernetes documentation; order as upstream's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from k3s.api.errors import Forbidden, forbidden
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.apiserver.admits import AdmissionRequest, Commit
from k3s.apiserver.pending import Pending, again

CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"

#: Set in a request's state by a plugin whose change makes all plugins look once more; set in that second round.
AGAIN, SECOND = "again", "second"

Admit = Callable[[AdmissionRequest], "Object | Awaitable[Object]"]
Validate = Callable[[AdmissionRequest], "Awaitable[None] | None"]
_Plan = tuple[tuple[Admit, ...], tuple[Validate, ...]]


class Plugin:
    """One admission plugin. It declares the resources (`pods`, `deployments.apps`) and operations that concern it.

    `admits` are the operations for which `admit` is called, `validates` those for `validate`. Of a DELETE only
    `validate` is asked. Subresources are seen by both unless the plugin ignores them itself.
    """

    #: As the flags name it.
    name: ClassVar[str] = ""
    resources: ClassVar[frozenset[str]] = frozenset()
    admits: ClassVar[frozenset[str]] = frozenset()
    validates: ClassVar[frozenset[str]] = frozenset()

    def attach(self, commit: Commit) -> None:
        """Takes the write path, once it is there."""

    def admit(self, request: AdmissionRequest) -> Object | Awaitable[Object]:
        """The request's object as it shall be; raises Forbidden, Invalid, NotFound."""
        raise NotImplementedError

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Raises Forbidden or Invalid for a write that may not happen."""
        raise NotImplementedError


class Chain:
    """Calls the plugins in order; a kind that no plugin is about costs two dictionary look-ups."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        #: Whether namespaces are made for who creates something in one that is absent (NamespaceAutoProvision).
        self.provisions = any(plugin.name == "NamespaceAutoProvision" for plugin in plugins)
        self._plans: dict[tuple[Kind, str], _Plan] = {}

    def attach(self, commit: Commit) -> None:
        """Hands the write path to the plugins."""
        for plugin in self.plugins:
            plugin.attach(commit)

    async def admit(self, request: AdmissionRequest) -> Object:
        """The object with what the plugins add; `request.obj` is never changed. Raises Forbidden, Invalid, NotFound.

        When somebody from outside changed it, all plugins see it a second time.
        """
        plan = self._plans.get((request.kind, request.operation)) or self._plan(request.kind, request.operation)
        obj = request.obj
        assert obj is not None, "only writes that carry an object are admitted; others are validated"
        obj = await self._round(plan[0], request, obj)
        if request.state.get(AGAIN):
            request.state[SECOND] = True
            obj = await self._round(plan[0], request.with_object(obj), obj)
        return obj

    async def _round(self, admits: tuple[Admit, ...], request: AdmissionRequest, obj: Object) -> Object:
        for admit in admits:
            changed = admit(request)
            if changed is not obj:
                obj = changed if isinstance(changed, dict) else await changed
                request = request.with_object(obj)
        return obj

    async def validate(self, request: AdmissionRequest) -> None:
        """Raises Forbidden or Invalid for a write that may not happen; warnings are added to `request.warnings`."""
        plan = self._plans.get((request.kind, request.operation)) or self._plan(request.kind, request.operation)
        for validate in plan[1]:
            later = validate(request)
            if later is not None:
                await later

    def _plan(self, kind: Kind, operation: str) -> _Plan:
        concerned = [p for p in self.plugins if kind.qualified in p.resources or "*" in p.resources]
        plan = (
            tuple(p.admit for p in concerned if operation in p.admits),
            tuple(p.validate for p in concerned if operation in p.validates),
        )
        self._plans[kind, operation] = plan
        return plan


class PatientChain(Chain):
    """A chain whose plugins ask an authorizer that has to be waited for: who asked is called again with the answer."""

    def _plan(self, kind: Kind, operation: str) -> _Plan:
        admits, validates = super()._plan(kind, operation)
        plan: _Plan = tuple(map(_patient, admits)), tuple(map(_patient, validates))
        self._plans[kind, operation] = plan
        return plan


def _patient(call: Callable[[AdmissionRequest], Any]) -> Callable[[AdmissionRequest], Any]:
    async def called(request: AdmissionRequest) -> Any:
        try:
            found = call(request)
            return await found if isinstance(found, Awaitable) else found
        except Pending as pending:
            return await again(pending, lambda: call(request))

    return called


class NotYet(Forbidden):
    """Refused because an object that a controller is about to make is not there: worth waiting for once, briefly.

    `awaited` is the kind, namespace and name of that object.
    """

    awaited: tuple[Kind, str, str]


def refuse(request: AdmissionRequest, why: str) -> Forbidden:
    """The Forbidden error of a plugin, as upstream words it."""
    name = request.name or (request.obj or {}).get("metadata", {}).get("name", "")
    return forbidden(request.kind.group, request.kind.plural, name, why)


def listed(problems: Sequence[str]) -> str:
    """Several problems in one message: `a`, or `[a, b]`."""
    unique = list(dict.fromkeys(problems))
    return unique[0] if len(unique) == 1 else "[" + ", ".join(unique) + "]"
