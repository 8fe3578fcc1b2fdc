"""Discovery and OpenAPI: the recorded answers, the facts about paths, and what clients look for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from k3s.api import schema
from k3s.api.errors import ApiError, NotAcceptable, NotFound
from k3s.api.kinds import REGISTRY, make
from k3s.apiserver.documents import documents

SHARED = Path(os.environ.get("K3S_SHARED", Path(__file__).parents[4] / "shared"))
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


def body(path: str, accept: str = "application/json", **query: str) -> Any:
    found = documents(REGISTRY).answer(path, accept, query)
    assert found is not None
    return json.loads(found.body)


def without(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: without(inner, keys) for key, inner in value.items() if key not in keys}
    return [without(inner, keys) for inner in value] if isinstance(value, list) else value


def recorded() -> list[Any]:
    path = SHARED / "transcripts" / "discovery.json"
    scenarios = json.loads(path.read_text()) if path.exists() else []
    return [step for scenario in scenarios for step in scenario["steps"] if "keep" not in step]


@pytest.mark.parametrize("step", recorded(), ids=lambda step: step["path"])
def test_recorded(step: dict[str, Any]) -> None:
    """Every recorded discovery answer comes out the same, errors included."""
    expect = step["expect"]
    accept = (step.get("headers") or {}).get("Accept", "application/json")
    path = step["path"].replace("${id}", "x").rstrip("/")
    try:
        found = documents(REGISTRY).answer(path, accept, {})
    except ApiError as error:
        assert (error.code, error.message) == (expect["status"], expect["body"]["message"])
        return
    assert found is not None
    assert found.status == expect["status"]
    if expect["status"] == 200:
        assert found.content_type == expect["headers"]["Content-Type"]
    ignored = {"storageVersionHash", "serverAddressByClientCIDRs"}
    whole = not step.get("ignore") or "resources.*.storageVersionHash" in step["ignore"]
    if whole and found.content_type.startswith("application/json"):
        assert without(json.loads(found.body), ignored) == without(expect["body"], ignored)


@pytest.mark.skipif(not (SHARED / "facts").exists(), reason="the facts about the API are not here")
def test_paths_are_those_of_upstream() -> None:
    """Every path, method, action, kind, operation id, parameter and response of every document is upstream's."""
    facts = json.loads((SHARED / "facts" / "openapi-v3-index.json").read_text())
    for name in facts["index"]:
        mine = body("/openapi/v3/" + name)["paths"]
        theirs = facts["documents"][name]
        assert list(mine) == sorted(theirs), name
        for path, item in theirs.items():
            for method, operation in item["methods"].items():
                ours = mine[path][method]
                gvk = ours.get("x-kubernetes-group-version-kind")
                assert ours["operationId"] == operation["operationId"]
                assert ours.get("x-kubernetes-action") == operation.get("action")
                assert (gvk and [gvk["group"], gvk["version"], gvk["kind"]]) == operation.get("gvk")
                query = sorted(parameter["name"] for parameter in ours.get("parameters", ()))
                assert query == facts["lists"][operation.get("query", 0)]


def test_index_and_hashes() -> None:
    """The index names a hash for each document: with it the document may be kept, an old one leads to it."""
    docs = documents(REGISTRY)
    index = docs.answer("/openapi/v3", "", {})
    assert index is not None
    url = json.loads(index.body)["paths"]["apis/apps/v1"]["serverRelativeURL"]
    path, _, tag = url.partition("?hash=")
    assert path == "/openapi/v3/apis/apps/v1"
    found = docs.answer(path, "", {"hash": tag})
    assert found is not None
    assert found.headers["Cache-Control"] == "public, immutable"
    assert found.etag == f'"{tag}"'
    moved = docs.answer(path, "", {"hash": "old"})
    assert moved is not None
    assert (moved.status, moved.headers["Location"]) == (301, url)


def test_references_resolve() -> None:
    """No document refers to a schema that it does not contain."""
    for name in ("api/v1", "apis/apps/v1", "apis/batch/v1", "apis"):
        document = body("/openapi/v3/" + name)
        text = json.dumps(document)
        wanted = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
        assert wanted <= set(document["components"]["schemas"]), name
    second = body("/openapi/v2")
    text = json.dumps(second)
    assert "#/components" not in text
    assert {part.split('"')[0] for part in text.split("#/definitions/")[1:]} <= set(second["definitions"])


def test_what_kubectl_looks_for() -> None:
    """The kind of a schema (explain) and fieldValidation and dryRun of a patch (apply, create)."""
    document = body("/openapi/v3/apis/apps/v1")
    pod = document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "apps", "kind": "Deployment", "version": "v1"}]
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {"fieldValidation", "dryRun"} <= {parameter["name"] for parameter in patch["parameters"]}
    second = body("/openapi/v2")
    old = second["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {"body", "dryRun"} <= {parameter["name"] for parameter in old["parameters"]}


def test_kinds_fields_and_operations_are_described() -> None:
    """What `kubectl explain` prints: texts of kinds, of fields (references too) and of operations, in both versions."""
    third = body("/openapi/v3/apis/apps/v1")
    schemas = third["components"]["schemas"]
    deployment = schemas["io.k8s.api.apps.v1.Deployment"]
    assert "Deployment" in deployment["description"]
    assert deployment["properties"]["spec"]["description"]
    assert deployment["properties"]["spec"]["allOf"][0]["$ref"].endswith("DeploymentSpec")
    silent = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        if name.startswith("io.k8s.api.apps.")
        for field, value in schema["properties"].items()
        if not value.get("description")
    ]
    assert not silent
    path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"
    assert third["paths"][path]["get"]["description"] == "read scale of the specified Deployment"
    second = body("/openapi/v2")
    field = second["definitions"]["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"]
    assert field["description"]
    assert field["$ref"] == "#/definitions/io.k8s.api.apps.v1.DeploymentSpec"


def test_built_in_documents_outlive_a_custom_kind() -> None:
    """A new kind changes the index by its own documents only, so clients keep what they have of the others."""
    registry = REGISTRY.copy()
    docs = documents(registry)

    def index() -> dict[str, Any]:
        found = docs.answer("/openapi/v3", "", {})
        assert found is not None
        paths: dict[str, Any] = json.loads(found.body)["paths"]
        return paths

    before = index()
    registry.add(make("example.com", "v1", "Widget", "widgets", namespaced=True, custom=True, schema=schema.custom({})))
    after = index()
    assert set(after) - set(before) == {"apis/example.com", "apis/example.com/v1"}
    assert {name: row for name, row in after.items() if name in before} == before
    fresh = documents(registry).answer("/openapi/v3", "", {})
    assert fresh is not None
    assert json.loads(fresh.body)["paths"] == after


def test_second_version_as_protobuf() -> None:
    """Old clients get the same document in gnostic's protobuf form, under a name that is a legal media type."""
    found = documents(REGISTRY).answer("/openapi/v2", V2_PROTOBUF, {})
    assert found is not None
    assert found.content_type == V2_PROTOBUF.replace("@", ".")
    assert found.body.startswith(b"\x0a\x032.0\x12")
    assert b"io.k8s.api.core.v1.PodSpec" in found.body


def test_custom_kinds_appear_and_go() -> None:
    """A kind that is added at run time is in every document, and gone when it is removed."""
    registry = REGISTRY.copy()
    docs = documents(registry)
    raw = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    widget = make("example.com", "v1", "Widget", "widgets", namespaced=True, custom=True, schema=schema.custom(raw))
    with pytest.raises(NotFound):
        docs.answer("/apis/apps/v9", "", {})
    assert docs.answer("/apis/example.com", "", {}).status == 404  # type: ignore[union-attr]
    registry.add(widget)
    listed = json.loads(docs.answer("/apis/example.com/v1", "", {}).body)  # type: ignore[union-attr]
    assert [resource["name"] for resource in listed["resources"]] == ["widgets"]
    document = json.loads(docs.answer("/openapi/v3/apis/example.com/v1", "", {}).body)  # type: ignore[union-attr]
    assert document["components"]["schemas"]["com.example.v1.Widget"]["properties"]["spec"]["properties"]["size"]
    assert "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}" in document["paths"]
    registry.remove(widget)
    assert docs.answer("/apis/example.com/v1", "", {}) is None


def test_forms() -> None:
    """Discovery comes as JSON, YAML or protobuf, aggregated for those who ask, and not at all for others."""
    docs = documents(REGISTRY)
    plain = docs.answer(
        "/apis", "application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io, */*;q=0.5", {}
    )
    assert plain is not None
    assert json.loads(plain.body)["kind"] == "APIGroupList"
    aggregated = docs.answer("/apis", AGGREGATED, {})
    assert aggregated is not None
    assert aggregated.headers["Vary"] == "Accept"
    assert len(aggregated.etag) == 130
    protobuf = docs.answer("/apis/apps/v1", "application/vnd.kubernetes.protobuf", {})
    assert protobuf is not None
    assert protobuf.body.startswith(b"k8s\0")
    assert documents(REGISTRY).answer("/apis", "application/yaml", {}) is not None
    with pytest.raises(NotAcceptable):
        docs.answer("/apis", "text/html", {})
    assert "/apis/apps/v1" in body("/")["paths"]
