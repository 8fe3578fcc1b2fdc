"""matchConditions of webhooks: expressions that all have to be true for a write to be told of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.apiserver.admission import policies
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Authorizes

if TYPE_CHECKING:
    from k3s.api.cel import Program


class Conditions:
    """The conditions of one webhook, compiled when a write first asks for them."""

    def __init__(self, conditions: Sequence[Object], authorizer: Authorizes) -> None:
        self._conditions = conditions
        self._authorizer = authorizer
        self._programs: list[tuple[str, Program]] | None = None

    def match(
        self, request: AdmissionRequest, kind: Kind, obj: Object | None, old: Object | None
    ) -> tuple[bool, str | None]:
        """Whether all are true; and why it cannot be told, if so. One that is false decides, whatever others say."""
        from k3s.api.cel import CompileError, admission
        from k3s.apiserver.admission import expressions

        try:
            if self._programs is None:
                sources = [str(one.get("expression", "")) for one in self._conditions]
                self._programs = [(source, admission.condition(source)) for source in sources]
        except CompileError as error:
            return False, str(error)
        try:
            bindings = expressions.bindings(request, kind, obj, old, self._authorizer)
            return policies.passes(self._programs, bindings), None
        except policies.Refusal as refusal:
            return False, str(refusal)
