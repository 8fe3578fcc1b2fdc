"""Which requests are told of, and how much: the rules of a policy file, first match wins.

Source: the Policy type of audit.k8s.io/v1 and "Auditing", Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k3s.api.object import Object
from k3s.apiserver.identity import User
from k3s.apiserver.request import RequestInfo

NONE, METADATA, REQUEST, REQUEST_RESPONSE = LEVELS = ("None", "Metadata", "Request", "RequestResponse")
RECEIVED, STARTED, COMPLETE, PANIC = STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
_VERSION = "audit.k8s.io/v1"
_RULE_FIELDS = {
    "level": str,
    "users": list,
    "userGroups": list,
    "verbs": list,
    "resources": list,
    "namespaces": list,
    "nonResourceURLs": list,
    "omitStages": list,
    "omitManagedFields": bool,
}


class PolicyError(ValueError):
    """A policy that cannot be used; the text names the field."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of one group that a rule is about; no names: all of them."""

    group: str
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def match(self, info: RequestInfo) -> bool:
        """Whether a request is about one of them."""
        if self.group != info.group:
            return False
        if not self.resources:
            return True
        if self.names and info.name not in self.names:
            return False
        whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        wanted = {"*", whole, f"{info.resource}/*"} | ({f"*/{info.subresource}"} if info.subresource else set())
        return any(resource in wanted for resource in self.resources)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is told of the requests that match; an empty part matches everything."""

    level: str
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    resources: tuple[Resources, ...] = ()
    namespaces: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()
    omitted: frozenset[str] = frozenset()
    omits_managed_fields: bool = False

    def match(self, user: User | None, info: RequestInfo) -> bool:
        """Whether a request is this rule's; one whose sender is not known is not told apart by users."""
        if user is not None:
            if self.users and user.name not in self.users:
                return False
            if self.groups and self.groups.isdisjoint(user.groups):
                return False
        if self.verbs and info.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return self._resource(info)
        return not self.urls or (not info.is_resource and any(_covers(url, info.path) for url in self.urls))

    def _resource(self, info: RequestInfo) -> bool:
        if not info.is_resource or (self.namespaces and info.namespace not in self.namespaces):
            return False
        return not self.resources or any(resources.match(info) for resources in self.resources)


#: What is told of a request that no rule matches.
NOTHING = Rule(NONE)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules in order."""

    rules: tuple[Rule, ...]

    def rule(self, user: User | None, info: RequestInfo) -> Rule:
        """The rule that decides about a request."""
        return next((rule for rule in self.rules if rule.match(user, info)), NOTHING)


def parse(document: Any) -> Policy:
    """A Policy object as rules. Raises PolicyError."""
    if not isinstance(document, dict) or (document.get("apiVersion"), document.get("kind")) != (_VERSION, "Policy"):
        raise PolicyError(f"it is no Policy of {_VERSION}")
    given = document.get("rules")
    if not isinstance(given, list) or not given:
        raise PolicyError("rules: at least one rule is needed, such as {level: Metadata}")
    omitted = _stages("omitStages", document.get("omitStages"))
    managed = document.get("omitManagedFields") or False
    return Policy(tuple(_rule(f"rules[{i}]", rule, omitted, managed) for i, rule in enumerate(given)))


def _rule(at: str, given: Any, omitted: frozenset[str], managed: bool) -> Rule:
    _shape(at, given, _RULE_FIELDS)
    level = given.get("level")
    if level not in LEVELS:
        raise PolicyError(f"{at}.level: {_quoted(level)} is none of {', '.join(LEVELS)}")
    resources = tuple(_resources(f"{at}.resources[{i}]", one) for i, one in enumerate(given.get("resources") or ()))
    urls = tuple(_texts(f"{at}.nonResourceURLs", given.get("nonResourceURLs")))
    for url in urls:
        _check_url(f"{at}.nonResourceURLs", url)
    if urls and (resources or given.get("namespaces")):
        raise PolicyError(f"{at}.nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs")
    return Rule(
        level,
        frozenset(_texts(f"{at}.users", given.get("users"))),
        frozenset(_texts(f"{at}.userGroups", given.get("userGroups"))),
        frozenset(_texts(f"{at}.verbs", given.get("verbs"))),
        resources,
        frozenset(_texts(f"{at}.namespaces", given.get("namespaces"))),
        urls,
        omitted | _stages(f"{at}.omitStages", given.get("omitStages")),
        given.get("omitManagedFields", managed),
    )


def _resources(at: str, given: Any) -> Resources:
    _shape(at, given, {"group": str, "resources": list, "resourceNames": list})
    group = given.get("group") or ""
    if "/" in group or group == "core":
        raise PolicyError(f"{at}.group: {_quoted(group)} is no group; leave it out for the core group")
    resources = tuple(_texts(f"{at}.resources", given.get("resources")))
    names = tuple(_texts(f"{at}.resourceNames", given.get("resourceNames")))
    if names and not resources:
        raise PolicyError(f"{at}.resourceNames: using resourceNames requires at least one resource")
    return Resources(group, resources, names)


def _shape(at: str, given: Any, fields: Mapping[str, type]) -> None:
    if not isinstance(given, dict):
        raise PolicyError(f"{at}: it is no object")
    for name, value in given.items():
        kind = fields.get(name)
        if kind is None:
            raise PolicyError(f"{at}.{name}: there is no such field; there are {', '.join(fields)}")
        if value is not None and not isinstance(value, kind):
            raise PolicyError(f"{at}.{name}: {_quoted(value)} is no {_WORDS[kind]}")


_WORDS = {str: "text", list: "list", bool: "true or false"}


def _texts(at: str, given: Sequence[Any] | None) -> Iterable[str]:
    for value in given or ():
        if not isinstance(value, str):
            raise PolicyError(f"{at}: {_quoted(value)} is no text")
        yield value


def _stages(at: str, given: Any) -> frozenset[str]:
    for stage in given or ():
        if stage not in STAGES:
            raise PolicyError(f"{at}: {_quoted(stage)} is none of {', '.join(STAGES)}")
    return frozenset(given or ())


def _check_url(at: str, url: str) -> None:
    if url != "*" and not url.startswith("/"):
        raise PolicyError(f"{at}: {_quoted(url)}: non-resource URL rules must begin with a '/' character")
    if "*" in url[:-1]:
        raise PolicyError(f"{at}: {_quoted(url)}: wildcards '*' must be the final character of the rule")


def _covers(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url[:-1]))


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def without_managed_fields(obj: Object) -> Object:
    """An object, or the objects of a list, without the record of who changed what."""
    if "items" in obj and isinstance(obj["items"], list):
        return {**obj, "items": [without_managed_fields(item) for item in obj["items"]]}
    meta = obj.get("metadata")
    if not isinstance(meta, dict) or "managedFields" not in meta:
        return obj
    return {**obj, "metadata": {key: value for key, value in meta.items() if key != "managedFields"}}
