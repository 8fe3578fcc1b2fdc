"""What of a pod may change: by an update, of its status, of its ephemeral containers.

Source: "Pod update and replacement" in the documentation; order and wording as recorded from upstream 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation import containers, podnotes, pods, scheduling
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    forbidden,
    internal,
    invalid,
    ip,
    is_ip,
    one_of,
    required,
    unchanged,
)

Spec = Mapping[str, Any]

_CHANGEABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_DEADLINE = "spec.activeDeadlineSeconds"
_TERMS = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def update(old: Object, new: Object) -> Causes:
    """What may change of a pod: images, the deadline downwards, more tolerations, fewer gates."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if before == after and _notes(old) == _notes(new):
        return
    yield from pods.whole(new)
    yield from podnotes.changes("metadata.annotations", old, new)
    if _notes(new):
        yield from podnotes.check("metadata.annotations", _notes(new), after)
    for part in ("containers", "initContainers"):
        if len(before.get(part) or ()) != len(after.get(part) or ()):
            yield forbidden(f"spec.{part}", "pod updates may not add or remove containers")
            return
        for i, container in enumerate(after.get(part) or ()):
            if not container.get("image"):
                yield required(f"spec.{part}[{i}].image")
            yield from containers.image_text(f"spec.{part}[{i}]", container)
    wrong = list(_deadline(before, after))
    yield from wrong
    if wrong and after.get("activeDeadlineSeconds") is not None:
        return
    yield from _tolerations(before, after)
    yield from _gates(before, after)
    gated = bool(before.get("schedulingGates"))
    if gated:
        yield from _steering(before, after)
    if before != after and _fixed(before, gated) != _fixed(after, gated):
        yield forbidden("spec", f"{_CHANGEABLE}\n{_difference(before, after)}")


def _notes(pod: Object) -> Mapping[str, str]:
    return (pod.get("metadata") or {}).get("annotations") or {}


def _deadline(before: Spec, after: Spec) -> Causes:
    deadline, was = after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if deadline is None:
        if was is not None:
            yield invalid(_DEADLINE, None, "must not update from a positive integer to nil value")
    elif not 0 <= deadline <= 2147483647:
        yield invalid(_DEADLINE, deadline, "must be between 0 and 2147483647, inclusive")
    elif was is not None and was < deadline:
        yield invalid(_DEADLINE, deadline, "must be less than or equal to previous value")


def _tolerations(before: Spec, after: Spec) -> Causes:
    def timeless(toleration: Spec) -> Spec:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    kept = [timeless(toleration) for toleration in after.get("tolerations") or ()]
    if any(timeless(toleration) not in kept for toleration in before.get("tolerations") or ()):
        yield forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    else:
        yield from scheduling.tolerations("spec.tolerations", after.get("tolerations") or ())


def _difference(before: Spec, after: Spec) -> str:
    """The fields of a spec that changed, so that the message tells what is not allowed."""
    names_ = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return "\n".join(f"changed: spec.{name}" for name in names_)


def _gates(before: Spec, after: Spec) -> Causes:
    known = {gate.get("name") for gate in before.get("schedulingGates") or ()}
    for i, gate in enumerate(after.get("schedulingGates") or ()):
        if gate.get("name") not in known:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            yield forbidden(f"spec.schedulingGates[{i}].name", why)


def _steering(before: Spec, after: Spec) -> Causes:
    """Where a gated pod can go is only narrowed."""
    was, now = before.get("nodeSelector") or {}, after.get("nodeSelector") or {}
    if any(now.get(key) != value for key, value in was.items()):
        why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        yield invalid("spec.nodeSelector", now or None, why)
    old_terms, terms = _terms(before), _terms(after)
    if old_terms and len(old_terms) != len(terms):
        why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        yield invalid(_TERMS, [_shown(term) for term in terms] or None, why)
        return
    for i, (old_term, term) in enumerate(zip(old_terms, terms, strict=False)):
        if not _only_more(old_term, term):
            why = "only additions are allowed (no mutations or deletions)"
            yield invalid(f"{_TERMS}[{i}]", _shown(term), why)


def _shown(term: Spec) -> Spec:
    parts = ("matchExpressions", "matchFields")
    return internal({part: [internal(rule) for rule in term.get(part) or ()] or None for part in parts})


def _terms(spec: Spec) -> Sequence[Spec]:
    needed = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    return needed.get("nodeSelectorTerms") or ()


def _only_more(old: Spec, new: Spec) -> bool:
    parts = ("matchExpressions", "matchFields")
    if not any(old.get(part) for part in parts) and any(new.get(part) for part in parts):
        return False
    return all((new.get(part) or [])[: len(old.get(part) or ())] == (old.get(part) or []) for part in parts)


def _fixed(spec_: Spec, gated: bool) -> Object:
    """What of a pod spec has to stay as it is; a gated pod may still narrow where it can go."""
    skip = {"activeDeadlineSeconds", "tolerations", "schedulingGates"}
    if gated:
        skip |= {"nodeSelector", "affinity"}
    out = {key: value for key, value in spec_.items() if key not in skip}
    if gated:
        near = {k: v for k, v in (spec_.get("affinity") or {}).items() if k != "nodeAffinity"}
        out["affinity"] = near
    for part in ("containers", "initContainers"):
        if part in out:
            out[part] = [{**container, "image": ""} for container in out[part]]
    if out.get("terminationGracePeriodSeconds", 0) < 0:
        out["terminationGracePeriodSeconds"] = 1
    return out


def ephemeral(old: Object, new: Object) -> Causes:
    """Ephemeral containers only come."""
    if podnotes.MIRROR in _notes(old):
        yield forbidden("[]", "static pods do not support ephemeral containers")
        return
    yield from pods.whole(new)
    field = "spec.ephemeralContainers"
    now = {c.get("name"): c for c in (new.get("spec") or {}).get("ephemeralContainers") or ()}
    for container in (old.get("spec") or {}).get("ephemeralContainers") or ():
        name = container.get("name", "")
        if name not in now:
            yield forbidden(field, f'existing ephemeral containers "{name}" may not be removed\n')
        elif now[name] != container:
            changed = _difference(container, now[name]).replace("spec.", f"{field}[{name}].")
            yield forbidden(field, f'existing ephemeral containers "{name}" may not be changed\n{changed}')


_SYSTEM_CONDITIONS = ("PodScheduled", "Ready", "Initialized")


def status(old: Object, new: Object) -> Causes:
    """The status of a pod: its class of service stays, what ended stays so, addresses are such."""
    before, found = old.get("status") or {}, new.get("status") or {}
    for i, condition in enumerate(found.get("conditions") or ()):
        kind = condition.get("type", "")
        if kind not in _SYSTEM_CONDITIONS:
            yield from each(f"metadata.conditions[{i}].Type", kind, names.qualified_name(kind))
    nominated = found.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        yield from each("status.nominatedNodeName", nominated, names.dns_subdomain(nominated))
    if before.get("qosClass"):
        yield from unchanged("status.qosClass", before["qosClass"], found.get("qosClass", ""))
    yield from _transitions(old, new)
    yield from _claim_statuses("status.resourceClaimStatuses", new)
    yield from _addresses(found)
    for part in _STATUSES:
        yield from _users(f"status.{part}", found.get(part) or (), new)


_STATUSES = {
    "containerStatuses": "containers",
    "initContainerStatuses": "initContainers",
    "ephemeralContainerStatuses": "ephemeralContainers",
}


def _transitions(old: Object, new: Object) -> Causes:
    """A container that is not started again stays terminated."""
    spec = old.get("spec") or {}
    for part, listed in _STATUSES.items():
        policy = "Never" if listed == "ephemeralContainers" else spec.get("restartPolicy", "Always")
        if policy == "Always":
            continue
        own = {c.get("name"): c for c in spec.get(listed) or () if "restartPolicy" in c or "restartPolicyRules" in c}
        now = {s.get("name"): s.get("state") or {} for s in (new.get("status") or {}).get(part) or ()}
        for i, was in enumerate((old.get("status") or {}).get(part) or ()):
            name, over = was.get("name"), (was.get("state") or {}).get("terminated")
            if over is None or name not in now or "terminated" in now[name] or _restarts(own.get(name), over):
                continue
            if policy == "OnFailure" and over.get("exitCode", 0) != 0 and name not in own:
                continue
            yield forbidden(f"status.{part}[{i}].state", "may not be transitioned to non-terminated state")


def _restarts(container: Spec | None, over: Spec) -> bool:
    """Whether a container's own policy starts it again after it ended so."""
    if container is None:
        return False
    code = over.get("exitCode", 0)
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        if (code in (codes.get("values") or ())) == (codes.get("operator") == "In"):
            return True
    policy = container.get("restartPolicy")
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _claim_statuses(field: str, pod: Object) -> Causes:
    known = {c.get("name") for c in (pod.get("spec") or {}).get("resourceClaims") or ()}
    seen: set[str] = set()
    for i, value in enumerate((pod.get("status") or {}).get("resourceClaimStatuses") or ()):
        at, name = f"{field}[{i}].name", value.get("name", "")
        if name not in known:
            yield invalid(at, name, "must match the name of an entry in `spec.resourceClaims`")
        if name in seen:
            yield duplicate(at, name)
        seen.add(name)
        if value.get("resourceClaimName") is not None:
            yield from each(at, value["resourceClaimName"], names.dns_subdomain(value["resourceClaimName"]))


def _addresses(found: Spec) -> Causes:
    own, host = found.get("podIPs") or (), found.get("hostIPs") or ()
    yield from _families("status.podIPs", own, repeats_last=True)
    if host and found.get("hostIP", "") != host[0].get("ip", ""):
        yield invalid("status.hostIPs[0].ip", host[0].get("ip", ""), "must be equal to `hostIP`")
    yield from _families("status.hostIPs", host, repeats_last=False)


def _families(at: str, entries: Sequence[Spec], *, repeats_last: bool) -> Causes:
    """At most one address of each family."""
    texts = [entry.get("ip", "") for entry in entries]
    for i, text in enumerate(texts):
        yield from ip(f"{at}[{i}]", text)
    if len(texts) < 2:
        return
    more = [invalid(at, [internal(e) for e in entries], "may specify no more than one IP for each IP family")]
    twice = [duplicate(f"{at}[{i}]", internal(entries[i])) for i, t in enumerate(texts) if t in texts[:i]]
    bad = next((f"[{i}]: {text}" for i, text in enumerate(texts) if not is_ip(text)), None)
    if bad is not None:
        why = f"failed to check for dual stack with error:invalid IP{bad}"
        more.insert(0, invalid(at, [internal(e) for e in entries], why))
    elif len(texts) == 2 and len({":" in text for text in texts}) == 2:
        more = []
    yield from (*more, *twice) if repeats_last else (*twice, *more)


def _users(field: str, statuses: Sequence[Spec], pod: Object) -> Causes:
    """Who runs in the containers, and how its devices do."""
    name = ((pod.get("spec") or {}).get("os") or {}).get("name", "linux")
    for i, value in enumerate(statuses):
        linux = (value.get("user") or {}).get("linux")
        at = f"{field}[{i}].linux"
        if linux is not None and name == "windows":
            yield forbidden(at, "cannot be set for a windows pod")
        elif linux is not None:
            ids = {"uid": linux.get("uid", 0), "gid": linux.get("gid", 0)}
            ids |= {f"supplementalGroups[{j}]": g for j, g in enumerate(linux.get("supplementalGroups") or ())}
            for part, number in ids.items():
                if not 0 <= number <= 2147483647:
                    yield invalid(f"{at}.{part}", number, "must be between 0 and 2147483647, inclusive")
        for j, device in enumerate(value.get("allocatedResourcesStatus") or ()):
            for k, one in enumerate(device.get("resources") or ()):
                here = f"{field}[{i}].allocatedResourcesStatus[{j}].resources[{k}].health"
                yield from one_of(here, one.get("health", ""), ("Healthy", "Unhealthy", "Unknown"))
