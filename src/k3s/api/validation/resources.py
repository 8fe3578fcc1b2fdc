"""Rules for amounts of resources. Source: resource management in the API documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from k3s.api import names, quantity
from k3s.api.validation.causes import (
    NEGATIVE,
    Causes,
    duplicate,
    each,
    forbidden,
    invalid,
    not_found,
    required,
    unsupported,
)

NameRule = Callable[[str, str], Causes]
_SHARED = frozenset({"cpu", "memory"})

_CONTAINER = {"cpu", "memory", "ephemeral-storage"}
_COUNTED = {
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
}
_QUOTA = {
    *_COUNTED,
    *_CONTAINER,
    "storage",
    *(f"{side}.{name}" for side in ("requests", "limits") for name in ("cpu", "memory", "ephemeral-storage")),
    "requests.storage",
}


def is_huge_page(name: str) -> bool:
    """Whether a resource is memory in huge pages."""
    return name.startswith("hugepages-")


def is_native(name: str) -> bool:
    """Whether a resource belongs to Kubernetes itself."""
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """Whether a resource is a device or the like, which is never overcommitted."""
    return not is_native(name) and not name.startswith("requests.") and not names.qualified_name(f"requests.{name}")


def is_strict(name: str) -> bool:
    """Whether of a resource no more is used than is requested, so that request and limit are one."""
    return not is_native(name) or is_huge_page(name)


def _name(field: str, name: str) -> Causes:
    """The name of any resource: one that is known, or one with a prefix."""
    problems = names.qualified_name(name)
    yield from each(field, name, problems)
    if not problems and "/" not in name and name not in _QUOTA and not _is_pages(name):
        yield invalid(field, name, "must be a standard resource type or fully qualified")


def _is_pages(name: str) -> bool:
    return name.startswith(("hugepages-", "requests.hugepages-"))


def any_name(field: str, name: str) -> Causes:
    """The name of a resource that something else than a container has."""
    yield from _name(field, name)


def container_name(field: str, name: str) -> Causes:
    """The name of a resource that a container can have."""
    if name in _CONTAINER:
        return
    yield from _name(field, name)
    if "/" not in name:
        if not is_huge_page(name):
            yield invalid(field, name, "must be a standard resource for containers")
    elif not is_native(name) and not is_extended(name):
        yield invalid(field, name, "doesn't follow extended resource name standard")


def pod_name(field: str, name: str) -> Causes:
    """The name of a resource that the containers of a pod can share."""
    if name in _SHARED:
        return
    wrong = list(_name(field, name))
    yield from wrong
    if not wrong and not is_huge_page(name):
        yield unsupported(field, name, ("cpu", "hugepages-", "memory"))


def quota_name(field: str, name: str) -> Causes:
    """The name of a resource that a quota can limit."""
    wrong = list(_name(field, name))
    yield from wrong
    if "/" not in name and not is_quota(name):
        yield invalid(field, name, "must be a standard resource for quota")


def is_quota(name: str) -> bool:
    """Whether a quota can limit a resource that Kubernetes itself knows by this name."""
    return (name in _QUOTA and name != "storage") or _is_pages(name)


def amount(field: str, name: str, text: str) -> Causes:
    """An amount that is not negative, and whole where halves make no sense."""
    if quantity.compare(text, "0") < 0:
        yield invalid(field, text, NEGATIVE)
    whole = is_extended(name) or name in _COUNTED
    if whole and quantity.milli(text) % 1000:
        yield invalid(field, text, "must be an integer")


def requirements(
    field: str, holder: Mapping[str, Any], claims: Sequence[Mapping[str, Any]] = (), name: NameRule = container_name
) -> Causes:
    """Limits and requests of a container, and which of its pod's claims it uses."""
    limits, requests = holder.get("limits") or {}, holder.get("requests") or {}
    for key, text in limits.items():
        at = f"{field}.limits[{key}]"
        yield from name(at, key)
        yield from amount(at, key, text)
        if is_huge_page(key):
            yield from _pages(at, key, text)
    for key, text in requests.items():
        at = f"{field}.requests[{key}]"
        yield from name(at, key)
        yield from amount(at, key, text)
        limit = limits.get(key)
        strict = is_strict(key)
        if limit is None:
            if strict:
                yield required(f"{field}.limits", "Limit must be set for non overcommitable resources")
        elif text != limit:
            difference = quantity.compare(text, limit)
            if strict and difference:
                yield invalid(f"{field}.requests", text, f"must be equal to {key} limit of {limit}")
            elif difference > 0:
                yield invalid(f"{field}.requests", text, f"must be less than or equal to {key} limit of {limit}")
        if is_huge_page(key):
            yield from _pages(at, key, text)
    given = {*limits, *requests}
    if not given & _SHARED and any(is_huge_page(key) for key in given):
        yield forbidden(field, "HugePages require cpu or memory")
    if holder.get("claims"):
        yield from _claims(f"{field}.claims", holder["claims"], claims)


def _claims(field: str, values: Sequence[Mapping[str, Any]], claims: Sequence[Mapping[str, Any]]) -> Causes:
    known = {claim.get("name") for claim in claims} - {None, ""}
    seen: set[str] = set()
    for i, value in enumerate(values):
        at = f"{field}[{i}]"
        name, request = value.get("name", ""), value.get("request", "")
        if not name:
            yield required(at)
            continue
        key = f"{name}/{request}" if request else name
        if name in seen:
            yield duplicate(at, name)
        else:
            if request:
                yield from each(f"{at}.request", request, names.dns_label(request))
            if key in seen:
                yield duplicate(at, key)
            elif not request:
                for other in seen:
                    if other.partition("/")[0] == name:
                        yield duplicate(at, name)
            seen.add(key)
        if name not in known:
            why = "must be one of the names in pod.spec.resourceClaims"
            why += f": {', '.join(sorted(map(str, known)))}" if known else " which is empty"
            found = not_found(at, name)
            yield {**found, "message": f"{found['message']}: {why}"}


def _pages(field: str, name: str, text: str) -> Causes:
    size = name.removeprefix("hugepages-")
    whole = quantity.is_valid(size) and quantity.value(size) > 0 and quantity.milli(size) % 1000 == 0
    if not whole or quantity.value(text) % quantity.value(size):
        yield invalid(field, text, f"{text} is not positive integer multiple of {name}")
