"""Rules for jobs and cron jobs. Source: the Job API documentation; order and wording as recorded from upstream 1.36."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names, selectors
from k3s.api.object import Object
from k3s.api.validation import cron, pods
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    invalid,
    not_negative,
    one_of,
    required,
    selector,
    too_long,
    too_many,
    unchanged,
    unsupported,
    wrong,
)

Spec = Mapping[str, Any]
_INDEXED = "requires indexed completion mode"
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_MANY = 100_000
_FEW = 10_000
_HIGH = f"must be less than or equal to {_FEW} when completions are above {_MANY} and used with backoff limit per index"
_NUMBERS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
# What of a job's pods may change while it is suspended and none of them has started.
_STEERING = ("nodeSelector", "tolerations", "schedulingGates")


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def _matches(chosen: Spec, labels: Spec) -> bool:
    try:
        return selectors.from_object(chosen).matches(labels)
    except selectors.SelectorError:
        return True


def job(obj: Object) -> Causes:
    """A new job."""
    spec, name = _spec(obj), (obj.get("metadata") or {}).get("name", "")
    if not spec.get("manualSelector") and spec.get("selector") is not None:
        yield from _generated(obj)
    yield from job_spec("spec", spec, generated=True)
    if spec.get("completionMode") == "Indexed" and spec.get("completions", 0) > 0:
        host = f"{name}-{spec['completions'] - 1}"
        if names.dns_label(host):
            yield invalid("metadata.name", name, f"will not able to create pod with invalid DNS label: {host}")


def _generated(obj: Object) -> Causes:
    """The selector and the labels that the server made are there, whatever the client gave besides."""
    meta, spec = obj["metadata"], _spec(obj)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    own: dict[str, str] = {}
    if not meta.get("uid"):
        yield required("metadata.uid")
    for prefix in ("", "batch.kubernetes.io/"):
        for key, value in (("controller-uid", meta.get("uid", "")), ("job-name", meta.get("name", ""))):
            field = f"spec.template.metadata.labels[{prefix}{key}]"
            own[prefix + key] = value
            if prefix + key not in labels:
                yield required(field, f"must be '{value}'")
            elif labels[prefix + key] != value:
                yield invalid(field, labels, f"must be '{value}'")
    if not _matches(spec["selector"], own):
        yield invalid("spec.selector", spec["selector"], "`selector` not auto-generated")


def job_spec(at: str, spec: Spec, *, generated: bool) -> Causes:
    """The spec of a job; of a template (`generated` False) the selector is not there yet."""
    yield from not_negative(at, spec, *_NUMBERS)
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield required(f"{at}.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    manager = spec.get("managedBy")
    if manager is not None:
        yield from each(f"{at}.managedBy", manager, names.domain_prefixed_path(manager))
        if len(manager) > 63:
            yield too_long(f"{at}.managedBy", 63)
    yield from _completion(at, spec)
    if spec.get("podFailurePolicy") is not None:
        yield from _failure_policy(f"{at}.podFailurePolicy", spec)
    if spec.get("successPolicy") is not None:
        yield from _success_policy(f"{at}.successPolicy", spec)
    replacement = spec.get("podReplacementPolicy")
    if replacement is not None:
        known = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
        yield from one_of(f"{at}.podReplacementPolicy", replacement, known)
    template, chosen = spec.get("template") or {}, spec.get("selector")
    yield from pods.template(f"{at}.template", template)
    yield from _restart(f"{at}.template.spec.restartPolicy", spec, template)
    if not generated:
        if chosen is not None:
            yield invalid(f"{at}.selector", chosen, "`selector` will be auto-generated")
        if spec.get("manualSelector"):
            yield unsupported(f"{at}.manualSelector", True, ("nil", "false"))
        return
    if chosen is None:
        if spec.get("manualSelector"):
            yield required(f"{at}.selector")
        return
    yield from selector(f"{at}.selector", chosen)
    labels = (template.get("metadata") or {}).get("labels")
    if not _matches(chosen, labels or {}):
        yield invalid(f"{at}.template.metadata.labels", labels, "`selector` does not match template `labels`")


def _restart(field: str, spec: Spec, template: Spec) -> Causes:
    policy = (template.get("spec") or {}).get("restartPolicy", "Always")
    if policy in ("", "Always"):
        yield required(field, 'valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        yield unsupported(field, policy, ("OnFailure", "Never"))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        yield invalid(field, policy, 'only "Never" is supported when podFailurePolicy is specified')


def _completion(at: str, spec: Spec) -> Causes:
    """What goes with counting completions by number or by index."""
    mode, whole, side = (spec.get(k) for k in ("completionMode", "completions", "parallelism"))
    if mode is not None and mode not in ("NonIndexed", "Indexed"):
        yield unsupported(f"{at}.completionMode", mode, ("NonIndexed", "Indexed"))
    failed, again = spec.get("maxFailedIndexes"), spec.get("backoffLimitPerIndex")
    if mode == "Indexed":
        if whole is None:
            yield required(f"{at}.completions", "when completion mode is Indexed")
        if side is not None and side > _MANY:
            why = f"must be less than or equal to {_MANY} when completion mode is Indexed"
            yield invalid(f"{at}.parallelism", side, why)
        if whole is not None and failed is not None and failed > whole:
            yield invalid(f"{at}.maxFailedIndexes", failed, "must be less than or equal to completions")
        if failed is not None and failed > _MANY:
            yield invalid(f"{at}.maxFailedIndexes", failed, f"must be less than or equal to {_MANY}")
        if whole is not None and whole > _MANY and again is not None:
            if failed is None:
                why = f"must be specified when completions is above {_MANY}"
                yield required(f"{at}.maxFailedIndexes", why)
            for name, value in (("parallelism", side), ("maxFailedIndexes", failed)):
                if value is not None and value > _FEW:
                    yield invalid(f"{at}.{name}", value, _HIGH)
    elif mode in (None, "NonIndexed"):
        for name, value in (("backoffLimitPerIndex", again), ("maxFailedIndexes", failed)):
            if value is not None:
                yield invalid(f"{at}.{name}", value, _INDEXED)


def _listed(words: Sequence[str]) -> str:
    return f"valid values: [{' '.join(chr(34) + word + chr(34) for word in words)}]"


def _word(field: str, value: str, words: Sequence[str]) -> Causes:
    if not value:
        yield required(field, _listed(words))
    else:
        yield from one_of(field, value, words)


def _failure_policy(at: str, spec: Spec) -> Causes:
    rules = spec["podFailurePolicy"].get("rules") or ()
    if len(rules) > 20:
        yield too_many(f"{at}.rules", len(rules), 20)
    inner = (spec.get("template") or {}).get("spec") or {}
    known = {c.get("name") for part in ("containers", "initContainers") for c in inner.get(part) or ()}
    for i, rule in enumerate(rules):
        here = f"{at}.rules[{i}]"
        action, codes, conditions = rule.get("action", ""), rule.get("onExitCodes"), rule.get("onPodConditions") or ()
        if action == "FailIndex":
            if "backoffLimitPerIndex" not in spec:
                yield invalid(f"{here}.action", action, "requires the backoffLimitPerIndex to be set")
        else:
            yield from _word(f"{here}.action", action, _ACTIONS)
        if codes is not None:
            yield from _exit_codes(f"{here}.onExitCodes", codes, known)
        if len(conditions) > 20:
            yield too_many(f"{here}.onPodConditions", len(conditions), 20)
        for j, pattern in enumerate(conditions):
            there, kind = f"{here}.onPodConditions[{j}]", pattern.get("type", "")
            yield from each(f"{there}.type", kind, names.qualified_name(kind))
            yield from _word(f"{there}.status", pattern.get("status", ""), ("False", "True", "Unknown"))
        if codes is not None and conditions:
            yield wrong(here, "specifying both OnExitCodes and OnPodConditions is not supported")
        if codes is None and not conditions:
            yield wrong(here, "specifying one of OnExitCodes and OnPodConditions is required")


def _exit_codes(at: str, codes: Spec, known: set[Any]) -> Causes:
    values, operator = codes.get("values") or [], codes.get("operator", "")
    yield from _word(f"{at}.operator", operator, ("In", "NotIn"))
    name = codes.get("containerName")
    if name is not None and name not in known:
        why = "must be one of the container or initContainer names in the pod template"
        yield invalid(f"{at}.containerName", name, why)
    if not values:
        yield invalid(f"{at}.values", values or None, "at least one value is required")
    elif len(values) > 255:
        yield too_many(f"{at}.values", len(values), 255)
    for j, value in enumerate(values):
        if operator == "In" and value == 0:
            yield invalid(f"{at}.values[{j}]", value, "must not be 0 for the In operator")
        if value in values[:j]:
            yield duplicate(f"{at}.values[{j}]", value)
    if values != sorted(values):
        yield invalid(f"{at}.values", values, "must be ordered")


def _success_policy(at: str, spec: Spec) -> Causes:
    rules = spec["successPolicy"].get("rules") or []
    if spec.get("completionMode") != "Indexed":
        parts = ("succeededIndexes", "succeededCount")
        shown = [{part[:1].upper() + part[1:]: rule.get(part) for part in parts} for rule in rules]
        yield invalid(at, {"Rules": shown or None}, _INDEXED)
        return
    if not rules:
        yield required(f"{at}.rules", "at least one rules must be specified when the successPolicy is specified")
    if len(rules) > 20:
        yield too_many(f"{at}.rules", len(rules), 20)
    for i, rule in enumerate(rules):
        yield from _success_rule(f"{at}.rules[{i}]", rule, spec.get("completions") or 0)


def _success_rule(at: str, rule: Spec, completions: int) -> Causes:
    indexes, count = rule.get("succeededIndexes"), rule.get("succeededCount")
    if count is None and indexes is None:
        yield required(at, "at least one of succeededCount or succeededIndexes must be specified")
    total = 0
    if indexes is not None:
        if len(indexes) > 65536:
            yield too_long(f"{at}.succeededIndexes", 65536)
        total, problem = indexes_of(indexes, completions)
        if problem:
            yield invalid(f"{at}.succeededIndexes", indexes, f"error parsing succeededIndexes: {problem}")
    if count is None:
        return
    yield from not_negative(at, rule, "succeededCount")
    if count > completions:
        why = f"must be less than or equal to {completions} (the number of specified completions)"
        yield invalid(f"{at}.succeededCount", count, why)
    if indexes is not None and count > total:
        why = f"must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        yield invalid(f"{at}.succeededCount", count, why)


_INTERVAL = "violates the requirement that an index interval can have at most two parts separated by '-'"


def indexes_of(text: str, completions: int) -> tuple[int, str]:
    """How many indexes a text like `1,3-5` names, and what is wrong with it ("": nothing)."""
    total, last = 0, -1
    for part in text.split(",") if text else ():
        ends = part.split("-")
        if len(ends) > 2:
            return 0, f'the fragment "{part}" {_INTERVAL}'
        for end in ends:
            if not re.fullmatch(r"[+-]?[0-9]+", end):
                return 0, f'cannot convert string to integer for index: "{end}"'
            if int(end) >= completions:
                return 0, f'too large index: "{end}"'
        first, final = int(ends[0]), int(ends[-1])
        if len(ends) == 2 and first >= final:
            return 0, f"non-increasing order, previous: {first}, current: {final}"
        if last >= first:
            return 0, f"non-increasing order, previous: {last}, current: {first}"
        total += final - first + 1
        last = final
    return total, ""


def job_update(old: Object, new: Object) -> Causes:
    """A changed job: what was started stays; a suspended one that never ran may still move."""
    before, after = _spec(old), _spec(new)
    yield from job(new)
    yield from job_spec("spec", after, generated=True)  # once more: as a job, and as a changed one
    yield from _completions(before, after)
    yield from unchanged("spec.selector", before.get("selector"), after.get("selector"))
    was, now = before.get("template") or {}, after.get("template") or {}
    if was != now and not _may_move(old, was, now):
        yield from unchanged("spec.template", was, now)
    for name in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        yield from unchanged(f"spec.{name}", before.get(name), after.get(name))


def _completions(before: Spec, after: Spec) -> Causes:
    was, now = before.get("completions"), after.get("completions")
    if after.get("completionMode") != "Indexed":
        yield from unchanged("spec.completions", was, now)
    elif was != now and now is not None and now != after.get("parallelism"):
        yield invalid("spec.completions", now, "can only be modified in tandem with spec.parallelism")


def _may_move(old: Object, was: Spec, now: Spec) -> bool:
    """Whether a change of the template is one that a job allows that is suspended and has no pods."""
    status = old.get("status") or {}
    suspended = _spec(old).get("suspend") and not status.get("active")
    stopped = status.get("startTime") is None or any(
        c.get("type") == "Suspended" and c.get("status") == "True" for c in status.get("conditions") or ()
    )
    return bool(suspended and stopped and _unsteered(was) == _unsteered(now))


def _unsteered(template: Spec) -> Any:
    """A template without what steers its pods, and without what they ask for."""
    spec = {k: v for k, v in (template.get("spec") or {}).items() if k not in _STEERING}
    near = {k: v for k, v in (spec.pop("affinity", None) or {}).items() if k != "nodeAffinity"}
    for part in ("containers", "initContainers"):
        if part in spec:
            spec[part] = [{k: v for k, v in c.items() if k != "resources"} for c in spec[part]]
    meta = {k: v for k, v in (template.get("metadata") or {}).items() if k not in ("labels", "annotations")}
    return meta, spec, near


_POLICIES = ("Allow", "Forbid", "Replace")


def cron_job(obj: Object) -> Causes:
    """A new cron job."""
    yield from _cron_spec(_spec(obj), None)
    name = (obj.get("metadata") or {}).get("name", "")
    if len(name) > 52:
        yield invalid("metadata.name", name, "must be no more than 52 characters")


def cron_job_update(old: Object, new: Object) -> Causes:
    """A changed cron job: a zone in the schedule stays if it was there."""
    yield from _cron_spec(_spec(new), _spec(old))


def _cron_spec(spec: Spec, old: Spec | None) -> Causes:
    schedule, zone = spec.get("schedule", ""), spec.get("timeZone")
    had = old is not None and "TZ" in old.get("schedule", "")
    if not schedule:
        yield required("spec.schedule")
    else:
        yield from each("spec.schedule", schedule, cron.problems(schedule))
        if "TZ" in schedule and not had:
            why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            yield invalid("spec.schedule", schedule, why)
        elif "TZ" in schedule and zone is not None:
            yield invalid("spec.schedule", schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule")
    yield from not_negative("spec", spec, "startingDeadlineSeconds")
    if zone is not None and (old is None or old.get("timeZone") != zone):
        yield from each("spec.timeZone", zone, cron.zone_problems(zone))
    policy = spec.get("concurrencyPolicy", "Allow")
    yield from one_of("spec.concurrencyPolicy", policy, _POLICIES)
    template = (spec.get("jobTemplate") or {}).get("spec") or {}
    yield from job_spec("spec.jobTemplate.spec", template, generated=False)
    yield from not_negative("spec", spec, "successfulJobsHistoryLimit", "failedJobsHistoryLimit")


# Conditions of a job's status that exclude each other, and how that is said.
_EXCLUSIVE = (
    ("Complete", "Failed", "cannot set Complete=True and Failed=true conditions"),
    ("Complete", "FailureTarget", "cannot set Complete=True and FailureTarget=true conditions"),
)
_LATER = (
    ("SuccessCriteriaMet", "Failed", "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
    ("SuccessCriteriaMet", "FailureTarget", "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
)


def _true(obj: Object) -> set[str]:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return {c.get("type", "") for c in conditions if c.get("status") == "True"}


def status(old: Object, new: Object) -> Causes:
    """The status of a job: counts, times and conditions that fit each other, and that never go back."""
    before, found, spec = old.get("status") or {}, new.get("status") or {}, _spec(new)
    now, was, at = _true(new), _true(old), "status.conditions"
    yield from not_negative("status", found, "active", "succeeded", "failed", "ready", "terminating")
    uncounted = found.get("uncountedTerminatedPods") or {}
    seen: set[str] = set()
    for part in ("succeeded", "failed"):
        for i, uid in enumerate(uncounted.get(part) or ()):
            field = f"status.uncountedTerminatedPods.{part}[{i}]"
            if not uid:
                yield invalid(field, uid, "must not be empty")
            elif uid in seen:
                yield duplicate(field, uid)
            seen.add(uid)
    for one, other, why in _EXCLUSIVE:
        if {one, other} <= now and not {one, other} <= was:
            yield wrong(at, why)
    yield from _ending(before, found, now, was)
    yield from _indexes(before, found, spec)
    if found.get("ready", 0) > found.get("active", 0) and found.get("ready") != before.get("ready"):
        yield invalid("status.ready", found["ready"], "cannot set more ready pods than active")
    for one, other, why in _LATER:
        if {one, other} <= now:
            yield wrong(at, why)
    if spec.get("successPolicy") is not None and "Complete" in now and "SuccessCriteriaMet" not in now:
        yield wrong(at, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
    yield from _never_back(before, found, spec, was, now)


def _ending(before: Spec, found: Spec, now: set[str], was: set[str]) -> Causes:
    """A job that has ended has ended altogether."""
    done, start, end = bool(now & {"Complete", "Failed"}), found.get("startTime"), found.get("completionTime")
    first = done and not was & {"Complete", "Failed"}
    if end is not None and "Complete" not in now:
        why = "cannot set completionTime when there is no Complete=True condition"
        yield invalid("status.completionTime", end, why)
    if end is None and "Complete" in now and "Complete" not in was:
        yield required("status.completionTime", "completionTime is required for Complete jobs")
    if start is not None and end is not None and end < start:
        yield invalid("status.completionTime", end, "completionTime cannot be set before startTime")
    if "Failed" in now - was and "FailureTarget" not in now:
        yield wrong("status.conditions", "cannot set Failed=True condition without the FailureTarget=true condition")
    if "Complete" in now - was and "SuccessCriteriaMet" not in now:
        why = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"
        yield wrong("status.conditions", why)
    if first and found.get("active", 0) > 0:
        yield invalid("status.active", found["active"], "active>0 is invalid for finished job")
    if first and start is None:
        yield required("status.startTime", "startTime is required for finished job")
    left = found.get("uncountedTerminatedPods") or {}
    if first and (left.get("succeeded") or left.get("failed")):
        shown = {part.capitalize(): left.get(part) for part in ("succeeded", "failed")}
        why = "uncountedTerminatedPods needs to be empty for finished job"
        yield invalid("status.uncountedTerminatedPods", shown, why)
    if first and found.get("terminating", 0) > 0:
        yield invalid("status.terminating", found["terminating"], "terminating>0 is invalid for finished job")


def _indexes(before: Spec, found: Spec, spec: Spec) -> Causes:
    whole, done, failed = spec.get("completions"), found.get("completedIndexes", ""), found.get("failedIndexes")
    if done != before.get("completedIndexes", ""):
        problem = indexes_of(done, whole)[1] if whole is not None else ""
        if problem:
            yield invalid("status.completedIndexes", done, f"error parsing completedIndexes: {problem}")
        if done and spec.get("completionMode") != "Indexed":
            why = "cannot set non-empty completedIndexes when non-indexed completion mode"
            yield invalid("status.completedIndexes", done, why)
    if failed is not None and failed != before.get("failedIndexes"):
        problem = indexes_of(failed, whole)[1] if whole is not None and "backoffLimitPerIndex" in spec else ""
        if problem:
            yield invalid("status.failedIndexes", failed, f"error parsing failedIndexes: {problem}")
        if "backoffLimitPerIndex" not in spec:
            why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
            yield invalid("status.failedIndexes", failed, why)


def _never_back(before: Spec, found: Spec, spec: Spec, was: set[str], now: set[str]) -> Causes:
    for kind in ("Failed", "Complete", "FailureTarget"):
        if kind in was - now:
            yield wrong("status.conditions", f"cannot disable the terminal {kind}=True condition")
    for part in ("failed", "succeeded"):
        if found.get(part, 0) < before.get(part, 0):
            yield invalid(f"status.{part}", found.get(part, 0), f"cannot decrease the {part} counter")
    end, old_end = found.get("completionTime"), before.get("completionTime")
    if end is not None and old_end is not None and end != old_end:
        yield invalid("status.completionTime", end, "completionTime cannot be mutated")
    start = before.get("startTime")
    if start is not None and start != found.get("startTime") and not spec.get("suspend"):
        yield required("status.startTime", "startTime cannot be removed for unsuspended job")
    if "SuccessCriteriaMet" in was - now:
        yield wrong("status.conditions", "cannot disable the SuccessCriteriaMet=True condition")
    elif "SuccessCriteriaMet" in now - was and "Complete" in was:
        why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"
        yield wrong("status.conditions", why)
