"""Rules for what runs pods: deployments, sets, jobs, autoscalers, disruption budgets.

Source: the API documentation of each kind; order and wording as recorded from upstream 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names, selectors
from k3s.api.object import Object
from k3s.api.validation import cron, pods
from k3s.api.validation.causes import (
    IMMUTABLE,
    NEGATIVE,
    Causes,
    at_most_100_percent,
    each,
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

Spec = Mapping[str, Any]
_MISMATCH = "`selector` does not match template `labels`"
_STATEFUL = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def _matches(chosen: Spec | None, template: Spec, *, empty_ok: bool = False) -> bool:
    try:
        found = selectors.from_object(chosen if chosen is not None else {})
    except selectors.SelectorError:
        return True
    if not chosen and not empty_ok:
        return False
    return found.matches((template.get("metadata") or {}).get("labels") or {})


def _template(spec: Spec, *, check: bool = True) -> Causes:
    """The template of a set: labels that its selector chooses, and pods that always restart."""
    template = spec.get("template") or {}
    if check and not _matches(spec.get("selector"), template):
        yield invalid("spec.template.metadata.labels", (template.get("metadata") or {}).get("labels"), _MISMATCH)
    yield from pods.template("spec.template", template, ("Always",))


def _selector(spec: Spec, what: str) -> Causes:
    chosen = spec.get("selector")
    if chosen is None:
        yield required("spec.selector")
        return
    wrong = list(selector("spec.selector", chosen))
    yield from wrong
    if not chosen:
        yield invalid("spec.selector", chosen, f"empty selector is invalid for {what}")


def deployment(obj: Object) -> Causes:
    """A deployment."""
    spec = _spec(obj)
    yield from not_negative("spec", spec, "replicas")
    yield from _selector(spec, "deployment")
    chosen = spec.get("selector")
    yield from _template(spec, check=chosen is None or bool(chosen))
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
        yield unsupported(f"{at}.type", kind, ("Recreate", "RollingUpdate"))
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
    chosen = spec.get("selector")
    yield from _selector(spec, "deployment")
    if chosen and _broken(chosen):
        yield invalid("spec.selector", chosen, "invalid label selector")
    yield from _template(spec, check=chosen is None or (bool(chosen) and not _broken(chosen)))


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
    yield from pods.template("spec.template", template, ("Always",))


def stateful_set(obj: Object) -> Causes:
    """A stateful set."""
    spec = _spec(obj)
    yield from one_of("spec.podManagementPolicy", spec.get("podManagementPolicy"), ("OrderedReady", "Parallel"))
    strategy = spec.get("updateStrategy") or {}
    kind = strategy.get("type", "RollingUpdate")
    if kind == "OnDelete":
        if strategy.get("rollingUpdate") is not None:
            why = "only allowed for updateStrategy 'RollingUpdate'"
            yield invalid("spec.updateStrategy.rollingUpdate", strategy["rollingUpdate"], why)
    elif kind == "RollingUpdate":
        yield from not_negative("spec.updateStrategy.rollingUpdate", strategy.get("rollingUpdate") or {}, "partition")
    else:
        yield invalid("spec.updateStrategy", strategy, "must be 'RollingUpdate' or 'OnDelete'")
    policy = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for part in ("whenDeleted", "whenScaled"):
        at = f"spec.persistentVolumeClaimRetentionPolicy.{part}"
        yield from one_of(at, policy.get(part, "Retain"), ("Retain", "Delete"))
    yield from not_negative("spec", spec, "replicas", "minReadySeconds")
    yield from not_negative("spec.ordinals", spec.get("ordinals") or {}, "start")
    chosen = spec.get("selector")
    yield from _selector(spec, "statefulset")
    yield from _template(spec, check=chosen is None or bool(chosen))


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
    if not _matches(chosen, template):
        yield invalid("spec.template.metadata.labels", (template.get("metadata") or {}).get("labels"), _MISMATCH)
    if chosen == {}:
        yield invalid("spec.selector", chosen, "empty selector is invalid for daemonset")
    yield from pods.template("spec.template", template, ("Always",))
    yield from not_negative("spec", spec, "minReadySeconds")
    strategy = spec.get("updateStrategy") or {}
    kind, at = strategy.get("type", "RollingUpdate"), "spec.updateStrategy.rollingUpdate"
    if kind == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        surge, gone = rolling.get("maxSurge", 0), rolling.get("maxUnavailable", 1)
        yield from int_or_percent(f"{at}.maxUnavailable", gone)
        yield from int_or_percent(f"{at}.maxSurge", surge)
        if gone in (0, "0%") and surge in (0, "0%"):
            yield required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0")
        yield from at_most_100_percent(f"{at}.maxUnavailable", gone)
        yield from at_most_100_percent(f"{at}.maxSurge", surge)
    elif kind != "OnDelete":
        shown = {"Type": kind, "RollingUpdate": strategy.get("rollingUpdate")}
        yield unsupported("spec.updateStrategy", shown, ("RollingUpdate", "OnDelete"))
    yield from not_negative("spec", spec, "revisionHistoryLimit")


def daemon_set_update(old: Object, new: Object) -> Causes:
    """A changed daemon set: the selector stays."""
    yield from unchanged("spec.selector", _spec(old).get("selector"), _spec(new).get("selector"))
    yield from daemon_set(new)


def job(obj: Object) -> Causes:
    """A new job."""
    if obj["metadata"].get("uid") and not _spec(obj).get("manualSelector"):
        yield from _generated(obj)
    yield from job_spec("spec", _spec(obj), generated=True)


def _generated(obj: Object) -> Causes:
    """The selector and the labels that the server made are there, whatever the client gave besides."""
    meta, spec = obj["metadata"], _spec(obj)
    template = (spec.get("template") or {}).get("metadata") or {}
    labels_ = template.get("labels") or {}
    uid = {"controller-uid": meta.get("uid", "")}
    for key, value in (*uid.items(), ("job-name", meta.get("name", ""))):
        for full in (key, f"batch.kubernetes.io/{key}"):
            if full not in labels_:
                yield required(f"spec.template.metadata.labels[{full}]", f"must be '{value}'")
            elif labels_[full] != value:
                yield invalid(f"spec.template.metadata.labels[{full}]", labels_, f"must be '{value}'")
    own = {"controller-uid": uid["controller-uid"], "batch.kubernetes.io/controller-uid": uid["controller-uid"]}
    names_ = {"job-name": meta.get("name", ""), "batch.kubernetes.io/job-name": meta.get("name", "")}
    chosen = spec.get("selector")
    if chosen is not None and not _matches(chosen, {"metadata": {"labels": {**own, **names_}}}):
        yield invalid("spec.selector", chosen, "`selector` not auto-generated")


def job_spec(at: str, spec: Spec, *, generated: bool) -> Causes:
    """The spec of a job; of a template (`generated` False) the selector is not there yet."""
    numbers = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
    yield from not_negative(at, spec, *numbers)
    if spec.get("managedBy"):
        yield from each(f"{at}.managedBy", spec["managedBy"], names.domain_prefixed_path(spec["managedBy"]))
    mode = spec.get("completionMode", "NonIndexed")
    if mode not in ("NonIndexed", "Indexed"):
        yield unsupported(f"{at}.completionMode", mode, ("NonIndexed", "Indexed"))
    if mode == "Indexed" and "completions" not in spec:
        yield required(f"{at}.completions", "when completion mode is Indexed")
    if mode != "Indexed":
        for name in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if name in spec:
                yield invalid(f"{at}.{name}", spec[name], "requires indexed completion mode")
    yield from _failure_policy(f"{at}.podFailurePolicy", spec)
    template = spec.get("template") or {}
    chosen = spec.get("selector")
    if generated and chosen is not None:
        yield from selector(f"{at}.selector", chosen)
        if not _matches(chosen, template):
            own = (template.get("metadata") or {}).get("labels")
            yield invalid(f"{at}.template.metadata.labels", own, _MISMATCH)
    elif not generated and spec.get("manualSelector"):
        yield unsupported(f"{at}.manualSelector", True, ())
    yield from pods.template(f"{at}.template", template)
    restart = (template.get("spec") or {}).get("restartPolicy", "Always")
    field = f"{at}.template.spec.restartPolicy"
    if restart in ("", "Always"):
        yield required(field, 'valid values: "OnFailure", "Never"')
    elif restart not in ("OnFailure", "Never"):
        yield unsupported(field, restart, ("OnFailure", "Never"))
    elif spec.get("podFailurePolicy") and restart != "Never":
        yield invalid(field, restart, 'only "Never" is supported when podFailurePolicy is specified')


def _failure_policy(at: str, spec: Spec) -> Causes:
    for i, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or ()):
        here = f"{at}.rules[{i}]"
        action = rule.get("action", "")
        if action == "FailIndex" and "backoffLimitPerIndex" not in spec:
            yield invalid(f"{here}.action", action, "requires the backoffLimitPerIndex to be set")
        elif not action:
            yield required(f"{here}.action", 'valid values: ["Count" "FailIndex" "FailJob" "Ignore"]')
        else:
            yield from one_of(f"{here}.action", action, ("Count", "FailIndex", "FailJob", "Ignore"))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if codes is None and not conditions:
            why = "specifying one of OnExitCodes and OnPodConditions is required"
            yield {"reason": "FieldValueInvalid", "message": f"Invalid value: {why}", "field": here}
        elif codes is not None and conditions:
            why = "specifying both OnExitCodes and OnPodConditions is not supported"
            yield {"reason": "FieldValueInvalid", "message": f"Invalid value: {why}", "field": here}
        if codes is not None:
            yield from one_of(f"{here}.onExitCodes.operator", codes.get("operator", ""), ("In", "NotIn"))
            for j, value in enumerate(codes.get("values") or ()):
                if value == 0 and codes.get("operator") == "In":
                    yield invalid(f"{here}.onExitCodes.values[{j}]", value, "must not be 0 for the In operator")


def job_update(old: Object, new: Object) -> Causes:
    """A changed job: what was started stays; a suspended one that never ran may still move."""
    before, after = _spec(old), _spec(new)
    yield from job_spec("spec", after, generated=True)
    for name in (
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ):
        yield from unchanged(f"spec.{name}", before.get(name), after.get(name))
    if before.get("completionMode") != "Indexed":
        yield from unchanged("spec.completions", before.get("completions"), after.get("completions"))
    was, now = before.get("template") or {}, after.get("template") or {}
    started = (old.get("status") or {}).get("startTime")
    if was != now and (started or not before.get("suspend")):
        yield invalid("spec.template", now, IMMUTABLE)


def cron_job(obj: Object) -> Causes:
    """A cron job."""
    spec = _spec(obj)
    schedule = spec.get("schedule", "")
    if not schedule:
        yield required("spec.schedule")
    else:
        yield from each("spec.schedule", schedule, cron.problems(schedule))
        if "TZ=" in schedule:
            why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            yield invalid("spec.schedule", schedule, why)
    yield from not_negative("spec", spec, "startingDeadlineSeconds")
    policies = ("Allow", "Forbid", "Replace")
    yield from one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy", "Allow"), policies)
    zone = spec.get("timeZone")
    if zone is not None:
        yield from each("spec.timeZone", zone, cron.zone_problems(zone))
    yield from not_negative("spec", spec, "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    template = (spec.get("jobTemplate") or {}).get("spec") or {}
    yield from job_spec("spec.jobTemplate.spec", template, generated=False)
    name = (obj.get("metadata") or {}).get("name", "")
    if len(name) > 52:
        yield invalid("metadata.name", name, "must be no more than 52 characters")


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


def scale(obj: Object) -> Causes:
    """The scale of something."""
    yield from not_negative("spec", _spec(obj), "replicas")


def replica_status(names_: Sequence[str]) -> Any:
    """Counts in a status: none negative, none greater than the whole, available no more than ready."""

    def check(obj: Object) -> Causes:
        status = obj.get("status") or {}
        yield from not_negative("status", status, "replicas", *names_, "observedGeneration")
        whole = status.get("replicas", 0)
        for name in names_:
            if status.get(name, 0) > whole:
                yield invalid(f"status.{name}", status.get(name, 0), "cannot be greater than status.replicas")
        if status.get("availableReplicas", 0) > status.get("readyReplicas", 0):
            why = "cannot be greater than readyReplicas"
            yield invalid("status.availableReplicas", status.get("availableReplicas", 0), why)

    return check
