"""Rules for amounts of resources. Source: resource management in the API documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import names, quantity
from k3s.api.validation.causes import NEGATIVE, Causes, each, forbidden, invalid, required

_CONTAINER = {"cpu", "memory", "ephemeral-storage"}
_QUOTA = {
    *_CONTAINER,
    "storage",
    *(f"{side}.{name}" for side in ("requests", "limits") for name in ("cpu", "memory", "ephemeral-storage")),
    "requests.storage",
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


def is_huge_page(name: str) -> bool:
    """Whether a resource is memory in huge pages."""
    return name.startswith("hugepages-")


def is_native(name: str) -> bool:
    """Whether a resource belongs to Kubernetes itself."""
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """Whether a resource is a device or the like, which is never overcommitted."""
    return not is_native(name) and not name.startswith("requests.")


def container_name(field: str, name: str) -> Causes:
    """The name of a resource that a container can have."""
    yield from each(field, name, names.qualified_name(name))
    if "/" not in name and name not in _CONTAINER and not is_huge_page(name):
        if name not in _QUOTA:
            yield invalid(field, name, "must be a standard resource type or fully qualified")
        yield invalid(field, name, "must be a standard resource for containers")


def quota_name(field: str, name: str) -> Causes:
    """The name of a resource that a quota can limit."""
    yield from each(field, name, names.qualified_name(name))
    known = name in _QUOTA or is_huge_page(name) or name.startswith(("requests.hugepages-", "limits.hugepages-"))
    if "/" not in name and not known:
        yield invalid(field, name, "must be a standard resource type or fully qualified")
        yield invalid(field, name, "must be a standard resource for quota")


def amount(field: str, name: str, text: str) -> Causes:
    """An amount that is not negative, and whole where halves make no sense."""
    if quantity.compare(text, "0") < 0:
        yield invalid(field, text, NEGATIVE)
    whole = is_extended(name) or name in _COUNTED
    if whole and quantity.milli(text) % 1000:
        yield invalid(field, text, "must be an integer")


def requirements(field: str, holder: Mapping[str, Any] | None) -> Causes:
    """Limits and requests of a container."""
    limits, requests = (holder or {}).get("limits") or {}, (holder or {}).get("requests") or {}
    for side, amounts in (("limits", limits), ("requests", requests)):
        for name, text in amounts.items():
            at = f"{field}.{side}[{name}]"
            yield from container_name(at, name)
            yield from amount(at, name, text)
            if is_huge_page(name):
                yield from _pages(at, name, text)
    for name, text in requests.items():
        limit = limits.get(name)
        strict = is_extended(name) or is_huge_page(name)
        if limit is None:
            if strict:
                yield required(f"{field}.limits", "Limit must be set for non overcommitable resources")
        elif strict and quantity.compare(text, limit):
            yield invalid(f"{field}.requests", text, f"must be equal to {name} limit of {limit}")
        elif quantity.compare(text, limit) > 0:
            yield invalid(f"{field}.requests", text, f"must be less than or equal to {name} limit of {limit}")
    given = {*limits, *requests}
    if any(is_huge_page(name) for name in given) and not given & {"cpu", "memory"}:
        yield forbidden(field, "HugePages require cpu or memory")


def _pages(field: str, name: str, text: str) -> Causes:
    size = name.removeprefix("hugepages-")
    if quantity.is_valid(size) and quantity.value(text) % max(1, quantity.value(size)):
        yield invalid(field, text, f"{text} is not positive integer multiple of {name}")
