"""The second round: who that changes objects from outside is asked once more, because others changed them after it.

Source: "Reinvocation policy" on the "Dynamic Admission Control" page of the Kubernetes documentation.
"""

from __future__ import annotations

from typing import Any

from k3s.api.object import Object
from k3s.apiserver.admission.chain import AGAIN, SECOND
from k3s.apiserver.admits import AdmissionRequest


class Rounds:
    """What one plugin remembers of one write from the first round to the second.

    In the first round everyone is asked. In the second only those that want it (`reinvocationPolicy: IfNeeded`) and
    whose last object was changed by somebody else since.
    """

    __slots__ = ("_asked", "_due", "_made", "_state")

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self._made: Object | None = None
        self._asked: list[str] = []
        self._due: set[str] = set()

    @classmethod
    def of(cls, request: AdmissionRequest, plugin: str) -> Rounds:
        """This plugin's rounds of this write; a second one begins with what others did to the object in between."""
        found: Rounds = request.state.setdefault(f"rounds of {plugin}", cls(request.state))
        if SECOND in request.state and found._made != request.obj:
            found._due.update(found._asked)
        return found

    def concerns(self, name: str) -> bool:
        """Whether the one of this name is to be asked in this round."""
        return SECOND not in self._state or name in self._due

    def answered(self, name: str, *, changed: bool, again: bool) -> None:
        """The one of this name was asked. `changed`: it made another object; `again`: it wants a second round."""
        self._due.discard(name)
        if changed:
            self._due.update(self._asked)
            self._state[AGAIN] = True
        if again:
            self._asked.append(name)

    def end(self, obj: Object) -> None:
        """All were asked, and this is what they made."""
        self._made = obj
