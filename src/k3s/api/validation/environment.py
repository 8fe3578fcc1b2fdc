"""Rules for the environment of a container, and references to fields of its pod. Source: the Pod API documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from k3s.api import names, quantity
from k3s.api.validation.causes import Causes, each, invalid, not_found, one_of, required

Spec = Mapping[str, Any]

# What a reference may name at all, and what of it a variable can hold.
_FIELD_PATHS = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.annotations",
        "metadata.labels",
        "spec.host",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "spec.schedulerName",
        "status.phase",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)
_ENV_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_RESOURCE_PATHS = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_PAGES = ("limits.hugepages-", "requests.hugepages-")
_BYTE_UNITS = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_CPU_UNITS = "only divisor's values 1m and 1 are supported with the cpu resource"
_BYTES_TEXT = f"only divisor's values {', '.join(_BYTE_UNITS)} are supported with the "
_BYTES_OF = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_ONE_SOURCE = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
_MORE = "may not have more than one field specified at a time"


def of_container(at: str, container: Spec) -> Causes:
    """The variables of one container, one by one and by the bunch."""
    for i, var in enumerate(container.get("env") or ()):
        name = var.get("name", "")
        if not name:
            yield required(f"{at}.env[{i}].name")
        else:
            yield from each(f"{at}.env[{i}].name", name, names.env_var_name(name))
        if "valueFrom" in var:
            yield from _source(f"{at}.env[{i}].valueFrom", var["valueFrom"], var.get("value", ""))
    for i, source in enumerate(container.get("envFrom") or ()):
        prefix = source.get("prefix")
        if prefix:
            yield from each(f"{at}.envFrom[{i}].prefix", prefix, names.env_var_name(prefix))
        given = [kind for kind in ("configMapRef", "secretRef") if kind in source]
        for kind in given:
            field, name = f"{at}.envFrom[{i}].{kind}.name", source[kind].get("name", "")
            if not name:
                yield required(field)
            else:
                yield from each(field, name, names.dns_subdomain(names.generate_name_base(name)))
        if not given:
            yield invalid(f"{at}.envFrom", "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            yield invalid(f"{at}.envFrom", "", _MORE)


def _source(at: str, source: Spec, value: str) -> Causes:
    if "fieldRef" in source:
        yield from field_ref(f"{at}.fieldRef", source["fieldRef"], _ENV_PATHS)
    if "resourceFieldRef" in source:
        yield from resource_ref(f"{at}.resourceFieldRef", source["resourceFieldRef"], volume=False)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind in source:
            name = source[kind].get("name", "")
            yield from each(f"{at}.{kind}.name", name, names.dns_subdomain(name))
            yield from _key(f"{at}.{kind}.key", source[kind].get("key", ""))
    if "fileKeyRef" in source:
        yield from _file_key(f"{at}.fileKeyRef", source["fileKeyRef"])
    given = [kind for kind in _SOURCES if kind in source]
    if not given:
        yield invalid(at, "", _ONE_SOURCE)
    elif value:
        yield invalid(at, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        yield invalid(at, "", _MORE)


def _key(field: str, key: str) -> Causes:
    if not key:
        yield required(field)
    else:
        yield from each(field, key, names.config_map_key(key))


def _file_key(at: str, reference: Spec) -> Causes:
    """A variable from a file in a volume."""
    key, name, path = (reference.get(part, "") for part in ("key", "volumeName", "path"))
    if not key:
        yield required(f"{at}.key")
    else:
        yield from each(f"{at}.key", key, names.env_var_name(key))
    if not name:
        yield required(f"{at}.volumeName")
    else:
        yield from each(f"{at}.volumeName", name, names.dns_label(name))
    if not path:
        yield required(f"{at}.path")
    elif ".." in path.split("/"):
        yield invalid(f"{at}.path", path, "must not contain '..'")


def files(field: str, spec: Spec, walk: Callable[[str, Spec], Iterator[tuple[str, Spec]]]) -> Causes:
    """The files that variables come from are in volumes of the pod's own; `walk` leads through the containers."""
    volumes: dict[str, Spec] | None = None
    for at, container in walk(field, spec):
        for i, var in enumerate(container.get("env") or ()):
            reference = (var.get("valueFrom") or {}).get("fileKeyRef")
            if reference is None:
                continue
            volumes = volumes if volumes is not None else {v.get("name", ""): v for v in spec.get("volumes") or ()}
            here, name = f"{at}.env[{i}].valueFrom.fileKeyRef.volumeName", reference.get("volumeName", "")
            if name not in volumes:
                yield not_found(here, name)
            elif "emptyDir" not in volumes[name]:
                yield invalid(here, name, "referenced volume must be of type emptyDir")


def field_ref(at: str, ref: Spec, supported: Sequence[str]) -> Causes:
    """A reference to a field of the pod itself; `supported` are those that can be held here."""
    path, version = ref.get("fieldPath", ""), ref.get("apiVersion", "v1")
    if not path:
        yield required(f"{at}.fieldPath")
        return
    base, bracket, rest = path.partition("['")
    subscript = bool(bracket and base and rest.endswith("']"))
    why = ""
    if version != "v1":
        why = f"unsupported pod version: {version}"
    elif subscript and base not in ("metadata.labels", "metadata.annotations"):
        why = f"field label does not support subscript: {path}"
    elif not subscript and path not in _FIELD_PATHS:
        why = f"field label not supported: {path}"
    if why:
        yield invalid(f"{at}.fieldPath", path, f"error converting fieldPath: {why}")
    elif subscript:
        key = rest[:-2] if base == "metadata.labels" else rest[:-2].lower()
        yield from each(at, key, names.qualified_name(key))
    else:
        path = "spec.nodeName" if path == "spec.host" else path
        yield from one_of(f"{at}.fieldPath", path, supported)


def resource_ref(at: str, ref: Spec, *, volume: bool) -> Causes:
    """A reference to an amount of resources of a container."""
    path = ref.get("resource", "")
    if volume and not ref.get("containerName"):
        yield required(f"{at}.containerName")
    elif not path:
        yield required(f"{at}.resource")
    elif not path.startswith(_PAGES):
        yield from one_of(f"{at}.resource", path, _RESOURCE_PATHS)
    unit = quantity.canonical(ref.get("divisor", "0"))
    if unit == "0":
        return
    amount = path.partition(".")[2]
    if path in ("limits.cpu", "requests.cpu"):
        if unit not in ("1m", "1"):
            yield invalid(f"{at}.divisor", path, _CPU_UNITS)
    elif unit not in _BYTE_UNITS:
        what = "hugepages" if path.startswith(_PAGES) else _BYTES_OF.get(amount) if path in _RESOURCE_PATHS else None
        if what:
            yield invalid(f"{at}.divisor", path, f"{_BYTES_TEXT}{what} resource")
