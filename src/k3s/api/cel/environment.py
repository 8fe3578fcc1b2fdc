"""What an expression may refer to: variables, types and functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from k3s.api.cel import types
from k3s.api.cel.library import LIBRARIES
from k3s.api.cel.overloads import Overload
from k3s.api.cel.types import Type

Functions = Mapping[str, tuple[Overload, ...]]

# All that Kubernetes 1.36 has everywhere. `jsonpatch` is for mutating policies only.
KUBERNETES = (
    *("standard", "optional", "strings", "lists", "sets", "regex", "url", "net", "quantity", "semver", "format"),
    *("authorizer", "math", "base64"),
)
_TYPE_NAMES = {
    "bool": types.BOOL,
    "bytes": types.BYTES,
    "double": types.DOUBLE,
    "dyn": types.DYN,
    "int": types.INT,
    "list": types.list_of(types.param("A")),
    "map": types.map_of(types.param("A"), types.param("B")),
    "null_type": types.NULL,
    "optional_type": types.optional_of(types.param("V")),
    "string": types.STRING,
    "type": types.TYPE,
    "uint": types.UINT,
    "google.protobuf.Timestamp": types.TIMESTAMP,
    "google.protobuf.Duration": types.DURATION,
    "kubernetes.URL": types.parse("kubernetes.URL"),
    "kubernetes.Quantity": types.parse("kubernetes.Quantity"),
    "kubernetes.NamedFormat": types.parse("kubernetes.NamedFormat"),
    "kubernetes.Semver": types.parse("kubernetes.Semver"),
    "net.IP": types.parse("net.IP"),
    "net.CIDR": types.parse("net.CIDR"),
}


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables with their types, the object types that can be built or are named, and the libraries."""

    variables: Mapping[str, Type] = field(default_factory=dict)
    objects: Mapping[str, Type] = field(default_factory=dict)
    libraries: tuple[str, ...] = KUBERNETES

    @property
    def functions(self) -> Functions:
        """The overloads of every function by its name."""
        return _functions(self.libraries)

    def type_named(self, name: str) -> Type | None:
        """The type of that name."""
        return _TYPE_NAMES.get(name) or self.objects.get(name)

    def with_variables(self, more: Mapping[str, Type]) -> Environment:
        """The same with more variables."""
        return Environment({**self.variables, **more}, self.objects, self.libraries)


@lru_cache(maxsize=16)
def _functions(libraries: tuple[str, ...]) -> Functions:
    found: dict[str, list[Overload]] = {}
    for name in libraries:
        for overload in _overloads(name):
            found.setdefault(overload.name, []).append(overload)
    return {name: tuple(overloads) for name, overloads in found.items()}


def _overloads(library: str) -> Iterable[Overload]:
    return LIBRARIES[library]
