"""Custom resource definitions: each version that one serves is a row in the table of kinds (law 1).

`rows` is pure; `Definitions` follows the definitions that are stored: it adds and removes rows, writes the status that
says so, and empties a kind before its definition goes. Source: the CustomResourceDefinition documentation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from k3s.api import schema, times
from k3s.api.errors import ApiError
from k3s.api.kinds import Kind, Registry, Subresource, builtin, make
from k3s.api.object import Object, evolve
from k3s.api.validation import definitions, hooks
from k3s.apiserver.cache import Change
from k3s.apiserver.crud import Crud
from k3s.apiserver.deletion import DeleteOptions
from k3s.apiserver.identity import APISERVER, MASTERS, authenticated
from k3s.apiserver.strategies.others import CLEANUP
from k3s.apiserver.strategy import Context
from k3s.base.aio import Tasks
from k3s.base.clock import Clock

log = logging.getLogger(__name__)

DEFINITION = builtin("apiextensions.k8s.io/v1", "CustomResourceDefinition")
# In the order in which discovery has always shown them for custom kinds.
_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_SCALE_PATHS = ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
_PART_VERBS = ("get", "patch", "update")


def rows(definition: Object) -> list[Kind]:
    """The kinds that a definition serves."""
    spec = definition["spec"]
    names, versions = spec["names"], spec["versions"]
    stored = next((v["name"] for v in versions if v.get("storage")), versions[0]["name"])
    conversion = spec.get("conversion") or {}
    webhook = conversion.get("webhook") if conversion.get("strategy") == "Webhook" else None
    return [_row(spec, names, version, stored, webhook) for version in versions if version.get("served")]


def _row(spec: Object, names: Object, version: Object, stored: str, webhook: Object | None) -> Kind:
    group = spec["group"]
    raw = (version.get("schema") or {}).get("openAPIV3Schema")
    return make(
        group,
        version["name"],
        names["kind"],
        names["plural"],
        namespaced=spec.get("scope") == "Namespaced",
        storage=(group, stored),
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=names.get("listKind") or names["kind"] + "List",
        verbs=_VERBS,
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=_parts(group, version, names["kind"]),
        custom=True,
        schema=schema.custom(raw) if raw else None,
        printer_columns=tuple(version.get("additionalPrinterColumns") or ()),
        selectable_fields=tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
        webhook=webhook,
    )


def _parts(group: str, version: Object, kind: str) -> dict[str, Subresource]:
    given = version.get("subresources") or {}
    parts = {}
    if "status" in given:
        parts["status"] = Subresource("status", group, version["name"], kind, _PART_VERBS)
    if "scale" in given:
        said = (
            given["scale"].get(name) or "" for name in ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
        )
        paths = tuple(tuple(path.removeprefix(".").split(".")) if path else () for path in said)
        parts["scale"] = Subresource("scale", "autoscaling", "v1", "Scale", _PART_VERBS, paths)
    return parts


def accepted(definition: Object, others: Iterable[Object], now: float) -> Object:
    """The definition with the status that says which of its names it got; itself when it has it already.

    `others` are the definitions of the same group: a name belongs to the first whose status has it.
    """
    status = definition.get("status") or {}
    resources, kinds = _taken(others)
    names, conflict = _names(definition["spec"]["names"], status.get("acceptedNames") or {}, resources, kinds)
    before = {c["type"]: c for c in status.get("conditions") or ()}
    wanted = [_condition("NamesAccepted", *(conflict or _NO_CONFLICTS), now)]
    established = before.get("Established")
    if established is not None and established["status"] == "True":
        wanted.append(established)
    elif conflict:
        wanted.append(_condition("Established", *_NOT_ACCEPTED, now))
    elif hooks.bad_bundle(definitions.bundle(definition["spec"])):
        wanted.append(_condition("Established", *_BAD_BUNDLE, now))
    else:
        wanted.append(_condition("Established", *_ESTABLISHED, now))
    wanted = [_since(condition, before.get(condition["type"])) for condition in wanted]
    approval = definitions.conformance(definition)
    if approval is not None:
        before.setdefault(_APPROVED, {})
    for type, condition in before.items():
        if type == _APPROVED and approval is not None:
            wanted.append(_since(_condition(type, *approval, now), condition or None))
        elif type not in ("NamesAccepted", "Established"):
            wanted.append(condition)
    if status.get("acceptedNames") == names and status.get("conditions") == wanted:
        return definition
    return {**definition, "status": {**status, "conditions": wanted, "acceptedNames": names}}


def established(definition: Object) -> bool:
    """Whether the kind of a definition is served."""
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def terminating(definition: Object, now: float) -> Object:
    """A definition whose objects are being deleted, and that says so."""
    status = definition.get("status") or {}
    before = status.get("conditions") or ()
    if is_terminating(definition):
        return definition
    others = [c for c in before if c["type"] != _TERMINATING]
    return {**definition, "status": {**status, "conditions": [*others, _condition(_TERMINATING, *_EMPTYING, now)]}}


def is_terminating(definition: Object | None) -> bool:
    """Whether no more objects of a definition are created."""
    conditions = ((definition or {}).get("status") or {}).get("conditions") or ()
    return any(c["type"] == _TERMINATING and c["status"] == "True" for c in conditions)


_APPROVED, _TERMINATING = "KubernetesAPIApprovalPolicyConformant", "Terminating"
_EMPTYING = ("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress")
_NO_CONFLICTS = ("True", "NoConflicts", "no conflicts found")
_ESTABLISHED = ("True", "InitialNamesAccepted", "the initial names have been accepted")
_BAD_BUNDLE = ("False", "InvalidCABundle", "The conversion webhook CABundle is invalid")
_NOT_ACCEPTED = ("False", "NotAccepted", "not all names are accepted")


def _taken(definitions: Iterable[Object]) -> tuple[set[str], set[str]]:
    """The names that definitions have: of resources, and of kinds."""
    resources: set[str] = set()
    kinds: set[str] = set()
    for definition in definitions:
        names = (definition.get("status") or {}).get("acceptedNames") or {}
        resources.update((names.get("plural", ""), names.get("singular", ""), *(names.get("shortNames") or ())))
        kinds.update((names.get("kind", ""), names.get("listKind", "")))
    return resources - {""}, kinds - {""}


def _names(
    wanted: Object, has: Object, resources: set[str], kinds: set[str]
) -> tuple[Object, tuple[str, str, str] | None]:
    """The names that a definition gets, and the condition that tells of the last one that it does not."""
    got: Object = {"plural": "", "kind": "", **has}
    conflict = None
    for part, used in (
        ("plural", resources),
        ("singular", resources),
        ("shortNames", resources),
        ("kind", kinds),
        ("listKind", kinds),
    ):
        given = wanted.get(part)
        owned = has.get("shortNames") or () if part == "shortNames" else (has.get(part),)
        new = [n for n in (given or () if part == "shortNames" else [given or ""]) if n not in owned]
        clashes = [f'"{name}" is already in use' for name in new if name in used]
        if clashes:
            text = clashes[0] if len(clashes) == 1 else "[" + ", ".join(clashes) + "]"
            conflict = ("False", f"{part[0].upper()}{part[1:]}Conflict", text)
        elif given:
            got[part] = given
        else:
            got.pop(part, None)
    if wanted.get("categories"):
        got["categories"] = wanted["categories"]
    else:
        got.pop("categories", None)
    return got, conflict


def _condition(type: str, status: str, reason: str, message: str, now: float) -> Object:
    stamp = times.format(now)
    return {"type": type, "status": status, "lastTransitionTime": stamp, "reason": reason, "message": message}


def _since(condition: Object, before: Object | None) -> Object:
    """A condition that has been so for a while keeps its time."""
    if before is None or before["status"] != condition["status"]:
        return condition
    return {**condition, "lastTransitionTime": before.get("lastTransitionTime", condition["lastTransitionTime"])}


class Definitions:
    """Keeps the table of kinds true to the definitions that are stored."""

    def __init__(
        self,
        registry: Registry,
        crud: Crud,
        clock: Clock,
        forget: Callable[[Kind], None],
        end: Callable[[Iterable[Kind]], None],
    ) -> None:
        self._registry = registry
        self._cache = crud.cache
        self._crud = crud
        self._clock = clock
        self._forget = forget
        self._end = end
        self._rows: dict[str, list[Kind]] = {}
        self._spec: dict[str, Object | None] = {}
        #: The definitions as their statuses have or will have them: who came first has the names.
        self._told: dict[str, Object] = {}
        self._tasks = Tasks("definitions")
        self._settling: set[str] = set()

    def start(self) -> None:
        """Serves what is defined, and follows changes."""
        for definition in self._cache.list(DEFINITION):
            self._serve(definition["metadata"]["name"], definition)
            self._settle_soon(definition["metadata"]["name"])
        self._cache.listen(DEFINITION, self._changed)

    async def stop(self) -> None:
        """Ends what is under way."""
        await self._tasks.close()

    def _changed(self, change: Change) -> None:
        name = change.item.name
        self._serve(name, None if change.deleted else change.item.obj)
        if not change.deleted:
            self._settle_soon(name)
            return
        group = change.item.obj["spec"]["group"]
        for other in [n for n, d in self._told.items() if d["spec"]["group"] == group]:
            self._serve(other, self._cache.get(DEFINITION, "", other))
            self._settle_soon(other)  # it may get the names that are free now

    def _accepted(self, definition: Object) -> Object:
        """The definition with the status that it is to have, seen beside the others of its group."""
        name, group = definition["metadata"]["name"], definition["spec"]["group"]
        others = [d for n, d in self._told.items() if n != name and d["spec"]["group"] == group]
        return accepted(definition, others, self._clock.now())

    def _serve(self, name: str, definition: Object | None) -> None:
        self._told.pop(name, None)
        if definition is not None:
            told = self._told[name] = self._accepted(definition)
            if not established(told):
                definition = None
        old = self._rows.get(name) or []
        if definition is not None and old and definition["spec"] == self._spec.get(name):
            return
        for kind in old:
            self._registry.remove(kind)
            self._forget(kind)
        self._rows[name] = [] if definition is None else rows(definition)
        self._spec[name] = None if definition is None else definition["spec"]
        for kind in self._rows[name]:
            self._registry.add(kind)
        left = {kind.version for kind in self._rows[name]}
        if gone := [kind for kind in old if kind.version not in left]:
            self._end(gone)

    def _settle_soon(self, name: str) -> None:
        if name not in self._settling:
            self._settling.add(name)
            self._tasks.spawn(self._settle(name), name)

    async def _settle(self, name: str) -> None:
        """Writes the status; empties and lets go of a definition that is being deleted."""
        self._settling.discard(name)
        definition = self._cache.get(DEFINITION, "", name)
        if definition is None:
            return
        if "deletionTimestamp" in definition["metadata"]:
            await self._empty(name)
            return

        def mutate(old: Object | None) -> Object | None:
            return old if old is None else self._accepted(old)

        await self._crud.commit(DEFINITION, "", name, mutate)

    async def _empty(self, name: str) -> None:
        def begin(old: Object | None) -> Object | None:
            return old if old is None else terminating(old, self._clock.now())

        definition = self._cache.get(DEFINITION, "", name)
        if definition is None or CLEANUP not in (definition["metadata"].get("finalizers") or ()):
            return
        await self._crud.commit(DEFINITION, "", name, begin)
        kinds = self._rows.get(name) or []
        if kinds:
            kind = self._registry.storage_kind(kinds[0])
            bucket = self._cache.bucket(kind)
            while bucket.count:
                for item in list(bucket.items(everywhere=True)):
                    if "deletionTimestamp" not in item.obj["metadata"]:
                        await self._delete(kind, item.namespace, item.name)
                if bucket.count:
                    await self._cache.reached(self._cache.revision + 1)

        def mutate(old: Object | None) -> Object | None:
            if old is None or CLEANUP not in (old["metadata"].get("finalizers") or ()):
                return old
            left = [f for f in old["metadata"]["finalizers"] if f != CLEANUP]
            return evolve(old, ("metadata", "finalizers"), left) if left else None

        await self._crud.commit(DEFINITION, "", name, mutate)

    async def _delete(self, kind: Kind, namespace: str, name: str) -> None:
        user = authenticated(APISERVER, MASTERS)
        context = Context(kind, namespace, name, user, self._clock.now(), "delete")
        try:
            await self._crud.delete(context, DeleteOptions(), admitted=True)
        except ApiError as error:
            if error.reason != "NotFound":
                log.warning("Cannot delete %s %s/%s of a definition that goes: %s", kind.kind, namespace, name, error)
