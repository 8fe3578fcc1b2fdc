"""The chain: which plugins see which write, worked out once per kind and operation.

Source: the "Admission Controllers" page of the Kubernetes documentation; order as upstream's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from k3s.api.errors import Forbidden, forbidden
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.apiserver.admits import AdmissionRequest

CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"

Admit = Callable[[AdmissionRequest], Object]
Validate = Callable[[AdmissionRequest], None]
_Plan = tuple[tuple[Admit, ...], tuple[Validate, ...]]


class Plugin:
    """One admission plugin. It declares the resources (`pods`, `deployments.apps`) and operations that concern it.

    `admits` are the operations for which `admit` is called, `validates` those for `validate`. Of a DELETE only
    `validate` is asked. Subresources are seen by both unless the plugin ignores them itself.
    """

    name: ClassVar[str] = ""
    resources: ClassVar[frozenset[str]] = frozenset()
    admits: ClassVar[frozenset[str]] = frozenset()
    validates: ClassVar[frozenset[str]] = frozenset()

    def admit(self, request: AdmissionRequest) -> Object:
        """The request's object as it shall be; raises Forbidden, Invalid, NotFound."""
        raise NotImplementedError

    def validate(self, request: AdmissionRequest) -> None:
        """Raises Forbidden or Invalid for a write that may not happen."""
        raise NotImplementedError


class Chain:
    """Calls the plugins in order; a kind that no plugin is about costs two dictionary look-ups."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._plans: dict[tuple[Kind, str], _Plan] = {}

    def admit(self, request: AdmissionRequest) -> Object:
        """The object with what the plugins add; `request.obj` is never changed. Raises Forbidden, Invalid, NotFound."""
        plan = self._plans.get((request.kind, request.operation)) or self._plan(request)
        obj = request.obj
        assert obj is not None, "only writes that carry an object are admitted; others are validated"
        for admit in plan[0]:
            changed = admit(request)
            if changed is not obj:
                obj = changed
                request = request.with_object(obj)
        return obj

    def validate(self, request: AdmissionRequest) -> None:
        """Raises Forbidden or Invalid for a write that may not happen; warnings are added to `request.warnings`."""
        plan = self._plans.get((request.kind, request.operation)) or self._plan(request)
        for validate in plan[1]:
            validate(request)

    def _plan(self, request: AdmissionRequest) -> _Plan:
        kind, operation = request.kind, request.operation
        concerned = [p for p in self.plugins if kind.qualified in p.resources or "*" in p.resources]
        plan = (
            tuple(p.admit for p in concerned if operation in p.admits),
            tuple(p.validate for p in concerned if operation in p.validates),
        )
        self._plans[kind, operation] = plan
        return plan


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
