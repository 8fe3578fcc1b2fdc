"""The environment variables of a container, from all their sources.

Pure. Order and expansion as the API documents them: service variables first, then envFrom, then env; a later one wins;
`$(NAME)` is replaced by a variable that was set before it, `$$(NAME)` stays as `$(NAME)`, an unknown one is left alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from k3s.api.object import Object, labels, name, namespace, uid
from k3s.kubelet import resources

Lookup = Callable[[str, str], Object | None]

_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]\Z")
_VARIABLE = re.compile(r"[ -<>-~]+\Z")


class VariableError(Exception):
    """A variable cannot be made: the container cannot be configured (CreateContainerConfigError)."""


def expand(text: str, known: Mapping[str, str]) -> str:
    """`text` with each $(NAME) replaced by its value in `known`."""

    def one(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "$"
        return known.get(match.group(1), match.group(0))

    return _REFERENCE.sub(one, text)


def field(pod: Object, path: str, node: Mapping[str, str]) -> str:
    """The value of a fieldRef. `node` has spec.nodeName, status.hostIP(s) and status.podIP(s). Raises VariableError."""
    if match := _SUBSCRIPT.match(path):
        source = labels(pod) if match.group(1) == "labels" else _annotations(pod)
        return source.get(match.group(2), "")
    simple = {
        "metadata.name": name(pod),
        "metadata.namespace": namespace(pod),
        "metadata.uid": uid(pod),
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        **node,
    }
    if path in simple:
        return str(simple[path])
    if path == "metadata.labels":
        return lines(labels(pod))
    if path == "metadata.annotations":
        return lines(_annotations(pod))
    raise VariableError(f"unsupported fieldPath: {path}")


def lines(pairs: Mapping[str, str]) -> str:
    """Labels or annotations as the downward API writes them: key="value", a line each, sorted."""
    return "\n".join(f"{key}={_go_quote(value)}" for key, value in sorted(pairs.items()))


def _go_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'


def service_variables(services: Iterable[Object], space: str, *, links: bool) -> dict[str, str]:
    """The variables that tell a container where services are: all of its namespace, and always the API's own."""
    made: dict[str, str] = {}
    for service in sorted(services, key=lambda s: (namespace(s) == space, name(s))):
        api = namespace(service) == "default" and name(service) == "kubernetes"
        if not api and not (links and namespace(service) == space):
            continue
        address = service["spec"].get("clusterIP")
        ports = service["spec"].get("ports") or []
        if address in (None, "", "None") or not ports:
            continue
        made |= _of_service(name(service).upper().replace("-", "_"), address, ports)
    return made


def _of_service(prefix: str, address: str, ports: list[Object]) -> dict[str, str]:
    host = f"[{address}]" if ":" in address else address
    made = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    for port in ports:
        if port.get("name"):
            made[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
    for index, port in enumerate(ports):
        protocol = port.get("protocol", "TCP")
        url = f"{protocol.lower()}://{host}:{port['port']}"
        if index == 0:
            made[f"{prefix}_PORT"] = url
        start = f"{prefix}_PORT_{port['port']}_{protocol}"
        made |= {start: url, f"{start}_PROTO": protocol.lower()}
        made |= {f"{start}_PORT": str(port["port"]), f"{start}_ADDR": address}
    return made


def environment(
    pod: Object,
    container: Object,
    *,
    config_map: Lookup,
    secret: Lookup,
    services: Iterable[Object],
    node: Mapping[str, str],
    allocatable: Mapping[str, int],
) -> dict[str, str]:
    """All variables of a container in order. Raises VariableError when a source that is needed is missing."""
    space = namespace(pod)
    set_by_services = service_variables(services, space, links=pod["spec"].get("enableServiceLinks", True) is not False)
    made: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        made |= _from_source(source, space, config_map, secret)
    for variable in container.get("env") or ():
        if variable.get("valueFrom"):
            value = _from_reference(variable["valueFrom"], pod, container, config_map, secret, node, allocatable)
            if value is None:
                continue
        else:
            value = expand(str(variable.get("value") or ""), {**set_by_services, **made})
        made.pop(variable["name"], None)
        made[variable["name"]] = value
    return {**{k: v for k, v in set_by_services.items() if k not in made}, **made}


def _from_source(source: Object, space: str, config_map: Lookup, secret: Lookup) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for kind, lookup, label in (("configMapRef", config_map, "configmap"), ("secretRef", secret, "secret")):
        ref = source.get(kind)
        if not ref:
            continue
        found = lookup(space, ref["name"])
        if found is None:
            if ref.get("optional"):
                return {}
            raise VariableError(f'{label} "{ref["name"]}" not found')
        data = found.get("data") or {}
        pairs = {k: v if kind == "configMapRef" else _plain(v) for k, v in data.items()}
        return {prefix + key: value for key, value in sorted(pairs.items()) if _VARIABLE.match(prefix + key)}
    return {}


def _from_reference(
    source: Object,
    pod: Object,
    container: Object,
    config_map: Lookup,
    secret: Lookup,
    node: Mapping[str, str],
    allocatable: Mapping[str, int],
) -> str | None:
    space = namespace(pod)
    if ref := source.get("fieldRef"):
        return field(pod, ref["fieldPath"], node)
    if ref := source.get("resourceFieldRef"):
        return resources.resource_field(pod, container["name"], ref, allocatable)
    for kind, lookup, label in (("configMapKeyRef", config_map, "configmap"), ("secretKeyRef", secret, "secret")):
        if not (ref := source.get(kind)):
            continue
        found = lookup(space, ref["name"])
        if found is None:
            if ref.get("optional"):
                return None
            raise VariableError(f'{label} "{ref["name"]}" not found')
        value = (found.get("data") or {}).get(ref["key"])
        if value is None:
            if ref.get("optional"):
                return None
            where = f"{'ConfigMap' if kind == 'configMapKeyRef' else 'Secret'} {space}/{ref['name']}"
            raise VariableError(f"couldn't find key {ref['key']} in {where}")
        return str(value) if kind == "configMapKeyRef" else _plain(value)
    raise VariableError("valueFrom names no source")


def _plain(encoded: Any) -> str:
    return base64.b64decode(encoded).decode(errors="surrogateescape")


def references(pod: Object) -> set[tuple[str, str]]:
    """The ConfigMaps and Secrets that the pod's variables need, as (kind, name)."""
    found: set[tuple[str, str]] = set()
    everyone = [*resources.containers(pod), *(pod["spec"].get("ephemeralContainers") or ())]
    for container in everyone:
        for source in container.get("envFrom") or ():
            found |= _names(source, (("configMapRef", "ConfigMap"), ("secretRef", "Secret")))
        for variable in container.get("env") or ():
            source = variable.get("valueFrom") or {}
            found |= _names(source, (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")))
    return found


def _names(source: Object, fields: tuple[tuple[str, str], ...]) -> set[tuple[str, str]]:
    return {(kind, source[key]["name"]) for key, kind in fields if source.get(key)}


def _annotations(pod: Object) -> dict[str, str]:
    return pod["metadata"].get("annotations") or {}
