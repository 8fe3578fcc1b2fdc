"""The OpenAPI documents: what kubectl explain, client-side validation and code generators read.

    /openapi/v3                     the list of documents, each with the hash of its contents
    /openapi/v3/<group version>     one document: paths and the schemas they need
    /openapi/v2                     everything in one document, as JSON or as gnostic protobuf

Made of the table of kinds and the schemas, each document when it is first asked for. Source of names and shapes: the
kube-openapi builder and `x-kubernetes-*` extensions of the API reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from k3s.api.kinds import Registry
from k3s.api.object import Object, encode
from k3s.apiserver.discovery import JSON, Found, Nobody, Others, clauses
from k3s.apiserver.openapi_paths import paths_of, version_paths
from k3s.apiserver.openapi_schemas import Schemas

_TEXT = "text/plain; charset=utf-8"
_V3_PROTOBUF = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
# Clients ask for it with an `@`, which no media type may hold: the answer has a dot, or they could not read its name.
_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_V2_PROTOBUF_NAMES = ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", _V2_PROTOBUF)
_V2_JSON_NAMES = ("application/com.github.proto-openapi.spec.v2.v1.0+json", JSON)
_SECURITY = {"BearerToken": {"in": "header", "name": "authorization", "type": "apiKey"}}
#: Documents that have a path and no schemas worth reading.
_SMALL = (".well-known/openid-configuration", "api", "apis", "openid/v1/jwks", "version")

#: How many documents are kept after they were asked for.
_KEPT = 6


class OpenAPI:
    """The documents of one registry; `version` is the git version that they name.

    A document of built-in kinds never changes, so its hash is computed once; those of custom kinds and the second
    version are made anew when the table of kinds changes. Only the last few documents are kept: together they are
    larger than the rest of an idle server's caches, and most are asked for once.
    """

    def __init__(self, registry: Registry, version: str = "v1.36.2+k3s1", others: Others | None = None) -> None:
        self._registry = registry
        self._others: Others = others or Nobody(registry)
        self._others_generation = -1
        self._version = version
        self._schemas = Schemas(registry)
        self._generation = -1
        self._tags: dict[str, str] = {}
        self._memo: dict[str, Found] = {}

    def answer(self, path: str, accept: str, query: Mapping[str, str] | None = None) -> Found | None:
        """The answer of an OpenAPI path; None when there is no such document."""
        if self._generation != self._registry.generation:
            self._renew()
        if self._others_generation != self._others.generation:
            self._others_generation = self._others.generation
            self._memo = {key: found for key, found in self._memo.items() if key.startswith("v3/")}
        if path == "/openapi/v2":
            return self._kept("v2 " + _v2_form(accept), lambda: self._second(_v2_form(accept)))
        if path == "/openapi/v3":
            return self._kept("v3", self._index)
        name = path.removeprefix("/openapi/v3/")
        if name == path:
            return None
        if name not in self._names():
            return Found(404, "", b"", {})
        return self._third(name, (query or {}).get("hash", ""))

    def _renew(self) -> None:
        self._generation = self._registry.generation
        self._memo.clear()
        self._schemas = Schemas(self._registry)
        built_in = self._registry.builtin_groups
        self._tags = {
            name: tag
            for name, tag in self._tags.items()
            if (version := self._names().get(name)) is not None and (not version[0] or version[0] in built_in)
        }

    def _kept(self, key: str, make: Callable[[], Found]) -> Found:
        found = self._memo.pop(key, None) or make()
        self._memo[key] = found
        while len(self._memo) > _KEPT:
            del self._memo[next(iter(self._memo))]
        return found

    def _names(self) -> dict[str, tuple[str, str] | None]:
        """Every document, with its group and version when it is one of a group version."""
        names: dict[str, tuple[str, str] | None] = dict.fromkeys(_SMALL)
        for group, versions in self._registry.groups():
            if group:
                names[f"apis/{group}"] = None
            for version in versions:
                names[f"apis/{group}/{version}" if group else f"api/{version}"] = (group, version)
        return names

    def _index(self) -> Found:
        paths = {}
        for name in sorted(self._names()):
            tag = self._tags.get(name) or self._made(name).etag.strip('"')
            paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={tag}"}
        for (group, version), remote in self._others.remotes.items():
            if remote.available and remote.third:
                name = f"apis/{group}/{version}"
                paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={remote.third}"}
        body = encode({"paths": dict(sorted(paths.items()))})
        return Found(200, _TEXT, body, {"ETag": _tag(body)})

    def _third(self, name: str, wanted: str) -> Found:
        found = self._kept("v3/" + name, lambda: self._made(name))
        if not wanted:
            return found
        if wanted != found.etag.strip('"'):
            url = f"/openapi/v3/{name}?hash=" + found.etag.strip('"')
            return Found(301, _TEXT, b"", {"Location": url})
        # A document under its hash never changes, so clients may keep it.
        headers = {**found.headers, "Cache-Control": "public, immutable", "Expires": "Thu, 31 Dec 2099 23:59:59 GMT"}
        return Found(200, found.content_type, found.body, headers)

    def _made(self, name: str) -> Found:
        version = self._names()[name]
        document: Object = {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": self._version}}
        if version is None:
            paths = paths_of(name)
            schemas: Object = self._schemas.needed(paths)
        else:
            paths = version_paths(self._registry, self._schemas, *version)
            schemas = self._schemas.needed(paths, *version)
        components = {"schemas": schemas, "securitySchemes": _SECURITY}
        body = encode({**document, "paths": paths, "components": components})
        found = Found(200, JSON, body, {"ETag": _tag(body), "Vary": "Accept"})
        self._tags[name] = found.etag.strip('"')
        return found

    def _second(self, form: str) -> Found:
        from k3s.apiserver import openapi_second

        everything: Object = {}
        for name, version in self._names().items():
            paths = version_paths(self._registry, self._schemas, *version) if version else paths_of(name)
            everything |= paths
        definitions = self._schemas.everything()
        document = openapi_second.document(everything, definitions, self._version)
        for remote in self._others.remotes.values():
            if remote.available and remote.second is not None:
                openapi_second.join(document, remote.second, remote.path)
        if form == "protobuf":
            body = openapi_second.protobuf(document)
            return Found(200, _V2_PROTOBUF, body, {"ETag": _tag(body), "Vary": "Accept"})
        body = encode(document)
        return Found(200, JSON, body, {"ETag": _tag(body), "Vary": "Accept"})


def _tag(body: bytes) -> str:
    return f'"{hashlib.sha512(body).hexdigest().upper()}"'


def _v2_form(accept: str) -> str:
    for media, _ in clauses(accept):
        if media in _V2_PROTOBUF_NAMES:
            return "protobuf"
        if media in _V2_JSON_NAMES or media in ("*/*", "application/*"):
            return "json"
    return "json"
