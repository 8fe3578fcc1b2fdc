"""Which flow schema and priority level a request belongs to, live from the objects: its seats, and told to its client.

Rules: the "API Priority and Fairness" page of the Kubernetes documentation: schemas by matchingPrecedence and name, the
first that matches counts; one whose level does not exist is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from k3s.api import object as objects
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.cache import Reader
from k3s.apiserver.identity import User, service_account_of
from k3s.apiserver.request import RequestInfo
from k3s.apiserver.seats import Seating, Tally, plan

SCHEMA = builtin("flowcontrol.apiserver.k8s.io/v1", "FlowSchema")
LEVEL = builtin("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration")
_ALL = "*"
_LAST = 1000  # the default precedence
_KNOWN_LIMIT = 4096
_Key = tuple[str, tuple[str, ...], str, str, str, str, str, str]


class Flow(NamedTuple):
    """A schema with its level, the header lines that tell of them, and the seats that its requests take."""

    schema: Object
    level: Object
    lines: bytes
    tally: Tally


class Flows:
    """Classifies requests. Answers are remembered until a schema or a level changes, which the seats follow, too."""

    def __init__(self, reader: Reader, seating: Seating, now: Callable[[], float]) -> None:
        self._reader = reader
        self._seating = seating
        self._now = now
        self._version = (-1, -1)
        self._flows: list[Flow] = []
        self._known: dict[_Key, Flow | None] = {}

    def of(self, user: User, info: RequestInfo) -> Flow | None:
        """The flow of a request; None when no schema matches."""
        version = self._reader.version
        if (now := (version(SCHEMA), version(LEVEL))) != self._version:
            self._version = now
            self._flows = self._ordered()
            self._known.clear()
        path = "" if info.is_resource else info.path
        key = (user.name, user.groups, info.verb, info.group, info.resource, info.subresource, info.namespace, path)
        try:
            return self._known[key]
        except KeyError:
            if len(self._known) >= _KNOWN_LIMIT:
                self._known.clear()
            found = next((flow for flow in self._flows if _matches(flow.schema["spec"], user, info)), None)
            self._known[key] = found
            return found

    def _ordered(self) -> list[Flow]:
        levels = {objects.name(level): level for level in self._reader.list(LEVEL)}
        self._seating.configure(map(plan, levels.values()), self._now())
        flows = []
        for schema in sorted(self._reader.list(SCHEMA), key=_rank):
            level = levels.get(schema["spec"]["priorityLevelConfiguration"]["name"])
            if level is not None:
                lines = (
                    f"X-Kubernetes-Pf-Flowschema-Uid: {schema['metadata']['uid']}\r\n"
                    f"X-Kubernetes-Pf-Prioritylevel-Uid: {level['metadata']['uid']}\r\n"
                )
                tally = self._seating.levels[objects.name(level)].tally(objects.name(schema))
                flows.append(Flow(schema, level, lines.encode(), tally))
        return flows


def _rank(schema: Object) -> tuple[int, str]:
    return schema["spec"].get("matchingPrecedence") or _LAST, objects.name(schema)


def _matches(spec: Object, user: User, info: RequestInfo) -> bool:
    for rule in spec.get("rules") or ():
        if not any(_is_subject(subject, user) for subject in rule.get("subjects") or ()):
            continue
        if info.is_resource:
            if any(_about_resource(each, info) for each in rule.get("resourceRules") or ()):
                return True
        elif any(_about_path(each, info) for each in rule.get("nonResourceRules") or ()):
            return True
    return False


def _is_subject(subject: Object, user: User) -> bool:
    match subject["kind"]:
        case "User":
            return subject["user"]["name"] in (_ALL, user.name)
        case "Group":
            return subject["group"]["name"] == _ALL or subject["group"]["name"] in user.groups
        case "ServiceAccount":
            wanted, account = subject["serviceAccount"], service_account_of(user.name)
            return account is not None and account[0] == wanted["namespace"] and wanted["name"] in (_ALL, account[1])
    return False


def _has(values: Sequence[str], wanted: str) -> bool:
    return wanted in values or _ALL in values


def _about_resource(rule: Object, info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    in_scope = _has(rule.get("namespaces") or (), info.namespace) if info.namespace else rule.get("clusterScope", False)
    return (
        bool(in_scope)
        and _has(rule["verbs"], info.verb)
        and _has(rule["apiGroups"], info.group)
        and _has(rule["resources"], resource)
    )


def _about_path(rule: Object, info: RequestInfo) -> bool:
    if not _has(rule["verbs"], info.verb):
        return False
    return any(
        url in (_ALL, info.path) or (url.endswith("/*") and info.path.startswith(url[:-1]))
        for url in rule["nonResourceURLs"]
    )
