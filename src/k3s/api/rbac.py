"""Roles as rules: what a rule allows, what one set of rules lacks to cover another, how roles are aggregated.

Source: the "Using RBAC Authorization" page of the Kubernetes documentation and the rbac.authorization.k8s.io/v1 types.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from k3s.api import selectors
from k3s.api.object import Object

ALL = "*"
GROUP = "rbac.authorization.k8s.io"
EVERYTHING: list[Object] = [
    {"apiGroups": [ALL], "resources": [ALL], "verbs": [ALL]},
    {"nonResourceURLs": [ALL], "verbs": [ALL]},
]


def allows_resource(rule: Object, verb: str, group: str, resource: str, name: str) -> bool:
    """Whether a rule allows `verb` on `resource` (`pods` or `pods/log`), for one object when `name` is not empty."""
    return (
        _has(rule.get("verbs"), verb)
        and _has(rule.get("apiGroups"), group)
        and _has_resource(rule.get("resources") or (), resource)
        and (not rule.get("resourceNames") or name in rule["resourceNames"])
    )


def allows_path(rule: Object, verb: str, path: str) -> bool:
    """Whether a rule allows `verb` on a path that is no resource."""
    return _has(rule.get("verbs"), verb) and any(path_matches(url, path) for url in rule.get("nonResourceURLs") or ())


def path_matches(pattern: str, path: str) -> bool:
    """A nonResourceURL: the path itself, or the start of it when the pattern ends in `*`."""
    return pattern == path or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


def _has(values: Sequence[str] | None, wanted: str) -> bool:
    return values is not None and (wanted in values or ALL in values)


def _has_resource(resources: Sequence[str], wanted: str) -> bool:
    if wanted in resources or ALL in resources:
        return True
    _, slash, subresource = wanted.partition("/")
    return bool(slash) and f"{ALL}/{subresource}" in resources


def missing(held: Sequence[Object], wanted: Iterable[Object]) -> list[Object]:
    """The parts of `wanted` that `held` does not cover: each with one verb on one resource, or one path."""
    return [part for rule in wanted for part in _parts(rule) if not any(_covers(own, part) for own in held)]


def _parts(rule: Object) -> Iterator[Object]:
    verbs = rule.get("verbs") or ()
    for group in rule.get("apiGroups") or ():
        for resource in rule.get("resources") or ():
            for verb in verbs:
                part = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
                names = rule.get("resourceNames") or ()
                if not names:
                    yield part
                for name in names:
                    yield {**part, "resourceNames": [name]}
    for url in rule.get("nonResourceURLs") or ():
        for verb in verbs:
            yield {"nonResourceURLs": [url], "verbs": [verb]}


def _covers(own: Object, part: Object) -> bool:
    """Whether one held rule covers one part; a wildcard is covered only by a wildcard."""
    if not _has(own.get("verbs"), part["verbs"][0]):
        return False
    if "nonResourceURLs" in part:
        url = part["nonResourceURLs"][0]
        return any(path_matches(pattern, url) for pattern in own.get("nonResourceURLs") or ())
    names = own.get("resourceNames") or ()
    return (
        _has(own.get("apiGroups"), part["apiGroups"][0])
        and _has_resource(own.get("resources") or (), part["resources"][0])
        and (not names or (bool(part.get("resourceNames")) and part["resourceNames"][0] in names))
    )


def compact(rules: Iterable[Object]) -> list[Object]:
    """Rules about the same single resource joined into one with all their verbs; the others as they are."""
    joined: dict[tuple[str, ...], Object] = {}
    rest: list[Object] = []
    for rule in rules:
        groups, resources = list(rule.get("apiGroups") or ()), list(rule.get("resources") or ())
        names = rule.get("resourceNames") or ()
        if len(groups) != 1 or len(resources) != 1 or len(names) > 1 or rule.get("nonResourceURLs"):
            rest.append(rule)
            continue
        key = (groups[0], resources[0], *names)
        known = joined.get(key)
        joined[key] = {**known, "verbs": [*known["verbs"], *rule["verbs"]]} if known else rule
    return [*joined.values(), *rest]


def describe(rule: Object) -> str:
    """A rule as refusals show it: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`."""
    fields = (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("ResourceNames", "resourceNames"),
        ("Verbs", "verbs"),
    )
    return "{" + ", ".join(f"{title}:{quoted(rule[field])}" for title, field in fields if rule.get(field)) + "}"


def quoted(values: Iterable[str]) -> str:
    """A list of strings as refusals show it: `["a" "b"]`."""
    return "[" + " ".join(json.dumps(value, ensure_ascii=False) for value in values) + "]"


def aggregate(cluster_roles: Sequence[Object]) -> list[Object]:
    """The cluster roles whose rules have to change, with their new rules: the union of the roles they select.

    Roles are taken in order of name and each rule once, so that the result is the same every time. A role that selects
    aggregated ones gets what those will have.
    """
    roles = {str(role["metadata"]["name"]): role for role in cluster_roles}
    changed: dict[str, Object] = {}
    for _ in roles:  # each round passes rules on by one step; longer chains than roles do not exist
        step = {name: new for name, role in roles.items() if (new := _aggregated(role, roles)) is not role}
        if not step:
            break
        roles |= step
        changed |= step
    return [changed[name] for name in sorted(changed)]


def _aggregated(role: Object, roles: Mapping[str, Object]) -> Object:
    wanted = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
    if not wanted:
        return role
    ordered = [roles[name] for name in sorted(roles)]
    rules = _selected_rules(role, ordered, [selectors.from_object(selector) for selector in wanted])
    return role if rules == (role.get("rules") or []) else {**role, "rules": rules}


def _selected_rules(role: Object, others: Sequence[Object], chosen: Sequence[Any]) -> list[Object]:
    rules: list[Object] = []
    for selector in chosen:
        for other in others:
            if other is not role and selector.matches(other["metadata"].get("labels") or {}):
                rules.extend(rule for rule in other.get("rules") or () if rule not in rules)
    return rules
