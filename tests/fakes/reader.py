"""A reader of the cluster's state over objects that a test gives: the second one beside apiserver.cache."""

from __future__ import annotations

from collections.abc import Iterable

from k3s.api.kinds import REGISTRY, Kind
from k3s.api.object import Object


class FakeReader:
    """Holds objects by kind, namespace and name; `put` and `drop` change what is seen and the kind's version."""

    def __init__(self, objects: Iterable[Object] = ()) -> None:
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._versions: dict[str, int] = {}
        for obj in objects:
            self.put(obj)

    def put(self, obj: Object) -> Object:
        """Adds or replaces an object."""
        kind = REGISTRY.of(obj)
        assert kind is not None, f"no kind {obj.get('apiVersion')} {obj.get('kind')}"
        meta = obj["metadata"]
        self._objects.setdefault(kind.storage_prefix, {})[meta.get("namespace", ""), meta["name"]] = obj
        self._changed(kind)
        return obj

    def drop(self, kind: Kind, namespace: str, name: str) -> None:
        """Removes an object."""
        del self._objects[kind.storage_prefix][namespace, name]
        self._changed(kind)

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return self._objects.get(kind.storage_prefix, {}).get((namespace, name))

    def list(self, kind: Kind, namespace: str = "") -> list[Object]:
        found = self._objects.get(kind.storage_prefix, {})
        return [obj for (space, _), obj in sorted(found.items()) if not namespace or space == namespace]

    def version(self, kind: Kind) -> int:
        return self._versions.get(kind.storage_prefix, 0)

    def _changed(self, kind: Kind) -> None:
        self._versions[kind.storage_prefix] = self.version(kind) + 1
