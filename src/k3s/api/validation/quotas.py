"""Rules for what a namespace may use: limit ranges and quotas.

Source: the API documentation of both; order and wording as recorded from upstream 1.36.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from k3s.api import names, quantity
from k3s.api.object import Object
from k3s.api.validation import resources
from k3s.api.validation.causes import Causes, duplicate, each, forbidden, internal, invalid, required

Spec = Mapping[str, Any]
_LIMIT_TYPES = ("Pod", "Container", "PersistentVolumeClaim")
_PARTS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
_COMPUTE = ("pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory")
# Scope -> the resources that it can be about.
_SCOPES: dict[str, Collection[str]] = {
    "Terminating": _COMPUTE,
    "NotTerminating": _COMPUTE,
    "BestEffort": ("pods",),
    "NotBestEffort": _COMPUTE,
    "PriorityClass": _COMPUTE,
    "CrossNamespacePodAffinity": _COMPUTE,
    "VolumeAttributesClass": ("persistentvolumeclaims", "requests.storage"),
}
_EXISTING = ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity")
_EXISTS_ONLY = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)
_OPPOSITES = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_UNFIT = "unsupported scope applied to resource"


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def limit_range(obj: Object) -> Causes:
    """A limit range."""
    seen: set[str] = set()
    for i, item in enumerate(_spec(obj).get("limits") or ()):
        at, kind = f"spec.limits[{i}]", item.get("type", "")
        problems = names.qualified_name(kind)
        yield from each(f"{at}.type", kind, problems)
        if not problems and "/" not in kind and kind not in _LIMIT_TYPES:
            yield invalid(f"{at}.type", kind, "must be a standard limit type or fully qualified")
        if kind in seen:
            yield duplicate(f"{at}.type", kind)
        seen.add(kind)
        yield from _limits(at, item, kind)


def above(a: str | None, b: str | None) -> bool:
    """Whether the first amount is greater, when both are given."""
    return a is not None and b is not None and quantity.compare(a, b) > 0


def _limits(at: str, item: Spec, kind: str) -> Causes:
    rule = resources.container_name if kind in ("Container", "Pod") else resources.any_name
    parts = {part: item.get(part) or {} for part in _PARTS}
    for part, amounts in parts.items():
        if kind == "Pod" and part in ("default", "defaultRequest"):
            if amounts:
                yield forbidden(f"{at}.{part}", "may not be specified when `type` is 'Pod'")
            parts[part] = {}
        sized = kind != "PersistentVolumeClaim" or "storage" in {**parts["min"], **parts["max"]}
        if part == "maxLimitRequestRatio" and not sized:
            why = "either minimum or maximum storage value is required, but neither was provided"
            yield required(f"{at}.limits", why)
        for name in parts[part]:
            yield from rule(f"{at}.{part}[{name}]", name)
    for name in sorted({name for amounts in parts.values() for name in amounts}):
        yield from _amounts_fit(at, name, {part: amounts.get(name) for part, amounts in parts.items()})


def _amounts_fit(at: str, name: str, amounts: Mapping[str, Any]) -> Causes:
    """The amounts of one resource against each other."""
    low, high, limit, request, ratio = (
        amounts[part] for part in ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio")
    )
    if above(low, high):
        yield invalid(f"{at}.min[{name}]", low, f"min value {low} is greater than max value {high}")
    field = f"{at}.defaultRequest[{name}]"
    if above(low, request):
        yield invalid(field, request, f"min value {low} is greater than default request value {request}")
    if above(request, high):
        yield invalid(field, request, f"default request value {request} is greater than max value {high}")
    if above(request, limit):
        yield invalid(field, request, f"default request value {request} is greater than default limit value {limit}")
    field = f"{at}.default[{name}]"
    if above(low, limit):
        yield invalid(field, low, f"min value {low} is greater than default value {limit}")
    if above(limit, high):
        yield invalid(field, high, f"default value {limit} is greater than max value {high}")
    field = f"{at}.maxLimitRequestRatio[{name}]"
    if above("1", ratio):
        yield invalid(field, ratio, f"ratio {ratio} is less than 1")
    if ratio is not None and low is not None and high is not None and quantity.milli(low):
        most = quantity.milli(high) / quantity.milli(low)
        if quantity.milli(ratio) / 1000 > most:
            yield invalid(field, ratio, f"ratio {ratio} is greater than max/min = {most:f}")
    if resources.is_strict(name) and limit is not None and request is not None and quantity.compare(limit, request):
        why = f"default value {limit} must equal to defaultRequest value {request} in {name}"
        yield invalid(f"{at}.defaultRequest[{name}]", request, why)


def quota(obj: Object) -> Causes:
    """A quota."""
    spec = _spec(obj)
    hard = spec.get("hard") or {}
    yield from _amounts("spec.hard", hard)
    scopes = spec.get("scopes") or []
    for scope in scopes:
        if scope not in _SCOPES:
            yield invalid("spec.scopes", scopes, "unsupported scope")
        for _ in _unfit(scope, hard):
            yield invalid("spec.scopes", scopes, _UNFIT)
    for pair in _OPPOSITES:
        if pair <= set(scopes):
            yield invalid("spec.scopes", scopes, "conflicting scopes")
    if spec.get("scopeSelector") is not None:
        yield from _selector("spec.scopeSelector.matchExpressions", spec, hard)


def _unfit(scope: str, hard: Spec) -> list[str]:
    """The limited resources that a scope cannot be about."""
    return [name for name in sorted(hard) if resources.is_quota(name) and name not in _SCOPES.get(scope, (name,))]


def _selector(at: str, spec: Spec, hard: Spec) -> Causes:
    rules = spec["scopeSelector"].get("matchExpressions") or ()
    parts = ("scopeName", "operator", "values")
    shown = {"MatchExpressions": [internal({part: rule.get(part) for part in parts}) for rule in rules] or None}
    for rule in rules:
        scope, operator, values = rule.get("scopeName", ""), rule.get("operator", ""), rule.get("values") or []
        if scope not in _SCOPES:
            yield invalid(f"{at}.scopeName", scope, "unsupported scope")
        for _ in _unfit(scope, hard):
            yield invalid(at, shown, _UNFIT)
        if scope in _EXISTING and operator != "Exists":
            yield invalid(f"{at}.operator", operator, _EXISTS_ONLY)
        if operator in ("In", "NotIn"):
            if not values:
                why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                yield required(f"{at}.values", why)
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                yield invalid(f"{at}.values", values, why)
        else:
            yield invalid(f"{at}.operator", operator, "not a valid selector operator")
    for pair in _OPPOSITES:
        if pair <= {rule.get("scopeName") for rule in rules}:
            yield invalid(at, spec.get("scopes") or None, "conflicting scopes")


def _amounts(at: str, amounts: Spec | None) -> Causes:
    for name, text in (amounts or {}).items():
        yield from resources.quota_name(f"{at}[{name}]", name)
        yield from resources.amount(f"{at}[{name}]", name, text)


def quota_update(old: Object, new: Object) -> Causes:
    """A changed quota: its scopes stay."""
    yield from quota(new)
    was, now = (_spec(o).get("scopes") or [] for o in (old, new))
    if set(was) != set(now):
        yield invalid("spec.scopes", now or None, "field is immutable")


def quota_status(obj: Object) -> Causes:
    """The amounts in the status of a quota."""
    status = obj.get("status") or {}
    yield from _amounts("status.hard", status.get("hard"))
    yield from _amounts("status.used", status.get("used"))
