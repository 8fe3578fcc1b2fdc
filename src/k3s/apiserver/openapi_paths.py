"""The paths of OpenAPI documents: one operation for each verb of each kind.

Tools look for `x-kubernetes-action` and `x-kubernetes-group-version-kind`, for the parameters of an operation (kubectl
asks whether a patch takes fieldValidation and dryRun) and, when they generate code, for the operation's id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from k3s.api.kinds import Kind, Registry, Subresource
from k3s.api.object import Object
from k3s.apiserver.openapi_schemas import Schemas

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_FORMS = ("application/json", "application/vnd.kubernetes.protobuf", "application/yaml")
_LIST_FORMS = (
    "application/json",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/yaml",
)
_CUSTOM_FORMS = ("application/json", "application/yaml")
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_LIST_QUERY = (
    "allowWatchBookmarks continue fieldSelector labelSelector limit pretty resourceVersion resourceVersionMatch "
    "sendInitialEvents shardSelector timeoutSeconds watch"
)
_DELETE_QUERY = (
    "dryRun gracePeriodSeconds ignoreStoreReadErrorWithClusterBreakingPotential "
    "orphanDependents pretty propagationPolicy"
)
_COLLECTION_QUERY = (
    "continue dryRun fieldSelector gracePeriodSeconds ignoreStoreReadErrorWithClusterBreakingPotential labelSelector "
    "limit orphanDependents pretty propagationPolicy resourceVersion resourceVersionMatch sendInitialEvents "
    "shardSelector timeoutSeconds"
)
_WRITE_QUERY = "dryRun fieldManager fieldValidation pretty"
_PATCH_QUERY = "dryRun fieldManager fieldValidation force pretty"
_BOOLEANS = (
    "allowWatchBookmarks follow force ignoreStoreReadErrorWithClusterBreakingPotential insecureSkipTLSVerifyBackend "
    "orphanDependents previous sendInitialEvents stderr stdin stdout timestamps tty watch"
)
_INTEGERS = "gracePeriodSeconds limit limitBytes ports sinceSeconds tailLines timeoutSeconds"
_TYPES = dict.fromkeys(_BOOLEANS.split(), "boolean") | dict.fromkeys(_INTEGERS.split(), "integer")
#: Queries of the subresources that are connections or streams.
_CONNECT_QUERY = {
    "attach": "container stderr stdin stdout tty",
    "exec": "command container stderr stdin stdout tty",
    "portforward": "ports",
    "proxy": "path",
    "log": (
        "container follow insecureSkipTLSVerifyBackend limitBytes pretty previous sinceSeconds stream tailLines "
        "timestamps"
    ),
}


_GVK = tuple[str, str, str]


class _Verb(NamedTuple):
    """How a verb appears: HTTP method, action, the word in the operation's id, its query, and what it does in words
    (of a kind, `a` with its article, and of a part of one)."""

    method: str
    action: str
    word: str
    query: str
    does: str
    does_to_part: str


_VERBS = {
    "list": _Verb("get", "list", "list", _LIST_QUERY, "list or watch objects of kind {kind}", ""),
    "create": _Verb("post", "post", "create", _WRITE_QUERY, "create {a_kind}", "create {part} of {a_kind}"),
    "deletecollection": _Verb(
        "delete", "deletecollection", "delete", _COLLECTION_QUERY, "delete collection of {kind}", ""
    ),
    "get": _Verb("get", "get", "read", "pretty", "read the specified {kind}", "read {part} of the specified {kind}"),
    "update": _Verb(
        "put", "put", "replace", _WRITE_QUERY, "replace the specified {kind}", "replace {part} of the specified {kind}"
    ),
    "patch": _Verb(
        *("patch", "patch", "patch", _PATCH_QUERY),
        *("partially update the specified {kind}", "partially update {part} of the specified {kind}"),
    ),
    "delete": _Verb("delete", "delete", "delete", _DELETE_QUERY, "delete {a_kind}", "delete {part} of {a_kind}"),
}
_DEPRECATED = "deprecated: use the 'watch' parameter with a list operation instead"
_WATCH = f"watch changes to an object of kind {{kind}}. {_DEPRECATED}, filtered to a single item with the 'fieldSelector' parameter."  # noqa: E501
_WATCHES = {"watch": _WATCH, "watchlist": f"watch individual changes to a list of {{kind}}. {_DEPRECATED}."}
_CODES = {"post": ("200", "201", "202", "401"), "put": ("200", "201", "401"), "patch": ("200", "201", "401")}


def _ref(name: str) -> Object:
    return {"$ref": f"#/components/schemas/{name}"}


def _query(names: str) -> list[Object]:
    return [
        {"name": name, "in": "query", "schema": {"type": _type(name), "uniqueItems": True}} for name in names.split()
    ]


def _type(name: str) -> str:
    return _TYPES.get(name, "string")


def _path_parameters(path: str, kind: str) -> list[Object]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    texts = {
        "name": f"name of the {kind}",
        "namespace": "object name and auth scope, such as for teams and projects",
        "path": "path to the resource",
    }
    schema = {"type": "string", "uniqueItems": True}
    return [
        {"name": name, "in": "path", "required": True, "description": texts[name], "schema": schema}
        for name in sorted(names)
    ]


def _words(template: str, kind: str, part: str = "") -> str:
    article = "an" if kind[:1] in "AEIOU" else "a"
    return template.format(kind=kind, a_kind=f"{article} {kind}", part=part)


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]


def _group_word(group: str) -> str:
    parts = group.removesuffix(".k8s.io").split(".") if group else ["core"]
    return "".join(_title(part) for part in parts)


def _answers(codes: tuple[str, ...], forms: tuple[str, ...], response: str) -> Object:
    content = {form: {"schema": _ref(response)} for form in forms} if response else {}
    good = {"description": "OK", "content": content} if response else {"description": "OK"}
    return {code: {"description": "Unauthorized"} if code == "401" else good for code in codes}


class _Builder:
    """Collects the paths of one group version."""

    def __init__(self, schemas: Schemas, group: str, version: str) -> None:
        self.schemas = schemas
        self.group = group
        self.version = version
        self.prefix = _group_word(group) + _title(version)
        self.tag = _tag_word(group, version)
        self.paths: Object = {}
        self.custom = False
        self.of = ""

    def put(self, path: str, method: str, operation: Object) -> None:
        """Adds one operation to a path."""
        item = self.paths.get(path)
        if item is None:
            item = self.paths[path] = {}
            parameters = _path_parameters(path, operation["x-kubernetes-group-version-kind"]["kind"])
            if parameters:
                item["parameters"] = parameters
        item[method] = operation

    def operation(self, word: str, name: str, action: str, gvk: _GVK) -> Object:
        """The fields that every operation has; the action `connect` is left to the connections."""
        group, version, kind = gvk
        return {
            "tags": [self.tag],
            "operationId": word + self.prefix + name,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": version},
        }

    def add(self, path: str, verb: _Verb, name: str, gvk: _GVK, body: str, response: str, part: str = "") -> None:
        """One verb of a kind or of a part of it."""
        operation = self.operation(verb.word, name, verb.action, gvk)
        operation["description"] = _words(verb.does_to_part if part else verb.does, self.of, part)
        operation["parameters"] = _query(verb.query)
        forms = _CUSTOM_FORMS if self.custom else _LIST_FORMS if verb.action == "list" else _FORMS
        codes: tuple[str, ...]
        if verb.action in ("delete", "deletecollection"):
            codes = ("200", "202", "401") if verb.action == "delete" else ("200", "401")
            operation["requestBody"] = {"content": {"*/*": {"schema": _ref(_META + "DeleteOptions")}}}
        else:
            codes = _CODES.get(verb.method, ("200", "401"))
        if verb.action == "patch":
            patches = _PATCHES[:3] if self.custom else _PATCHES
            content = {form: {"schema": _ref(_META + "Patch")} for form in patches}
            operation["requestBody"] = {"required": True, "content": content}
        elif verb.method in ("post", "put") and body:
            operation["requestBody"] = {"required": True, "content": {"*/*": {"schema": _ref(body)}}}
        operation["responses"] = _answers(codes, forms, response)
        self.put(path, verb.method, operation)

    def kind(self, kind: Kind) -> None:
        """Every path of a kind."""
        self.custom, self.of = kind.custom, kind.kind
        gvk: _GVK = (kind.group, kind.version, kind.kind)
        body = self.schemas.name_of(kind)
        scope = "Namespaced" if kind.namespaced else ""
        root = (
            f"{kind.base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{kind.base}/{kind.plural}"
        )
        for verb_name in kind.verbs:
            verb = _VERBS.get(verb_name)
            if verb is None:
                continue
            path = root if verb_name in ("list", "create", "deletecollection") else root + "/{name}"
            name = ("Collection" if verb_name == "deletecollection" else "") + scope + kind.kind
            response = body
            if verb_name == "list":
                response = body.removesuffix(kind.kind) + kind.list_kind
            elif verb.method == "delete" and not _returns_itself(kind, verb_name):
                response = _META + "Status"
            self.add(path, verb, name, gvk, body, response)
        if kind.namespaced and "list" in kind.verbs:
            listed = body.removesuffix(kind.kind) + kind.list_kind
            name = f"{kind.kind}ForAllNamespaces"
            self.add(f"{kind.base}/{kind.plural}", _VERBS["list"], name, gvk, "", listed)
        if "watch" in kind.verbs and not kind.custom:
            self.watches(kind, gvk, scope)
        for _, part in sorted(kind.subresources.items()):
            self.part(kind, part, root + "/{name}/" + part.name, scope)

    def watches(self, kind: Kind, gvk: _GVK, scope: str) -> None:
        """The old paths that watch without a parameter."""
        space = "namespaces/{namespace}/" if kind.namespaced else ""
        base = f"{kind.base}/watch"
        rows = [(f"{base}/{space}{kind.plural}", "watchlist", f"{scope}{kind.kind}List")]
        if "get" in kind.verbs:
            rows.append((f"{base}/{space}{kind.plural}/{{name}}", "watch", scope + kind.kind))
        if kind.namespaced:
            rows.append((f"{base}/{kind.plural}", "watchlist", f"{kind.kind}ListForAllNamespaces"))
        for path, action, name in rows:
            operation = self.operation("watch", name, action, gvk)
            operation["description"] = _words(_WATCHES[action], kind.kind)
            operation["parameters"] = _query(_LIST_QUERY)
            operation["responses"] = _answers(("200", "401"), _LIST_FORMS, _META + "WatchEvent")
            self.put(path, "get", operation)

    def part(self, kind: Kind, part: Subresource, path: str, scope: str) -> None:
        """The paths of a subresource."""
        group, version = (part.group, part.version) if part.version else (kind.group, kind.version)
        gvk: _GVK = (group, version, part.kind)
        name = scope + kind.kind + _title(part.name)
        if part.kind.endswith("Options"):
            self.connection(kind, part, path, name, gvk)
            return
        body = self.schemas.name_of(kind) if part.kind == kind.kind else self.schemas.name_of_body(*gvk)
        for verb_name in part.verbs:
            verb = _VERBS.get(verb_name)
            if verb is None:
                continue
            response = body
            if part.name == "log":
                verb, response = verb._replace(query=_CONNECT_QUERY["log"]), ""
            self.add(path, verb, name, gvk, body, response, part.name)

    def connection(self, kind: Kind, part: Subresource, path: str, name: str, gvk: _GVK) -> None:
        """exec, attach, port forwarding and proxying: every method that the verbs allow, answered with text."""
        methods: dict[str, tuple[str, ...]] = {
            "get": ("get", "head", "options"),
            "create": ("post",),
            "update": ("put",),
        }
        for verb_name in part.verbs:
            allowed = methods.get(verb_name, (verb_name,))
            for method in allowed if part.name == "proxy" else allowed[:1]:
                for suffix in ("", "/{path}") if part.name == "proxy" else ("",):
                    full = name + ("WithPath" if suffix else "")
                    operation = self.operation(f"connect{_title(method)}", full, "connect", gvk)
                    operation["operationId"] = f"connect{self.prefix}{_title(method)}{full}"
                    operation["description"] = f"connect {method.upper()} requests to {part.name} of {kind.kind}"
                    operation["parameters"] = _query(_CONNECT_QUERY.get(part.name, ""))
                    answer = {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}}
                    operation["responses"] = {"200": answer, "401": {"description": "Unauthorized"}}
                    self.put(path + suffix, method, operation)


def _tag_word(group: str, version: str) -> str:
    word = _group_word(group)
    return f"{word[0].lower()}{word[1:]}_{version}"


_DELETED_GROUPS = ("resource.k8s.io", "storage.k8s.io")


def _returns_itself(kind: Kind, verb: str) -> bool:
    """Kinds whose deletion answers with the object: those that wait for a grace period, and a few by tradition."""
    graceful = ("Pod", "PodTemplate", "PersistentVolume", "PersistentVolumeClaim", "ResourceQuota", "Service")
    own = kind.kind in (*graceful, "ServiceAccount") if kind.group == "" else kind.group in _DELETED_GROUPS
    own = own and kind.kind != "CSIStorageCapacity"
    return verb == "delete" and own


def version_paths(registry: Registry, schemas: Schemas, group: str, version: str) -> Object:
    """The paths of one group version, sorted."""
    builder = _Builder(schemas, group, version)
    base = f"/apis/{group}/{version}/" if group else f"/api/{version}/"
    operation: Object = {
        "tags": [builder.tag],
        "operationId": f"get{builder.prefix}APIResources",
        "description": "get available resources",
        "responses": _answers(("200", "401"), _FORMS, _META + "APIResourceList"),
    }
    builder.paths[base] = {"get": operation}
    for kind in registry.of_version(group, version):
        builder.kind(kind)
    return dict(sorted(builder.paths.items()))


def _small(name: str) -> Iterator[tuple[str, str, str]]:
    """Path, operation id and response of the documents that belong to no group version."""
    if name == "api":
        yield "/api/", "getCoreAPIVersions", _META + "APIVersions"
    elif name == "apis":
        yield "/apis/", "getAPIVersions", _META + "APIGroupList"
    elif name == "version":
        yield "/version/", "getCodeVersion", "io.k8s.apimachinery.pkg.version.Info"
    elif name == "openid/v1/jwks":
        yield "/openid/v1/jwks/", "getServiceAccountIssuerOpenIDKeyset", ""
    elif name == ".well-known/openid-configuration":
        yield "/.well-known/openid-configuration/", "getServiceAccountIssuerOpenIDConfiguration", ""
    else:
        group = name.removeprefix("apis/")
        yield f"/{name}/", f"get{_group_word(group)}APIGroup", _META + "APIGroup"


def paths_of(name: str) -> Object:
    """The paths of a document that belongs to no group version: `version`, `apis`, `apis/<group>`, …"""
    paths: dict[str, Any] = {}
    for path, operation_id, response in _small(name):
        answers = _answers(("200", "401"), _FORMS, response)
        paths[path] = {"get": {"operationId": operation_id, "responses": answers}}
    return paths
