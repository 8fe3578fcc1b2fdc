"""What a controller wants done, as values: a decider returns them, the runner carries them out in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Union

from k3s.api.kinds import Kind
from k3s.api.object import Object


@dataclass(frozen=True, slots=True)
class Create:
    """Create `obj`. With `about`, the outcome is told as an event on that object (SuccessfulCreate, FailedCreate)."""

    kind: Kind
    obj: Object
    about: Object | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Replace `obj`, which carries the resourceVersion it was decided on."""

    kind: Kind
    obj: Object
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Patch:
    """Change a part of an object; `type` is json, merge, strategic or apply."""

    kind: Kind
    namespace: str
    name: str
    patch: Any
    type: str = "merge"
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object with this uid (and revision, when given); with `about`, told as events on that object."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    grace_s: int | None = None
    propagation: str = ""
    revision: int = 0
    about: Object | None = None


@dataclass(frozen=True, slots=True)
class DeleteCollection:
    """Delete every object of a kind in a namespace; `propagation` overrules what the kind does by itself."""

    kind: Kind
    namespace: str
    propagation: str = ""


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell an event about an object; `type` is Normal or Warning."""

    about: Object
    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Parallel:
    """Actions in any order at the same time.

    With `slow_start` in batches of 1, 2, 4 …, and the first batch with a failure is the last one: when every creation
    is refused, one request shows it instead of hundreds.
    """

    actions: Sequence[Action]
    slow_start: bool = False


Action: TypeAlias = Union["Create", "Update", "Patch", "Delete", "DeleteCollection", "Emit", "Parallel"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and after how many seconds to decide again even if nothing changes (None: never).

    `memory` is what the decider wants to find in `world.memory` next time; it must be a value that nobody changes.
    """

    actions: Sequence[Action] = ()
    requeue_after_s: float | None = None
    memory: Any = None


NOTHING = Decision()


def delete(kind: Kind, obj: Object, about: Object | None = None, **options: Any) -> Delete:
    """The deletion of exactly this object."""
    meta = obj["metadata"]
    return Delete(kind, meta.get("namespace", ""), meta["name"], meta["uid"], about=about, **options)


def earliest(*waits_s: float | None) -> float | None:
    """The shortest of some waiting times, None when there is none."""
    times = [wait for wait in waits_s if wait is not None]
    return min(times) if times else None
