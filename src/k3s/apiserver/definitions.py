"""Custom resource definitions: each version that one serves is a row in the table of kinds (law 1).

`rows` is pure; `Definitions` follows the definitions that are stored: it adds and removes rows, writes the status that
says so, and empties a kind before its definition goes. Source: the CustomResourceDefinition documentation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from k3s.api import schema, times
from k3s.api.errors import ApiError
from k3s.api.kinds import ALL_VERBS, Kind, Registry, Subresource, builtin, make
from k3s.api.object import Object, evolve
from k3s.apiserver.cache import Cache, Change
from k3s.apiserver.crud import Crud
from k3s.apiserver.deletion import DeleteOptions
from k3s.apiserver.identity import APISERVER, MASTERS, authenticated
from k3s.apiserver.strategies.others import CLEANUP
from k3s.apiserver.strategy import Context
from k3s.base.aio import Tasks
from k3s.base.clock import Clock

log = logging.getLogger(__name__)

DEFINITION = builtin("apiextensions.k8s.io/v1", "CustomResourceDefinition")
_PART_VERBS = ("get", "patch", "update")


def rows(definition: Object) -> list[Kind]:
    """The kinds that a definition serves."""
    spec = definition["spec"]
    names, versions = spec["names"], spec["versions"]
    stored = next((v["name"] for v in versions if v.get("storage")), versions[0]["name"])
    return [_row(spec, names, version, stored) for version in versions if version.get("served")]


def _row(spec: Object, names: Object, version: Object, stored: str) -> Kind:
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
        verbs=ALL_VERBS,
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=_parts(group, version, names["kind"]),
        custom=True,
        schema=schema.custom(raw) if raw else None,
        printer_columns=tuple(version.get("additionalPrinterColumns") or ()),
    )


def _parts(group: str, version: Object, kind: str) -> dict[str, Subresource]:
    given = version.get("subresources") or {}
    parts = {}
    if "status" in given:
        parts["status"] = Subresource("status", group, version["name"], kind, _PART_VERBS)
    if "scale" in given:
        parts["scale"] = Subresource("scale", "autoscaling", "v1", "Scale", _PART_VERBS)
    return parts


def accepted(definition: Object, now: float) -> Object:
    """The definition with the status of one whose names are free; itself when it has it already."""
    spec, status = definition["spec"], definition.get("status") or {}
    names = {**spec["names"]}
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", names["kind"] + "List")
    stored = next((v["name"] for v in spec["versions"] if v.get("storage")), "")
    versions = list(status.get("storedVersions") or [])
    if stored and stored not in versions:
        versions.append(stored)
    wanted = {"acceptedNames": names, "storedVersions": versions}
    established = any(c["type"] == "Established" and c["status"] == "True" for c in status.get("conditions") or ())
    if established and all(status.get(key) == value for key, value in wanted.items()):
        return definition
    conditions = status.get("conditions") if established else _conditions(now)
    return {**definition, "status": {"conditions": conditions, **wanted}}


def _conditions(now: float) -> list[Object]:
    stamp = times.format(now)
    told = (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    )
    return [
        {"type": type, "status": "True", "lastTransitionTime": stamp, "reason": reason, "message": message}
        for type, reason, message in told
    ]


class Definitions:
    """Keeps the table of kinds true to the definitions that are stored."""

    def __init__(
        self, registry: Registry, cache: Cache, crud: Crud, clock: Clock, forget: Callable[[Kind], None]
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._crud = crud
        self._clock = clock
        self._forget = forget
        self._rows: dict[str, list[Kind]] = {}
        self._spec: dict[str, Object | None] = {}
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

    def _serve(self, name: str, definition: Object | None) -> None:
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
            return old if old is None else accepted(old, self._clock.now())

        await self._crud.commit(DEFINITION, "", name, mutate)

    async def _empty(self, name: str) -> None:
        kinds = self._rows.get(name) or []
        if kinds:
            bucket = self._cache.bucket(kinds[0])
            for item in list(bucket.items(everywhere=True)):
                await self._delete(kinds[0], item.namespace, item.name)
            while bucket.count:
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
            await self._crud.delete(context, DeleteOptions())
        except ApiError as error:
            if error.reason != "NotFound":
                log.warning("Cannot delete %s %s/%s of a definition that goes: %s", kind.kind, namespace, name, error)
