"""What may only be used where a quota covers it: the limitedResources of a ResourceQuotaConfiguration. Pure.

Source: "Limit Priority Class consumption by default" in the Kubernetes documentation; texts as upstream's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k3s.api import quota
from k3s.api.object import Object
from k3s.api.quota import Write

_FIELDS = ("apiGroup", "resource", "matchContains", "matchScopes")


def configuration_errors(limited: object) -> Iterator[str]:
    """What is wrong with a list of limited resources."""
    if not isinstance(limited, list):
        yield "limitedResources: it is no list"
        return
    for i, one in enumerate(limited):
        if not isinstance(one, dict) or not one.get("resource"):
            yield f"limitedResources[{i}].resource: name a resource, such as pods"
            continue
        for name in set(one) - set(_FIELDS):
            yield f"limitedResources[{i}].{name}: there is no such field; there are {', '.join(_FIELDS)}"


def uncovered_resources(limited: Sequence[Object], quotas: Sequence[Object], write: Write) -> list[str]:
    """Limited resources that a write uses and that no quota counts, in order."""
    kind = write.kind
    mine = [one for one in limited if (one["resource"], one.get("apiGroup") or "") == (kind.plural, kind.group)]
    if not mine or not _uses_more(write):
        return []
    parts = [part for one in mine for part in one.get("matchContains") or ()]
    used = [name for name, amount in quota.usage(kind, write.new, write.now).items() if amount.nano > 0]
    wanted = {name for name in used if any(part in name for part in parts)}
    for one in quotas:
        hard = (one.get("status") or {}).get("hard") or {}
        if quota.matches(one, hard, kind, write.new):
            wanted -= set(quota.counts(kind, hard))
    return sorted(wanted)


def uncovered_scopes(limited: Sequence[Object], quotas: Sequence[Object], write: Write) -> str:
    """Limited scopes that an object is in and no quota is about, as Go shows them; empty for none."""
    kind, new = write.kind, write.new
    scopes = [s for one in limited for s in one.get("matchScopes") or () if quota.in_scope(s, kind, new)]
    if not scopes or not _uses_more(write):
        return ""
    covered = {s.get("scopeName") for one in quotas for s in quota.scopes(one) if quota.in_scope(s, kind, new)}
    left = [scope for scope in scopes if scope.get("scopeName") not in covered]
    shown = (f"{{{s.get('scopeName')} {s.get('operator', '')} [{' '.join(s.get('values') or ())}]}}" for s in left)
    return f"[{' '.join(shown)}]" if left else ""


def _uses_more(write: Write) -> bool:
    """Whether a write uses more than what was there."""
    if write.old is None:
        return True
    before = quota.usage(write.kind, write.old, write.now)
    after = quota.usage(write.kind, write.new, write.now)
    return any(name not in before or amount > before[name] for name, amount in after.items())
