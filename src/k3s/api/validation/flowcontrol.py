"""Rules for priority levels and flow schemas (flowcontrol.apiserver.k8s.io).

Source: the API documentation of both kinds; order and wording as upstream's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    forbidden,
    invalid,
    one_of,
    required,
    unsupported,
)

Spec = Mapping[str, Any]
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_SUBJECTS = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}
_MOST_QUEUES = 10_000_000
_HASH_BITS = 60
_COUNT = "must be a non-negative integer"


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def _conditions(obj: Object) -> Causes:
    seen: set[str] = set()
    for i, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        at, kind = f"status.conditions[{i}].type", condition.get("type", "")
        if kind in seen:
            yield duplicate(at, kind)
        seen.add(kind)
        if not kind:
            yield required(at)


def status(obj: Object) -> Causes:
    """The status of either kind: no condition twice."""
    yield from _conditions(obj)


def priority_level(obj: Object) -> Causes:
    """A priority level."""
    spec, name = _spec(obj), (obj.get("metadata") or {}).get("name", "")
    kind = spec.get("type", "")
    if (kind == "Exempt") != (name == "exempt"):
        yield invalid("spec.type", kind, "must be 'Exempt' if and only if `name` is 'exempt'")
    if kind == "Exempt":
        exempt = spec.get("exempt")
        if exempt is not None:
            yield from _shares("spec.exempt", exempt, 0)
        if "limited" in spec:
            yield forbidden("spec.limited", "must be nil if the type is not Limited")
    elif kind == "Limited":
        if "exempt" in spec:
            yield forbidden("spec.exempt", "must be nil if the type is Limited")
        if spec.get("limited") is None:
            yield required("spec.limited", "must not be empty when type is Limited")
        else:
            yield from _limited("spec.limited", spec["limited"])
    else:
        yield from one_of("spec.type", kind, ("Exempt", "Limited"))
    yield from _conditions(obj)


def _shares(at: str, part: Spec, usual: int) -> Causes:
    shares, lendable = part.get("nominalConcurrencyShares", usual), part.get("lendablePercent", 0)
    if shares < 0:
        yield invalid(f"{at}.nominalConcurrencyShares", shares, _COUNT)
    if not 0 <= lendable <= 100:
        yield invalid(f"{at}.lendablePercent", lendable, "must be between 0 and 100, inclusive")


def _limited(at: str, limited: Spec) -> Causes:
    yield from _shares(at, limited, 30)
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        yield invalid(f"{at}.borrowingLimitPercent", borrowing, f"if specified, {_COUNT}")
    response, here = limited.get("limitResponse") or {}, f"{at}.limitResponse"
    if response.get("type") == "Reject":
        if "queuing" in response:
            yield forbidden(f"{here}.queuing", "must be nil if limited.limitResponse.type is not Limited")
    elif response.get("type") == "Queue":
        if response.get("queuing") is None:
            yield required(f"{here}.queuing", "must not be empty if limited.limitResponse.type is Limited")
        else:
            yield from _queuing(f"{here}.queuing", response["queuing"])
    else:
        yield from one_of(f"{here}.type", response.get("type", ""), ("Queue", "Reject"))


def _queuing(at: str, queuing: Spec) -> Causes:
    length, queues, hand = (queuing.get(n, d) for n, d in (("queueLengthLimit", 50), ("queues", 64), ("handSize", 8)))
    if length <= 0:
        yield invalid(f"{at}.queueLengthLimit", length, "must be positive")
    if queues <= 0:
        yield invalid(f"{at}.queues", queues, "must be positive")
    elif queues > _MOST_QUEUES:
        yield invalid(f"{at}.queues", queues, f"must not be greater than {_MOST_QUEUES}")
    if hand <= 0:
        yield invalid(f"{at}.handSize", hand, "must be positive")
    elif hand > queues:
        yield invalid(f"{at}.handSize", hand, f"should not be greater than queues ({queues})")
    elif math.ceil(math.log2(queues) * hand) > _HASH_BITS:
        why = f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {_HASH_BITS}"
        yield invalid(f"{at}.handSize", hand, why)


def flow_schema(obj: Object) -> Causes:
    """Which requests belong to which priority level."""
    spec, name = _spec(obj), (obj.get("metadata") or {}).get("name", "")
    rank, method = spec.get("matchingPrecedence", 1000), spec.get("distinguisherMethod")
    at = "spec.matchingPrecedence"
    if rank <= 0:
        yield invalid(at, rank, "must be a positive value")
    if rank > 10000:
        yield invalid(at, rank, "must not be greater than 10000")
    if rank == 1 and name != "exempt":
        yield invalid(at, rank, "only the schema named 'exempt' may have matchingPrecedence 1")
    kinds = ("ByNamespace", "ByUser")
    if method is not None and method.get("type", "") not in kinds:
        yield unsupported("spec.distinguisherMethod.type", {"Type": method.get("type", "")}, kinds)
    level = (spec.get("priorityLevelConfiguration") or {}).get("name", "")
    if level:
        yield from each("spec.priorityLevelConfiguration.name", level, names.dns_subdomain(level))
    else:
        yield required("spec.priorityLevelConfiguration.name", "must reference a priority level")
    for i, rule in enumerate(spec.get("rules") or ()):
        yield from _rule(f"spec.rules[{i}]", rule)
    yield from _conditions(obj)


def _rule(at: str, rule: Spec) -> Causes:
    subjects = rule.get("subjects") or ()
    for i, subject in enumerate(subjects):
        yield from _subject(f"{at}.subjects[{i}]", subject)
    if not subjects:
        yield required(f"{at}.subjects", "subjects must contain at least one value")
    resources, others = rule.get("resourceRules") or (), rule.get("nonResourceRules") or ()
    if not resources and not others:
        yield required(at, "at least one of resourceRules and nonResourceRules has to be non-empty")
    for i, part in enumerate(resources):
        yield from _resources(f"{at}.resourceRules[{i}]", part)
    for i, part in enumerate(others):
        yield from _paths(f"{at}.nonResourceRules[{i}]", part)


def _subject(at: str, subject: Spec) -> Causes:
    kind = subject.get("kind", "")
    own = _SUBJECTS.get(kind)
    if own is None:
        yield from one_of(f"{at}.kind", kind, sorted(_SUBJECTS))
        return
    here, value = f"{at}.{own}", subject.get(own)
    if value is None:
        yield required(here, f"{own} is required when subject kind is '{kind}'")
    elif not value.get("name"):
        yield required(f"{here}.name")
    elif own == "serviceAccount" and value["name"] != "*":
        yield from each(f"{here}.name", value["name"], names.dns_subdomain(value["name"]))
    if value is not None and own == "serviceAccount":
        space = value.get("namespace", "")
        if space:
            yield from each(f"{here}.namespace", space, names.dns_label(space))
        else:
            yield required(f"{here}.namespace", "must specify namespace for service account")
    order = ("user", "group") if own == "serviceAccount" else ("serviceAccount", "group", "user")
    for other in order:
        if other != own and subject.get(other) is not None:
            title = next(title for title, field in _SUBJECTS.items() if field == other)
            yield forbidden(f"{at}.{other}", f"{other} is forbidden when subject kind is not '{title}'")


def _verbs(at: str, verbs: Sequence[str]) -> Causes:
    if not verbs:
        yield required(at, "verbs must contain at least one value")
    elif "*" in verbs:
        if len(verbs) > 1:
            yield invalid(at, list(verbs), "if '*' is present, must not specify other verbs")
    elif not set(verbs) <= set(_VERBS):
        yield unsupported(at, list(verbs), _VERBS)


def _resources(at: str, rule: Spec) -> Causes:
    yield from _verbs(f"{at}.verbs", rule.get("verbs") or ())
    for part, one, many in (
        ("apiGroups", "at least one api group", "api groups"),
        ("resources", "at least one resource", "resources"),
    ):
        values = rule.get(part) or []
        if not values:
            yield required(f"{at}.{part}", f"resource rules must supply {one}")
        elif len(values) > 1 and "*" in values:
            yield invalid(f"{at}.{part}", values, f"if '*' is present, must not specify other {many}")
    spaces, here = rule.get("namespaces") or [], f"{at}.namespaces"
    if not spaces and not rule.get("clusterScope"):
        yield required(here, "resource rules that are not cluster scoped must supply at least one namespace")
    elif "*" in spaces:
        if len(spaces) > 1:
            yield invalid(here, spaces, "if '*' is present, must not specify other namespaces")
    else:
        for i, space in enumerate(spaces):
            for problem in names.dns_label(space):
                why = f"each member of this list must be '*' or a DNS-1123 label; {problem}"
                yield invalid(f"{here}[{i}]", space, why)


def _paths(at: str, rule: Spec) -> Causes:
    yield from _verbs(f"{at}.verbs", rule.get("verbs") or ())
    paths, here = rule.get("nonResourceURLs") or [], f"{at}.nonResourceURLs"
    if not paths:
        yield required(here, "nonResourceURLs must contain at least one value")
    elif "*" in paths:
        if len(paths) > 1:
            yield invalid(here, paths, "if '*' is present, must not specify other non-resource URLs")
    else:
        for i, path in enumerate(paths):
            problem = _bad_path(path)
            if problem:
                yield invalid(f"{here}[{i}]", path, problem)


def _bad_path(path: str) -> str:
    if not path:
        return "must not be empty"
    if path == "/":
        return ""
    if not path.startswith("/"):
        return "must start with slash"
    if " " in path:
        return "must not contain white-space"
    if "//" in path:
        return "must not contain double slash"
    stars = path.count("*")
    return "wildcard can only do suffix matching" if stars > 1 or (stars and not path.endswith("/*")) else ""
