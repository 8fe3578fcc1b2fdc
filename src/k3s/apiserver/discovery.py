"""What the server serves, for clients to find: `/api`, `/apis`, one group, one version, all of it at once, and `/`.

Bodies are made when they are first asked for and kept until the table of kinds changes. Source: API concepts page
("API Discovery") and KEP-3352 for the aggregated form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from k3s.api import wire
from k3s.api.errors import NotAcceptable, NotFound
from k3s.api.kinds import Kind, Registry, Subresource
from k3s.api.object import Object, encode

if TYPE_CHECKING:
    from k3s.apiserver.aggregation.remote import Remote
    from k3s.apiserver.aggregation.services import Groups

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
_AGGREGATED = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_TEXT = "text/plain; charset=utf-8"

#: What the server serves beside the API groups.
_OTHER_PATHS = (
    "/.well-known/openid-configuration",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
)


class Found(NamedTuple):
    """An answer: status, content type, body and further headers."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str]

    @property
    def etag(self) -> str:
        """The entity tag with its quotes, empty when there is none."""
        return self.headers.get("ETag", "")


def not_acceptable() -> NotAcceptable:
    """The answer to an Accept header that names nothing we have."""
    listed = ", ".join((JSON, YAML, PROTOBUF))
    return NotAcceptable(f"only the following media types are accepted: {listed}")


def clauses(accept: str) -> list[tuple[str, dict[str, str]]]:
    """The media types of an Accept header with their parameters, best first."""
    found: list[tuple[float, str, dict[str, str]]] = []
    for clause in accept.split(","):
        media, *parameters = (part.strip() for part in clause.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            quality = float(values.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if media and quality > 0:
            found.append((-quality, media, values))
    found.sort(key=lambda clause: clause[0])
    return [(media, values) for _, media, values in found]


def _choose(accept: str, *, aggregated: bool) -> tuple[str, bool]:
    """The media type, and whether the aggregated form is wanted; raises NotAcceptable."""
    for media, values in clauses(accept) or [("*/*", {})]:
        plain = JSON if media in ("*/*", "application/*") else media
        if plain not in (JSON, YAML, PROTOBUF):
            continue
        if "as" not in values and "g" not in values:
            return plain, False
        wanted = (values.get("g"), values.get("v"), values.get("as"))
        if aggregated and wanted == ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList"):
            return plain, True
    raise not_acceptable()


class Others(Protocol):
    """What other servers serve beside this one (see `aggregation`)."""

    @property
    def generation(self) -> int:
        """Changes whenever what they serve does."""

    @property
    def remotes(self) -> Mapping[tuple[str, str], Remote]:
        """Them by the group and version that they serve."""

    def groups(self) -> Groups:
        """Each group of this and the other servers with its versions."""


class Nobody:
    """No other servers."""

    generation = 0
    remotes: ClassVar[Mapping[tuple[str, str], Remote]] = {}

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def groups(self) -> Groups:
        return self._registry.groups()


class Discovery:
    """Discovery bodies of one registry and of other servers; `address` is what `/api` gives as the server's address."""

    def __init__(self, registry: Registry, address: str = "", others: Others | None = None) -> None:
        self._registry = registry
        self._address = address
        self._others: Others = others or Nobody(registry)
        self._generation = (-1, -1)
        self._memo: dict[tuple[str, str, bool], Found] = {}

    def answer(self, path: str, accept: str, query: Mapping[str, str] | None = None) -> Found | None:
        """The answer of a discovery path; None when the path is none. Raises NotAcceptable and NotFound."""
        generation = (self._registry.generation, self._others.generation)
        if self._generation != generation:
            self._generation = generation
            self._memo.clear()
        if path.startswith("/apis//"):  # upstream knows /apis by exact paths, the others with any slashes at their end
            return None
        path = path.rstrip("/")
        make = self._maker(path)
        if make is None:
            return None
        media, aggregated = _choose(accept, aggregated=path in ("/api", "/apis"))
        key = (path, media, aggregated)
        found = self._memo.get(key)
        if found is None:
            body = self._aggregated(path) if aggregated else make()
            found = self._memo[key] = _rendered(body, media, aggregated)
        return found

    def _maker(self, path: str) -> Callable[[], Object] | None:
        parts = path.split("/")[1:]
        if path in ("", "/index.html"):
            return self._root
        if parts[0] == "api":
            if len(parts) == 1:
                return self._api_versions
            if parts[1] != "v1":
                raise NotFound("the server could not find the requested resource", {})
            return (lambda: self._resources("", "v1")) if len(parts) == 2 else None
        if parts[0] != "apis" or len(parts) > 3:
            return None
        if len(parts) == 1:
            return self._groups
        versions = dict(self._others.groups()).get(parts[1])
        if not parts[1] or versions is None:
            return None
        if len(parts) == 2:
            return lambda: {"kind": "APIGroup", "apiVersion": "v1", **_group(parts[1], versions)}
        if parts[2] not in versions:
            if parts[1] not in self._registry.builtin_groups:
                return None
            raise NotFound("the server could not find the requested resource", {})
        return lambda: self._resources(parts[1], parts[2])

    def _root(self) -> Object:
        paths = ["/api", "/api/v1", "/apis", "/apis/", *_OTHER_PATHS]
        for group, versions in self._others.groups():
            if group:
                paths.append(f"/apis/{group}")
                paths += [f"/apis/{group}/{version}" for version in versions]
        return {"paths": sorted(paths)}

    def _api_versions(self) -> Object:
        address = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address}]
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": address}

    def _groups(self) -> Object:
        groups = [_group(group, versions) for group, versions in self._others.groups() if group]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _resources(self, group: str, version: str) -> Object:
        resources: list[Object] = []
        for kind in self._registry.of_version(group, version):
            resources.append(_resource(kind))
            resources += [_part(kind, part) for _, part in sorted(kind.subresources.items())]
        # The core group's list has never carried an apiVersion.
        head = {"kind": "APIResourceList"} if not group else {"kind": "APIResourceList", "apiVersion": "v1"}
        api_version = f"{group}/{version}" if group else version
        return {**head, "groupVersion": api_version, "resources": resources}

    def _aggregated(self, path: str) -> Object:
        items = []
        for group, versions in self._others.groups():
            if bool(group) != (path == "/apis"):
                continue
            listed = [self._aggregated_version(group, version) for version in versions]
            items.append({"metadata": {"name": group} if group else {}, "versions": listed})
        return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}

    def _aggregated_version(self, group: str, version: str) -> Object:
        remote = self._others.remotes.get((group, version))
        fresh = remote is None or (remote.available and remote.resources is not None)
        if remote is None:
            rows = [_aggregated_resource(kind) for kind in self._registry.of_version(group, version)]
        else:
            rows = _aggregated_rows(remote.resources or ()) if fresh else []
        found: Object = {"version": version, "resources": rows} if rows else {"version": version}
        return {**found, "freshness": "Current" if fresh else "Stale"}


def _rendered(body: Object, media: str, aggregated: bool) -> Found:
    if media == PROTOBUF:
        data = wire.encode({"apiVersion": "v1", **body}) if wire.supports("v1", body.get("kind", "")) else b""
        if aggregated:
            data = wire.encode(body)
        if not data:
            media, data = JSON, encode(body)
    elif media == YAML:
        import yaml

        data = yaml.safe_dump(body, sort_keys=False).encode()
    else:
        data = encode(body) + (b"" if aggregated else b"\n")
    if not aggregated:
        return Found(200, media, data, {})
    tag = hashlib.sha512(data).hexdigest().upper()
    return Found(200, f"{media};{_AGGREGATED}", data, {"ETag": f'"{tag}"', "Vary": "Accept"})


def _group(group: str, versions: tuple[str, ...]) -> Object:
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def _resource(kind: Kind) -> Object:
    resource: Object = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    _add_names(resource, kind)
    if kind.stored:
        text = f"{kind.storage_version}/{kind.kind}"
        resource["storageVersionHash"] = _storage_hash(text)
    return resource


def _storage_hash(text: str) -> str:
    """Eight bytes in base64 that change when the version does in which objects are stored."""
    import base64

    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def _add_names(resource: Object, kind: Kind) -> None:
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)


def _part(kind: Kind, part: Subresource) -> Object:
    resource: Object = {"name": f"{kind.plural}/{part.name}", "singularName": "", "namespaced": kind.namespaced}
    if part.version:
        resource |= {"group": part.group, "version": part.version}
    return {**resource, "kind": part.kind, "verbs": list(part.verbs)}


def _response_kind(group: str, version: str, kind: str) -> Object:
    return {"group": group, "version": version, "kind": kind}


def _aggregated_resource(kind: Kind) -> Object:
    # Kinds of the list's own group version leave group and version empty, custom ones name them.
    own = (kind.group, kind.version) if kind.custom else ("", "")
    resource: Object = {
        "resource": kind.plural,
        "responseKind": _response_kind(*own, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    _add_names(resource, kind)
    parts: list[dict[str, Any]] = []
    for _, part in sorted(kind.subresources.items()):
        response = _response_kind(*((part.group, part.version) if part.version else own), part.kind)
        parts.append({"subresource": part.name, "responseKind": response, "verbs": list(part.verbs)})
    if parts:
        resource["subresources"] = parts
    return resource


def _aggregated_rows(listed: Iterable[Object]) -> list[Object]:
    """The rows of another server's APIResourceList as the aggregated form has them."""
    rows: dict[str, Object] = {}
    for row in listed:
        name, _, part = row["name"].partition("/")
        response = _response_kind(row.get("group", ""), row.get("version", ""), row.get("kind", ""))
        verbs = row.get("verbs") or []
        if part:
            owner = rows.get(name)
            if owner is not None:
                piece = {"subresource": part, "responseKind": response, "verbs": verbs}
                owner.setdefault("subresources", []).append(piece)
            continue
        resource = rows[name] = {
            "resource": name,
            "responseKind": response,
            "scope": "Namespaced" if row.get("namespaced") else "Cluster",
            "singularResource": row.get("singularName", ""),
            "verbs": verbs,
        }
        resource |= {key: row[key] for key in ("shortNames", "categories") if row.get(key)}
    return list(rows.values())
