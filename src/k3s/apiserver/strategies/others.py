"""Specials of kinds outside the core group."""

from __future__ import annotations

from k3s.api import times
from k3s.api.errors import forbidden
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.validation import causes, certificates
from k3s.apiserver.identity import shown
from k3s.apiserver.strategy import Cause, Context, Strategy

_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_BATCH = "batch.kubernetes.io/"
_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_CPU_TARGET = 80
_DECISIONS = ("Approved", "Denied")


class DaemonSetStrategy(Strategy):
    """Counts changes of its template in an annotation that old clients read."""

    def prepare_create(self, context: Context, obj: Object) -> Object:
        return _with_generation(obj, 1)

    def prepare_update(self, context: Context, old: Object, new: Object) -> Object:
        if context.subresource:
            return new
        notes = old["metadata"].get("annotations") or {}
        count = int(notes.get(_TEMPLATE_GENERATION) or 0)
        changed = old["spec"].get("template") != new["spec"].get("template")
        return _with_generation(new, count + 1 if changed else count)


def _with_generation(obj: Object, count: int) -> Object:
    meta = obj["metadata"]
    notes = {**(meta.get("annotations") or {}), _TEMPLATE_GENERATION: str(count)}
    return {**obj, "metadata": {**meta, "annotations": notes}}


class AutoscalerStrategy(Strategy):
    """An autoscaler without a metric watches the CPU; what the first version cannot say travels in an annotation."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self._first = kind.version == "v1"

    def reset_create(self, obj: Object) -> Object:
        return self._with_metric(super().reset_create(obj))

    def reset_update(self, context: Context, old: Object, new: Object) -> Object:
        return self._with_metric(super().reset_update(context, old, new))

    def _with_metric(self, obj: Object) -> Object:
        spec, notes = obj.get("spec"), obj["metadata"].get("annotations") or {}
        if not self._first or spec is None or _METRICS in notes or "targetCPUUtilizationPercentage" in spec:
            return obj
        return {**obj, "spec": {**spec, "targetCPUUtilizationPercentage": _CPU_TARGET}}


class JobStrategy(Strategy):
    """Names its pods by its own uid, unless its creator chose a selector (`manualSelector`)."""

    def prepare_create(self, context: Context, obj: Object) -> Object:
        meta, spec = obj["metadata"], obj["spec"]
        if spec.get("manualSelector"):
            return obj
        template, chosen = spec.get("template") or {}, spec.get("selector") or {}
        own = {"controller-uid": meta["uid"], "job-name": meta["name"]}
        given = (template.get("metadata") or {}).get("labels")
        labels = dict(
            sorted({**own, **{f"{_BATCH}{key}": value for key, value in own.items()}, **(given or {})}.items())
        )
        matched = {f"{_BATCH}controller-uid": meta["uid"], **(chosen.get("matchLabels") or {})}
        template = {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}}
        chosen = {**chosen, "matchLabels": dict(sorted(matched.items()))}
        # A job without labels has those of its template: the same ones, also when the server adds to them.
        if not meta.get("labels") or meta["labels"] is given:
            meta = {**meta, "labels": labels}
        return {**obj, "metadata": meta, "spec": {**spec, "selector": chosen, "template": template}}

    def advise_delete(self, propagation: str, orphan: bool | None) -> list[str]:
        if propagation or orphan is not None:
            return []
        return [
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove "
            "them or set propagationPolicy=Orphan to suppress this warning"
        ]


class SliceStrategy(Strategy):
    """Labels of an endpoint slice say whose it is: they count, too."""

    def changed_spec(self, context: Context, old: Object, new: Object) -> bool:
        if old["metadata"].get("labels") != new["metadata"].get("labels"):
            return True
        return super().changed_spec(context, old, new)


class DefinitionStrategy(Strategy):
    """A definition names its kind's other names, and stays until its objects are gone."""

    def prepare_create(self, context: Context, obj: Object) -> Object:
        status = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}}
        return _with_stored({**_named(obj), "status": status})

    def prepare_update(self, context: Context, old: Object, new: Object) -> Object:
        return _with_stored(_named(new))

    def marked(self, context: Context, obj: Object) -> Object:
        """From the delete on, its objects hold it; there is no grace period, and no new generation."""
        meta = {k: v for k, v in obj["metadata"].items() if k != "deletionGracePeriodSeconds"}
        finalizers = meta.get("finalizers") or []
        if CLEANUP in finalizers:
            return obj
        generation = max(meta.get("generation", 1) - 1, 1)
        return {**obj, "metadata": {**meta, "generation": generation, "finalizers": [*finalizers, CLEANUP]}}

    def holds(self, obj: Object) -> bool:
        return CLEANUP in (obj["metadata"].get("finalizers") or ())


def _with_stored(obj: Object) -> Object:
    """The definition with its storage version among those that objects may be stored in."""
    status = obj.get("status") or {}
    stored = list(status.get("storedVersions") or ())
    versions = obj["spec"].get("versions") or ()
    missing = [v.get("name", "") for v in versions if v.get("storage") and v.get("name", "") not in stored]
    if not missing:
        return obj
    return {**obj, "status": {**status, "storedVersions": list(dict.fromkeys([*stored, *missing]))}}


def _named(obj: Object) -> Object:
    spec = obj["spec"]
    names = spec.get("names") or {}
    kind = names.get("kind", "")
    filled = {"singular": kind.lower(), "listKind": kind and kind + "List"}
    missing = {key: value for key, value in filled.items() if value and not names.get(key)}
    return {**obj, "spec": {**spec, "names": {**names, **missing}}} if missing else obj


class LeaseStrategy(Strategy):
    """A lease whose holder is not elected by the server: that choice is off."""

    def reset_create(self, obj: Object) -> Object:
        return _without_election(super().reset_create(obj))

    def reset_update(self, context: Context, old: Object, new: Object) -> Object:
        return _without_election(super().reset_update(context, old, new))


def _without_election(obj: Object) -> Object:
    spec = obj.get("spec") or {}
    if spec.keys().isdisjoint(_ELECTION):
        return obj
    return {**obj, "spec": {name: value for name, value in spec.items() if name not in _ELECTION}}


_ELECTION = ("strategy", "preferredHolder")


class FlowStrategy(Strategy):
    """The levels and schemas that every server relies on stay as they are; only what `exempt` lends may change."""

    _MANDATORY = ("exempt", "catch-all")

    def validate(self, context: Context, old: Object | None, new: Object) -> list[Cause]:
        name, spec = new["metadata"].get("name", ""), new.get("spec") or {}
        if name not in self._MANDATORY:
            return []
        from k3s.apiserver import bootstrap

        free = "exempt" if (context.kind.kind, name) == ("PriorityLevelConfiguration", "exempt") else ""
        fixed = next(
            obj["spec"]
            for obj in bootstrap.flow_control()
            if (obj["kind"], obj["metadata"]["name"]) == (context.kind.kind, name)
        )
        if all(spec.get(key) == fixed.get(key) for key in spec.keys() | fixed.keys() if key != free):
            return []
        but = f" except the 'spec.{free}' field" if free else ""
        return [causes.invalid("spec", causes.internal(spec), f"spec of '{name}'{but} must equal the fixed value")]


class PriorityClassStrategy(Strategy):
    """A value that never changes; the system's own classes stay."""

    def changed_spec(self, context: Context, old: Object, new: Object) -> bool:
        return False

    def check_delete(self, context: Context, obj: Object) -> None:
        name = obj["metadata"]["name"]
        if name.startswith("system-"):
            why = "this is a system priority class and cannot be deleted"
            raise forbidden(context.kind.group, context.kind.plural, name, why)


class SigningRequestStrategy(Strategy):
    """The server writes down who asks; decisions come through /approval, certificates through /status."""

    def prepare_create(self, context: Context, obj: Object) -> Object:
        user = context.user
        spec = {k: v for k, v in obj["spec"].items() if k not in ("username", "uid", "groups", "extra")}
        return {**obj, "spec": {**spec, **shown(user)}}

    def reset_update(self, context: Context, old: Object, new: Object) -> Object:
        status, before = new.get("status") or {}, old.get("status") or {}
        if context.subresource == "approval":
            merged = {**before, "conditions": _timed(status.get("conditions"), before, context.now)}
        elif context.subresource == "status":
            kept = [c for c in before.get("conditions") or () if c.get("type") in _DECISIONS]
            others = [c for c in status.get("conditions") or () if c.get("type") not in _DECISIONS]
            merged = {**status, "conditions": _timed([*kept, *others], before, context.now)}
        else:
            return {**new, "spec": old["spec"], "status": before}
        if not merged["conditions"]:
            del merged["conditions"]
        return {**new, "spec": old["spec"], "status": merged}

    def validate(self, context: Context, old: Object | None, new: Object) -> list[Cause]:
        return [] if old is None else list(certificates.update(old, new, context.subresource))


def _timed(conditions: list[Object] | None, before: Object, now: float) -> list[Object]:
    """Conditions with the times that their writer left out."""
    known = {c.get("type"): c for c in before.get("conditions") or ()}
    stamp = times.format(now)
    done = []
    for condition in conditions or ():
        old = known.get(condition.get("type"))
        same = old is not None and old.get("status") == condition.get("status")
        transition = old["lastTransitionTime"] if same and old and old.get("lastTransitionTime") else stamp
        filled = {"lastUpdateTime": stamp, "lastTransitionTime": transition}
        done.append({**condition, **{k: v for k, v in filled.items() if not condition.get(k)}})
    return done
