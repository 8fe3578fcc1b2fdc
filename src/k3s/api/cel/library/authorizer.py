"""Questions of rights: `authorizer.group('apps').resource('deployments').namespace('n').check('get').allowed()`.

Source: the authorizer library of the API server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from k3s.api.cel.overloads import declare
from k3s.api.cel.types import Type
from k3s.api.cel.values import Opaque

_PREFIX = "kubernetes.authorization."
AUTHORIZER = Type("opaque", f"{_PREFIX}Authorizer")
RESOURCE_CHECK = Type("opaque", f"{_PREFIX}ResourceCheck")


class Question(NamedTuple):
    """What is asked: by whom when it is another (a service account's namespace and name), and what for."""

    verb: str
    service_account: tuple[str, str] | None = None
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""


class Answer(NamedTuple):
    """Whether it is allowed, why, and what went wrong when it could not be told."""

    allowed: bool
    reason: str = ""
    error: str = ""


# What answers a question.
Ask = Callable[[Question], Answer]


@dataclass(frozen=True, slots=True, eq=False)
class Authorizer(Opaque):
    """The rights of who makes the request; bind this to `authorizer`."""

    ask: Ask
    service_account: tuple[str, str] | None = None
    kind = f"{_PREFIX}Authorizer"


@dataclass(frozen=True, slots=True, eq=False)
class _PathCheck(Opaque):
    authorizer: Authorizer
    path: str
    kind = f"{_PREFIX}PathCheck"


@dataclass(frozen=True, slots=True, eq=False)
class _GroupCheck(Opaque):
    authorizer: Authorizer
    group: str
    kind = f"{_PREFIX}GroupCheck"


@dataclass(frozen=True, slots=True, eq=False)
class ResourceCheck(Opaque):
    """A question about a resource without its verb; `authorizer.requestResource` is bound to one."""

    authorizer: Authorizer
    question: Question = field(default_factory=lambda: Question(""))
    kind = f"{_PREFIX}ResourceCheck"


@dataclass(frozen=True, slots=True, eq=False)
class _Decision(Opaque):
    answer: Answer
    kind = f"{_PREFIX}Decision"


def _with(name: str) -> Callable[[ResourceCheck, str], ResourceCheck]:
    def run(check: ResourceCheck, value: str) -> ResourceCheck:
        changed: dict[str, Any] = {name: value}
        return replace(check, question=check.question._replace(**changed))

    return run


def _resource(group: _GroupCheck, resource: str) -> ResourceCheck:
    return ResourceCheck(group.authorizer, Question("", group=group.group, resource=resource))


def _check_resource(check: ResourceCheck, verb: str) -> _Decision:
    question = check.question._replace(verb=verb, service_account=check.authorizer.service_account)
    return _Decision(check.authorizer.ask(question))


def _check_path(check: _PathCheck, verb: str) -> _Decision:
    question = Question(verb, check.authorizer.service_account, check.path)
    return _Decision(check.authorizer.ask(question))


_A, _P, _G, _R, _D = (
    f"{_PREFIX}{name}" for name in ("Authorizer", "PathCheck", "GroupCheck", "ResourceCheck", "Decision")
)
_ROWS: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    ("path", "authorizer_path", f".{_A} string -> {_P}", _PathCheck),
    ("group", "authorizer_group", f".{_A} string -> {_G}", _GroupCheck),
    (
        "serviceAccount",
        "authorizer_serviceaccount",
        f".{_A} string string -> {_A}",
        lambda a, namespace, name: replace(a, service_account=(namespace, name)),
    ),
    ("resource", "groupcheck_resource", f".{_G} string -> {_R}", _resource),
    ("subresource", "resourcecheck_subresource", f".{_R} string -> {_R}", _with("subresource")),
    ("namespace", "resourcecheck_namespace", f".{_R} string -> {_R}", _with("namespace")),
    ("name", "resourcecheck_name", f".{_R} string -> {_R}", _with("name")),
    ("fieldSelector", "authorizer_fieldselector", f".{_R} string -> {_R}", _with("field_selector")),
    ("labelSelector", "authorizer_labelselector", f".{_R} string -> {_R}", _with("label_selector")),
    ("check", "pathcheck_check", f".{_P} string -> {_D}", _check_path),
    ("check", "resourcecheck_check", f".{_R} string -> {_D}", _check_resource),
    ("allowed", "decision_allowed", f".{_D} -> bool", lambda d: d.answer.allowed),
    ("reason", "decision_reason", f".{_D} -> string", lambda d: d.answer.reason),
    ("error", "decision_error", f".{_D} -> string", lambda d: d.answer.error),
    ("errored", "decision_errored", f".{_D} -> bool", lambda d: bool(d.answer.error)),
)
OVERLOADS = tuple(declare(*row) for row in _ROWS)
