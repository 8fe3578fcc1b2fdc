"""What of a pod may change: by an update, and of its ephemeral containers; of its status: `podstatus`.

Source: "Pod update and replacement" in the documentation; order and wording as recorded from upstream 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api.object import Object
from k3s.api.validation import containers, podnotes, pods, scheduling
from k3s.api.validation.causes import Causes, forbidden, internal, invalid, required

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
    yield from whole(old, new)
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


def whole(old: Object, new: Object) -> Causes:
    """What holds for the whole of a changed pod; what older servers let pass, and is there already, may stay."""
    before = (old.get("spec") or {}).get("initContainers") or ()
    policies = [p for c in before if c.get("restartPolicy") != "Always" for p in c.get("resizePolicy") or ()]
    borne = any(policy.get("restartPolicy") == "RestartContainer" for policy in policies)
    for cause in pods.whole(new):
        if not (borne and cause["message"].endswith(containers.NO_RESTART)):
            yield cause


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
    yield from whole(old, new)
    field = "spec.ephemeralContainers"
    now = {c.get("name"): c for c in (new.get("spec") or {}).get("ephemeralContainers") or ()}
    for container in (old.get("spec") or {}).get("ephemeralContainers") or ():
        name = container.get("name", "")
        if name not in now:
            yield forbidden(field, f'existing ephemeral containers "{name}" may not be removed\n')
        elif now[name] != container:
            changed = _difference(container, now[name]).replace("spec.", f"{field}[{name}].")
            yield forbidden(field, f'existing ephemeral containers "{name}" may not be changed\n{changed}')
