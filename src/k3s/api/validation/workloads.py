"""Rules for what runs pods: deployments, sets, jobs, autoscalers, disruption budgets.

Source: the API documentation of each kind; order and wording as recorded from upstream 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import selectors
from k3s.api.object import Object
from k3s.api.validation import persistent, pods
from k3s.api.validation.causes import (
    NEGATIVE,
    Causes,
    at_most_100_percent,
    forbidden,
    int_or_percent,
    internal,
    invalid,
    not_negative,
    one_of,
    required,
    selector,
    unchanged,
    unsupported,
)
from k3s.api.validation.events import conditions

Spec = Mapping[str, Any]
_MISMATCH = "`selector` does not match template `labels`"
_STATEFUL = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def _matches(chosen: Spec | None, template: Spec) -> bool:
    try:
        found = selectors.from_object(chosen or {})
    except selectors.SelectorError:
        return True
    if not chosen:
        return False
    return found.matches((template.get("metadata") or {}).get("labels") or {})


def _template(spec: Spec, owner: str, template: Spec) -> Causes:
    """The template of a set: labels that its selector chooses, and pods that always restart."""
    chosen = spec.get("selector")
    if chosen is not None and _broken(chosen):
        return
    if (chosen is None or chosen) and not _matches(chosen, template):
        yield invalid("spec.template.metadata.labels", (template.get("metadata") or {}).get("labels"), _MISMATCH)
    yield from pods.template("spec.template", template, ("Always",), owner)


def _selector(spec: Spec, what: str) -> Causes:
    chosen = spec.get("selector")
    if chosen is None:
        yield required("spec.selector")
        return
    yield from selector("spec.selector", chosen)
    if not chosen:
        yield invalid("spec.selector", chosen, f"empty selector is invalid for {what}")
    if _broken(chosen):
        yield invalid("spec.selector", chosen, "" if what == "statefulset" else "invalid label selector")


def deployment(obj: Object) -> Causes:
    """A deployment."""
    spec = _spec(obj)
    yield from not_negative("spec", spec, "replicas")
    yield from _selector(spec, "deployment")
    yield from _template(spec, "ReplicaSet", spec.get("template") or {})
    yield from _strategy(spec.get("strategy") or {})
    yield from not_negative("spec", spec, "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds", 0)
    if deadline is not None and deadline <= ready:
        yield invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


def _strategy(strategy: Spec) -> Causes:
    kind, rolling = strategy.get("type", "RollingUpdate"), strategy.get("rollingUpdate")
    at = "spec.strategy"
    if kind == "Recreate":
        if rolling is not None:
            yield forbidden(f"{at}.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    elif kind != "RollingUpdate":
        shown = {"Type": kind, "RollingUpdate": rolling}
        yield unsupported(at, shown, ("Recreate", "RollingUpdate"))
    else:
        yield from _rolling(f"{at}.rollingUpdate", rolling or {})


def _rolling(at: str, rolling: Spec) -> Causes:
    surge, gone = rolling.get("maxSurge", "25%"), rolling.get("maxUnavailable", "25%")
    yield from int_or_percent(f"{at}.maxUnavailable", gone)
    yield from int_or_percent(f"{at}.maxSurge", surge)
    if gone in (0, "0%") and surge in (0, "0%"):
        yield invalid(f"{at}.maxUnavailable", gone, "may not be 0 when `maxSurge` is 0")
    yield from at_most_100_percent(f"{at}.maxUnavailable", gone)


def deployment_update(old: Object, new: Object) -> Causes:
    """A changed deployment: the selector stays."""
    yield from deployment(new)
    yield from unchanged("spec.selector", _spec(old).get("selector"), _spec(new).get("selector"))


def replica_set(obj: Object) -> Causes:
    """A replica set."""
    spec = _spec(obj)
    yield from not_negative("spec", spec, "replicas", "minReadySeconds")
    yield from _selector(spec, "deployment")
    yield from _template(spec, "ReplicaSet", spec.get("template") or {})


def _broken(chosen: Spec) -> bool:
    try:
        selectors.from_object(chosen)
    except selectors.SelectorError:
        return True
    return False


def replica_set_update(old: Object, new: Object) -> Causes:
    """A changed replica set: the selector stays."""
    yield from replica_set(new)
    yield from unchanged("spec.selector", _spec(old).get("selector"), _spec(new).get("selector"))


def replication_controller(obj: Object) -> Causes:
    """A replication controller; its selector is plain labels."""
    spec = _spec(obj)
    yield from not_negative("spec", spec, "minReadySeconds")
    chosen = spec.get("selector")
    if not chosen:
        yield required("spec.selector")
    yield from not_negative("spec", spec, "replicas")
    template = spec.get("template")
    if template is None:
        yield required("spec.template")
        return
    own = (template.get("metadata") or {}).get("labels") or {}
    if chosen and any(own.get(key) != value for key, value in chosen.items()):
        yield invalid("spec.template.metadata.labels", own or None, _MISMATCH)
    yield from pods.template("spec.template", template, ("Always",), "ReplicationController")


def stateful_set(obj: Object) -> Causes:
    """A stateful set."""
    spec = _spec(obj)
    if spec.get("podManagementPolicy") not in ("OrderedReady", "Parallel"):
        why = "must be 'OrderedReady' or 'Parallel'"
        yield invalid("spec.podManagementPolicy", spec.get("podManagementPolicy"), why)
    yield from _stateful_strategy(spec.get("updateStrategy") or {})
    policy = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for part in ("whenDeleted", "whenScaled"):
        at = f"spec.persistentVolumeClaimRetentionPolicy.{part}"
        yield from one_of(at, policy.get(part, "Retain"), ("Retain", "Delete"))
    yield from not_negative("spec", spec, "replicas", "minReadySeconds")
    yield from not_negative("spec.ordinals", spec.get("ordinals") or {}, "start")
    yield from _selector(spec, "statefulset")
    claims = spec.get("volumeClaimTemplates") or ()
    yield from _template(spec, "StatefulSet", _with_claims(spec.get("template") or {}, claims))
    for i, claim in enumerate(claims):
        yield from persistent.claim_spec(f"spec.volumeClaimTemplates[{i}].spec", claim.get("spec") or {})


def _with_claims(template: Spec, claims: Sequence[Spec]) -> Spec:
    """The template of a stateful set with the volumes that its pods get from claims of their own."""
    spec = template.get("spec") or {}
    own = [(claim.get("metadata") or {}).get("name", "") for claim in claims]
    if not own:
        return template
    volumes = [volume for volume in spec.get("volumes") or () if volume.get("name") not in own]
    volumes += [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in own]
    return {**template, "spec": {**spec, "volumes": volumes}}


def _stateful_strategy(strategy: Spec) -> Causes:
    kind, rolling, at = strategy.get("type", ""), strategy.get("rollingUpdate"), "spec.updateStrategy"
    if kind == "OnDelete":
        if rolling is not None:
            shown = {"Partition": rolling.get("partition", 0), "MaxUnavailable": rolling.get("maxUnavailable")}
            why = "only allowed for updateStrategy 'RollingUpdate'"
            yield invalid(f"{at}.rollingUpdate", shown, why)
    elif kind == "RollingUpdate":
        yield from not_negative(f"{at}.rollingUpdate", rolling or {}, "partition")
    elif kind:
        shown = {"Type": kind, "RollingUpdate": rolling}
        yield invalid(at, shown, "must be 'RollingUpdate' or 'OnDelete'")
    else:
        yield required(at)


def stateful_set_update(old: Object, new: Object) -> Causes:
    """A changed stateful set: only scale, template and strategies may differ."""
    yield from stateful_set(new)
    free = {
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    }
    before = {k: v for k, v in _spec(old).items() if k not in free}
    after = {k: v for k, v in _spec(new).items() if k not in free}
    if before != after:
        yield forbidden("spec", _STATEFUL)


def daemon_set(obj: Object) -> Causes:
    """A daemon set."""
    spec = _spec(obj)
    chosen = spec.get("selector")
    yield from selector("spec.selector", chosen)
    template = spec.get("template") or {}
    if chosen != {} and not _matches(chosen, template):
        yield invalid("spec.template.metadata.labels", (template.get("metadata") or {}).get("labels"), _MISMATCH)
    if chosen == {}:
        yield invalid("spec.selector", chosen, "empty selector is invalid for daemonset")
    yield from pods.template("spec.template", template, ("Always",), "DaemonSet")
    yield from not_negative("spec", spec, "minReadySeconds")
    strategy = spec.get("updateStrategy") or {}
    kind, at = strategy.get("type", "RollingUpdate"), "spec.updateStrategy.rollingUpdate"
    if kind == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        surge, gone = rolling.get("maxSurge", 0), rolling.get("maxUnavailable", 1)
        yield from int_or_percent(f"{at}.maxUnavailable", gone)
        yield from int_or_percent(f"{at}.maxSurge", surge)
        yield from at_most_100_percent(f"{at}.maxUnavailable", gone)
        yield from at_most_100_percent(f"{at}.maxSurge", surge)
        nothing = [value in (0, "0%") for value in (gone, surge)]
        if all(nothing):
            yield required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0")
        elif not any(nothing):
            yield invalid(f"{at}.maxSurge", surge, "may not be set when maxUnavailable is non-zero")
    elif kind != "OnDelete":
        shown = {"Type": kind, "RollingUpdate": strategy.get("rollingUpdate")}
        yield unsupported("spec.updateStrategy", shown, ("RollingUpdate", "OnDelete"))
    yield from not_negative("spec", spec, "revisionHistoryLimit")


def daemon_set_update(old: Object, new: Object) -> Causes:
    """A changed daemon set: the selector stays."""
    yield from unchanged("spec.selector", _spec(old).get("selector"), _spec(new).get("selector"))
    yield from daemon_set(new)


def pod_template(obj: Object) -> Causes:
    """A pod template object."""
    yield from pods.template("template", obj.get("template") or {})


def controller_revision(obj: Object) -> Causes:
    """A controller revision."""
    if obj.get("data") is None:
        yield required("data", "data is mandatory")
    if obj.get("revision", 0) < 0:
        yield invalid("revision", obj["revision"], NEGATIVE)


def controller_revision_update(old: Object, new: Object) -> Causes:
    """The data of a revision stays."""
    yield from controller_revision(new)
    yield from unchanged("data", old.get("data"), new.get("data"))


_BUDGET_FIELDS = ("minAvailable", "selector", "maxUnavailable", "unhealthyPodEvictionPolicy")


def disruption_budget(obj: Object) -> Causes:
    """A disruption budget."""
    spec = _spec(obj)
    if "minAvailable" in spec and "maxUnavailable" in spec:
        shown = {name: spec.get(name) for name in _BUDGET_FIELDS}
        yield invalid("spec", internal(shown), "minAvailable and maxUnavailable cannot be both set")
    for name in ("minAvailable", "maxUnavailable"):
        if name in spec:
            yield from int_or_percent(f"spec.{name}", spec[name])
            yield from at_most_100_percent(f"spec.{name}", spec[name])
    yield from selector("spec.selector", spec.get("selector"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None:
        yield from one_of("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))


def disruption_budget_status(obj: Object) -> Causes:
    """The conditions and counts of a disruption budget."""
    status = obj.get("status") or {}
    yield from conditions("status.conditions", status.get("conditions"))
    yield from not_negative("status", status, "disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


def scale(obj: Object) -> Causes:
    """The scale of something."""
    yield from not_negative("spec", _spec(obj), "replicas")


# Counts in a status: those that are never negative, in upstream's order, and those that never exceed the whole.
_COUNTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Deployment": (
        (
            *("observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas"),
            *("unavailableReplicas", "collisionCount", "terminatingReplicas"),
        ),
        ("updatedReplicas", "readyReplicas", "availableReplicas"),
    ),
    "StatefulSet": (
        (
            *("replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"),
            *("observedGeneration", "collisionCount"),
        ),
        ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"),
    ),
    "DaemonSet": (
        (
            *("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"),
            *("observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable"),
            "collisionCount",
        ),
        (),
    ),
    "ReplicaSet": (
        ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"),
        ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"),
    ),
}
_COUNTS["ReplicationController"] = _COUNTS["ReplicaSet"]


def status(kind: str, old: Object, new: Object) -> Causes:
    """The status of a set: no count negative, none greater than the whole, available no more than ready."""
    found, (counts, parts) = new.get("status") or {}, _COUNTS[kind]
    yield from not_negative("status", found, *counts)
    for name in parts:
        if found.get(name, 0) > found.get("replicas", 0):
            yield invalid(f"status.{name}", found.get(name, 0), "cannot be greater than status.replicas")
    if parts and found.get("availableReplicas", 0) > found.get("readyReplicas", 0):
        ready = "status.readyReplicas" if kind == "StatefulSet" else "readyReplicas"
        yield invalid("status.availableReplicas", found.get("availableReplicas", 0), f"cannot be greater than {ready}")
    was, now = (old.get("status") or {}).get("collisionCount"), found.get("collisionCount")
    if was is not None and (now is None or now < was):
        yield invalid("status.collisionCount", now or 0, "cannot be decremented")
