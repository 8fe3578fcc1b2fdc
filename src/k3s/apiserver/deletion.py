"""What a DELETE does to an object: pure. Grace periods, finalizers, the garbage collector's finalizers, preconditions.

Source: DeleteOptions of meta/v1, "Finalizers" and "Garbage Collection" in the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k3s.api import times
from k3s.api.errors import ApiError, BadRequest, Conflict, invalid, resource_details
from k3s.api.object import Object
from k3s.api.validation import causes as rules
from k3s.apiserver.request import truth
from k3s.apiserver.strategy import Context, Strategy

_KIND = "DeleteOptions"
# Where the reference server keeps the kinds that it looks through here.
_SCHEME = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:25"
ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_JSON_TYPES: dict[type, str] = {str: "string", bool: "bool", list: "array", dict: "object"}
_TYPE_META = r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
_FIELDS: dict[str, tuple[tuple[type, ...], str]] = {
    "gracePeriodSeconds": ((int,), "int64"),
    "preconditions": ((dict,), "v1.Preconditions"),
    "orphanDependents": ((bool,), "bool"),
    "propagationPolicy": ((str,), "v1.DeletionPropagation"),
    "dryRun": ((list,), "[]string"),
    "ignoreStoreReadErrorWithClusterBreakingPotential": ((bool,), "bool"),
}
# Deletes what cannot be read; its gate is off, so it is checked and has no effect, as upstream.
_UNSAFE = "ignoreStoreReadErrorWithClusterBreakingPotential"
_NOT_WITH_UNSAFE = ("dryRun", "propagationPolicy", "orphanDependents", "gracePeriodSeconds", "preconditions")
_POLICIES = ("Foreground", "Background", "Orphan")


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How to delete; `orphan` is the deprecated orphanDependents."""

    grace_s: int | None = None
    uid: str = ""
    revision: str = ""
    propagation: str = ""
    orphan: bool | None = None
    dry_run: bool = False


def parse(body: Any, query: Mapping[str, str]) -> DeleteOptions:
    """Options from a body, or from the query when there is no body. Raises BadRequest, Invalid."""
    options = _typed(body) if body is not None else _of_query(query)
    kind = options.get("kind") or _KIND
    if kind != _KIND:
        version = options.get("apiVersion") or "v1"
        raise ApiError(f'no kind "{kind}" is registered for version "{version}" in scheme "{_SCHEME}"', code=500)
    orphan, propagation = options.get("orphanDependents"), options.get("propagationPolicy") or ""
    preconditions = options.get("preconditions") or {}
    dry_run = options.get("dryRun") or []
    _check(options, propagation, orphan, dry_run)
    return DeleteOptions(
        options.get("gracePeriodSeconds"),
        preconditions.get("uid") or "",
        preconditions.get("resourceVersion") or "",
        propagation,
        orphan,
        "All" in dry_run,
    )


def _of_query(query: Mapping[str, str]) -> Object:
    """The fields that a query gives; a dry run is known from there already. Raises BadRequest."""
    options: Object = {name: truth(query[name]) for name in ("orphanDependents", _UNSAFE) if name in query}
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    if "gracePeriodSeconds" in query:
        text = query["gracePeriodSeconds"]
        try:
            options["gracePeriodSeconds"] = int(text)
        except ValueError:
            raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    return options


def _typed(body: Any) -> Object:
    """The fields of a body, each of its type. Raises what the reference server answers to any other body."""
    if not isinstance(body, dict):
        found = _JSON_TYPES.get(type(body), "number")
        why = f"json: cannot unmarshal {found} into Go value of type {_TYPE_META}"
        raise ApiError(f"couldn't get version/kind; json parse error: {why}", code=500)
    for field, (types, named) in _FIELDS.items():
        value = body.get(field)
        if value is not None and type(value) not in types:
            found = _JSON_TYPES.get(type(value), "number")
            raise ApiError(
                f"json: cannot unmarshal {found} into Go struct field {_KIND}.{field} of type {named}", code=500
            )
    return body


def _check(options: Object, propagation: str, orphan: bool | None, dry_run: list[str]) -> None:
    causes = []
    if propagation and orphan is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        causes.append(rules.invalid("propagationPolicy", propagation, why))
    if propagation and propagation not in _POLICIES:
        causes.append(rules.unsupported("propagationPolicy", propagation, (*_POLICIES, "nil")))
    if any(value != "All" for value in dry_run):
        causes.append(rules.unsupported("dryRun", dry_run, ("All",)))
    if options.get(_UNSAFE):
        beside = [name for name in _NOT_WITH_UNSAFE if options.get(name) not in (None, [])]
        causes += [rules.invalid(_UNSAFE, True, f"cannot be set together with .{name}") for name in beside]
    if causes:
        raise invalid("meta.k8s.io", _KIND, "", causes)


def check_preconditions(context: Context, obj: Object, options: DeleteOptions) -> None:
    """Raises Conflict when the object is not the one that was meant."""
    kind, meta = context.kind, obj["metadata"]
    if options.uid and options.uid != meta.get("uid"):
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta.get('uid')}). "
            "The object might have been deleted and then recreated"
        )
    elif options.revision and options.revision != meta.get("resourceVersion"):
        why = (
            f"the ResourceVersion in the precondition ({options.revision}) does not match the ResourceVersion in "
            f"record ({meta.get('resourceVersion')}). The object might have been modified"
        )
    else:
        return
    subject = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    raise Conflict(
        f'Operation cannot be fulfilled on {subject} "{context.name}": {why}',
        resource_details(kind.group, kind.kind, context.name),
    )


def collector_finalizers(finalizers: list[str], options: DeleteOptions, orphans: bool = False) -> list[str]:
    """The finalizers after the garbage collector's were added or taken away as the options say.

    `orphans`: the kind leaves its dependents alone unless told otherwise.
    """
    if options.orphan is not None:
        orphan, foreground = options.orphan, False
    elif options.propagation:
        orphan, foreground = options.propagation == "Orphan", options.propagation == "Foreground"
    else:
        foreground = FOREGROUND in finalizers
        orphan = ORPHAN in finalizers or (orphans and not foreground)
    kept = [f for f in finalizers if f not in (ORPHAN, FOREGROUND)]
    wanted = kept + [ORPHAN] * orphan + [FOREGROUND] * foreground
    return finalizers if set(wanted) == set(finalizers) else wanted


def decide(strategy: Strategy, context: Context, obj: Object, options: DeleteOptions) -> tuple[Object | None, Object]:
    """What is to be stored (None: nothing, the object goes; `obj` itself: no change) and how the object looked last."""
    strategy.check_delete(context, obj)
    check_preconditions(context, obj, options)
    meta = obj["metadata"]
    wanted = strategy.grace(context, obj, options.grace_s)
    graceful = wanted is not None
    if "deletionTimestamp" in meta:
        marked, grace = _again(meta, options)
        if graceful and grace and marked is meta:
            return obj, obj  # it is under way already: not even the garbage collector's finalizers change
    else:
        grace = max(wanted or 0, 0) if wanted is None or wanted >= 0 else 1
        marked = mark(meta, context.now, grace)
    finalizers = meta.get("finalizers") or []
    if strategy.collected:
        kept = collector_finalizers(finalizers, options, strategy.orphans)
    else:
        kept = [name for name in finalizers if name not in (ORPHAN, FOREGROUND)]
    if kept != finalizers:
        marked = {**marked, "finalizers": kept} if kept else {k: v for k, v in marked.items() if k != "finalizers"}
    last = obj if marked is meta else {**obj, "metadata": marked}
    last = strategy.marked(context, last)
    if kept or grace > 0 or strategy.holds(last) or (strategy.lingers and "deletionTimestamp" not in meta):
        return last, last
    return None, last if graceful else obj


def mark(meta: Object, now: float, grace_s: int) -> Object:
    """Metadata of an object whose deletion begins."""
    marked = {
        **meta,
        "deletionTimestamp": times.format(now + grace_s),
        "deletionGracePeriodSeconds": grace_s,
    }
    if meta.get("generation"):
        marked["generation"] = meta["generation"] + 1
    return marked


def _again(meta: Object, options: DeleteOptions) -> tuple[Object, int]:
    """A deletion on top of a deletion: it can only shorten the grace period, of which a negative one is a second."""
    current = int(meta.get("deletionGracePeriodSeconds") or 0)
    asked = options.grace_s
    if asked is not None and asked < 0:
        asked = 1
    if asked is None or current == 0 or asked >= current:
        return meta, current
    moved = times.parse(meta["deletionTimestamp"]) - current + asked
    return {**meta, "deletionTimestamp": times.format(moved), "deletionGracePeriodSeconds": asked}, asked


def finished(strategy: Strategy, old: Object, new: Object) -> bool:
    """Whether an update takes away the last thing that kept a deleted object."""
    meta = new["metadata"]
    if "deletionTimestamp" not in old["metadata"] or meta.get("finalizers"):
        return False
    return not old["metadata"].get("deletionGracePeriodSeconds") and not strategy.holds(new)
