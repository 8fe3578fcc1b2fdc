"""The table of kinds (law 1): what the API serves, as rows.

The rows of `data/kinds.json` are what upstream 1.36 serves by default, in the order of its discovery documents. A
custom resource definition adds rows to a registry of its own (`Registry.copy`), so two clusters do not meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from k3s.api.schema import Node

_DATA = Path(__file__).with_name("data")


@dataclass(frozen=True, slots=True)
class Subresource:
    """A part of a kind with a path of its own; `group` and `version` are empty when they are the parent's."""

    name: str
    group: str
    version: str
    kind: str
    verbs: tuple[str, ...]
    #: Of the scale of a custom kind: where its objects keep the wanted and the current number, and their selector.
    paths: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One served version of a kind. Compared by identity: a registry holds each row once."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    verbs: tuple[str, ...]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: Mapping[str, Subresource] = field(default_factory=dict)
    #: False for what is only computed: reviews, bindings, component statuses, bodies of subresources.
    stored: bool = True
    #: Where objects live; the same for versions that share storage.
    storage_prefix: str = ""
    #: The apiVersion that objects are stored in.
    storage_version: str = ""
    list_kind: str = ""
    #: Name of the schema definition, empty for custom resources.
    definition: str = ""
    #: True for a kind that a custom resource definition made.
    custom: bool = False
    #: The schema of a custom kind; None for built-in ones and for custom ones without.
    schema: Node | None = None
    #: additionalPrinterColumns of a custom kind.
    printer_columns: tuple[Mapping[str, Any], ...] = ()
    #: Fields besides name and namespace by which objects of a custom kind can be selected, as `spec.color`.
    selectable_fields: tuple[str, ...] = ()
    #: The webhook that converts objects of a custom kind (spec.conversion.webhook of its definition); None when
    #: nothing but the apiVersion differs between its versions.
    webhook: Mapping[str, Any] | None = None
    api_version: str = ""

    @property
    def is_storage_version(self) -> bool:
        """False for a version whose objects are converted on the way to the datastore."""
        return self.api_version == self.storage_version

    @property
    def qualified(self) -> str:
        """`deployments.apps`, or `pods` for the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def base(self) -> str:
        """The URL path of the group version: `/api/v1` or `/apis/apps/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, of one object, or of a part of it."""
        text = f"{self.base}/namespaces/{namespace}/{self.plural}" if namespace else f"{self.base}/{self.plural}"
        if name:
            text = f"{text}/{name}"
        return f"{text}/{subresource}" if subresource else text

    def key(self, namespace: str, name: str) -> str:
        """The key in the datastore."""
        return f"{self.storage_prefix}{namespace}/{name}" if namespace else f"{self.storage_prefix}{name}"

    def prefix(self, namespace: str = "") -> str:
        """The start of the datastore keys of all objects, or of those in one namespace."""
        return f"{self.storage_prefix}{namespace}/" if namespace else self.storage_prefix


def make(
    group: str,
    version: str,
    kind: str,
    plural: str,
    *,
    namespaced: bool,
    storage: tuple[str, str] | None = None,
    singular: str = "",
    list_kind: str = "",
    verbs: tuple[str, ...] = (),
    **rest: Any,
) -> Kind:
    """A row with what follows from the rest filled in; `storage` is (group, version) when stored as another one."""
    home, stored_version = storage or (group, version)
    return Kind(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        singular=singular or kind.lower(),
        namespaced=namespaced,
        verbs=verbs or ALL_VERBS,
        storage_prefix=f"/registry/{home or 'core'}/{plural}/",
        storage_version=f"{home}/{stored_version}" if home else stored_version,
        list_kind=list_kind or f"{kind}List",
        api_version=f"{group}/{version}" if group else version,
        **rest,
    )


ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Registry:
    """The kinds that one API server serves."""

    def __init__(self) -> None:
        self._by_resource: dict[tuple[str, str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str, str], Kind] = {}
        self._versions: dict[str, list[str]] = {}
        self._builtin_groups: tuple[str, ...] = ()
        #: Changes whenever a row does; for what is derived from the table (discovery, OpenAPI).
        self.generation = 0

    def copy(self) -> Registry:
        """A registry with the same rows, to be changed on its own."""
        new = Registry()
        new._by_resource = dict(self._by_resource)
        new._by_kind = dict(self._by_kind)
        new._versions = {group: list(versions) for group, versions in self._versions.items()}
        new._builtin_groups = self._builtin_groups
        return new

    def by_resource(self, group: str, version: str, plural: str) -> Kind | None:
        """The row that a URL names, None when there is none."""
        return self._by_resource.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Kind | None:
        """The row that an object's apiVersion and kind name, None when there is none."""
        return self._by_kind.get((group, version, kind))

    def of(self, obj: Mapping[str, Any]) -> Kind | None:
        """The row of an object, None when there is none."""
        group, version = split_api_version(obj.get("apiVersion", ""))
        return self._by_kind.get((group, version, obj.get("kind", "")))

    def storage_kind(self, kind: Kind) -> Kind:
        """The row of the version that objects of `kind` are stored in, itself for most.

        Where a definition does not serve that version, the most stable of those that it serves.
        """
        if kind.is_storage_version:
            return kind
        found = self._by_kind.get((*split_api_version(kind.storage_version), kind.kind))
        if found is not None:
            return found
        versions = self._versions.get(kind.group, ())
        rows = (self._by_kind.get((kind.group, version, kind.kind)) for version in versions)
        return next((row for row in rows if row is not None), kind)

    def all(self) -> list[Kind]:
        """Every served row: built-in groups in upstream's order, then custom ones by name; plurals by name."""
        return [kind for group, version in self.group_versions() for kind in self.of_version(group, version)]

    def stored(self) -> list[Kind]:
        """One row for each place in the datastore: see `storage_kind`."""
        return [kind for kind in self.all() if kind.stored and self.storage_kind(kind) is kind]

    @property
    def builtin_groups(self) -> tuple[str, ...]:
        """The groups that are there without any definition, the core group's name is empty."""
        return self._builtin_groups

    def groups(self) -> list[tuple[str, tuple[str, ...]]]:
        """Each group with its versions, the preferred one first, in the order of discovery."""
        custom = sorted(group for group in self._versions if group not in self._builtin_groups)
        return [(group, tuple(self._versions[group])) for group in (*self._builtin_groups, *custom)]

    def group_versions(self) -> Iterator[tuple[str, str]]:
        """Each (group, version) in the order of discovery."""
        for group, versions in self.groups():
            for version in versions:
                yield group, version

    def of_version(self, group: str, version: str) -> list[Kind]:
        """The served rows of one group version, by plural."""
        rows = (kind for (g, v, _), kind in self._by_resource.items() if g == group and v == version)
        return sorted(rows, key=lambda kind: kind.plural)

    def add(self, kind: Kind) -> None:
        """Serve a kind; a row for the same resource is replaced."""
        old = self._by_resource.get((kind.group, kind.version, kind.plural))
        if old is not None:
            self.remove(old)
        self._by_resource[kind.group, kind.version, kind.plural] = kind
        self._by_kind[kind.group, kind.version, kind.kind] = kind
        versions = self._versions.setdefault(kind.group, [])
        if kind.version not in versions:
            versions.append(kind.version)
            if kind.custom:
                versions.sort(key=version_rank)
        self.generation += 1

    def remove(self, kind: Kind) -> None:
        """Stop serving a kind; raises KeyError when it is not served."""
        del self._by_resource[kind.group, kind.version, kind.plural]
        if self._by_kind.get((kind.group, kind.version, kind.kind)) is kind:
            del self._by_kind[kind.group, kind.version, kind.kind]
        if not self.of_version(kind.group, kind.version):
            self._versions[kind.group].remove(kind.version)
            if not self._versions[kind.group] and kind.group not in self._builtin_groups:
                del self._versions[kind.group]
        self.generation += 1

    def load(self, data: bytes) -> None:
        """Add the rows of `data/kinds.json`."""
        table = msgspec.json.decode(data)
        self._versions = {group: list(versions) for group, versions in table["groups"]}
        self._builtin_groups = tuple(self._versions)
        for row in table["kinds"]:
            self.add(_row(row))
        for group, version, name, namespaced, definition in table["bodies"]:
            body = make(group, version, name, "", namespaced=namespaced, stored=False, definition=definition)
            self._by_kind[group, version, name] = body


def _row(row: dict[str, Any]) -> Kind:
    subresources = {s[0]: Subresource(s[0], s[1], s[2], s[3], tuple(s[4])) for s in row.get("subresources", ())}
    storage = row.get("storage")
    return make(
        row["group"],
        row["version"],
        row["kind"],
        row["plural"],
        singular=row["singular"],
        namespaced=row["namespaced"],
        verbs=tuple(row["verbs"]),
        short_names=tuple(row.get("shortNames", ())),
        categories=tuple(row.get("categories", ())),
        subresources=subresources,
        stored=row.get("stored", True),
        storage=(storage[0], storage[1]) if storage else None,
        definition=row["definition"],
    )


def split_api_version(api_version: str) -> tuple[str, str]:
    """Group (empty for the core group) and version."""
    group, _, version = api_version.rpartition("/")
    return group, version


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Sort key that puts v2 before v1 before v1beta2 before v1alpha1 before anything else (API versioning rules)."""
    head, digits = version[:1], ""
    for char in version[1:]:
        if not char.isdigit():
            break
        digits += char
    rest = version[1 + len(digits) :]
    if head != "v" or not digits:
        return 3, 0, 0, version
    if not rest:
        return 0, -int(digits), 0, version
    for rank, stage in ((1, "beta"), (2, "alpha")):
        minor = rest.removeprefix(stage)
        if minor != rest and minor.isdigit():
            return rank, -int(digits), -int(minor), version
    return 3, 0, 0, version


def _load() -> Registry:
    registry = Registry()
    registry.load((_DATA / "kinds.json").read_bytes())
    return registry


#: The built-in kinds; not to be changed: an API server takes a copy.
REGISTRY = _load()


def builtin(api_version: str, kind: str) -> Kind:
    """The built-in row of a kind, e.g. `builtin("apps/v1", "Deployment")`; raises KeyError when unknown."""
    group, version = split_api_version(api_version)
    found = REGISTRY.by_kind(group, version, kind)
    if found is None:
        raise KeyError(f"{api_version} {kind}")
    return found
