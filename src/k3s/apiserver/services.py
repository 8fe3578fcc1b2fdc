"""Where a Service is reached by whoever is not in the pod network's rules: at one of its pods, else at its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3s.api import object as objects
from k3s.api.kinds import builtin
from k3s.api.object import Object

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

SERVICE = builtin("v1", "Service")
SLICE = builtin("discovery.k8s.io/v1", "EndpointSlice")
_SERVICE_NAME = "kubernetes.io/service-name"


class NoAddress(Exception):
    """A Service leads nowhere; the text is upstream's."""


def pieces(reader: Reader, namespace: str, name: str) -> list[Object]:
    """The EndpointSlices of a Service."""
    return [piece for piece in reader.list(SLICE, namespace) if service_of(piece) == name]


def service_of(piece: Object) -> str:
    """The name of the Service that an EndpointSlice belongs to, empty for none."""
    return objects.labels(piece).get(_SERVICE_NAME, "")


def address(reader: Reader, service: Object) -> tuple[str, int]:
    """Where a pod behind a Service listens, else the Service's own address; `service` is a reference with namespace,
    name and port. Raises NoAddress."""
    namespace, name, port = service.get("namespace", ""), service.get("name", ""), service.get("port") or 443
    found = reader.get(SERVICE, namespace, name)
    if found is None:
        raise NoAddress(f'service "{name}" not found')
    spec = found["spec"]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", "")), int(port)
    wanted = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
    if wanted is None:
        raise NoAddress(f'no service port {port} found for service "{name}"')
    for piece in pieces(reader, namespace, name):
        ports = [p["port"] for p in piece.get("ports") or () if (p.get("name") or "") == (wanted.get("name") or "")]
        for endpoint in piece.get("endpoints") or ():
            if ports and (endpoint.get("conditions") or {}).get("ready") is not False:
                return str(endpoint["addresses"][0]), int(ports[0])
    if not spec.get("selector") and spec.get("clusterIP") not in (None, "", "None"):
        return str(spec["clusterIP"]), int(port)
    raise NoAddress(f'no endpoints available for service "{name}"')
