"""Rules of the API over HTTP that clients notice only when something is unusual: each with the words of upstream."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from tests.fakes.server import Caller, serving

from k3s.api.object import Object
from k3s.cluster import pki

MAPS = "/api/v1/namespaces/default/configmaps"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PODS = "/api/v1/namespaces/default/pods"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def answers(run: Any, *steps: Any) -> list[tuple[int, Object]]:
    """The answers to (method, path, body, headers), one after the other."""
    found: list[tuple[int, Object]] = []

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            for method, path, sent, *headers in steps:
                found.append(await caller.call(method, path, sent, **(headers[0] if headers else {})))

    run(body())
    return found


def config(name: str = "a", **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


def definition(plural: str = "widgets", schema: Any = None, **version: Any) -> Object:
    structure = {"type": "object", "properties": schema} if schema else {"type": "object"}
    one = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": structure}, **version}
    names = {"plural": plural, "kind": "Widget", "singular": plural}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [one]},
    }


def widget(name: str = "w", **more: Any) -> Object:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, **more}


WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
COLOUR = {"spec": {"type": "object", "properties": {"color": {"type": "string"}}}}


def test_keys_that_come_twice(run: Any) -> None:
    """Strict refuses them by path, in a create and in a patch; the last one wins otherwise."""
    twice = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1","x":"2"}}'
    patch = b'{"data":{"y":"1", "y" : "2"}}'
    refused, made, patched = answers(
        run,
        ("POST", f"{MAPS}?fieldValidation=Strict", twice),
        ("POST", MAPS, twice),
        ("PATCH", f"{MAPS}/a?fieldValidation=Strict", patch, {"Content_Type": MERGE}),
    )
    assert refused[0] == 400 and refused[1]["message"].endswith('strict decoding error: duplicate field "data.x"')
    assert made[0] == 201 and made[1]["data"] == {"x": "2"}
    assert patched[0] == 422
    assert patched[1]["details"]["causes"][0]["message"].endswith('strict decoding error: duplicate field "data.y"')


@pytest.mark.parametrize(
    ("media", "body", "said"),
    [
        (
            "application/json",
            b'{"z":1,"data":{"x":"1","x":"2"},"metadata":{"b":1,"name":"a","name":"a","a":1},"c":{},"c":{}}',
            'unknown field "z", duplicate field "data.x", unknown field "metadata.b", duplicate field "metadata.name", '
            'unknown field "metadata.a", unknown field "c"',
        ),
        (
            "application/yaml",
            b"z: 1\nmetadata:\n  name: a\n  b: 1\n  a: 1\ndata:\n  x: '1'\n  x: '2'\nc: 1\n",
            'yaml: unmarshal errors:\n  line 8: key "x" already set in map, unknown field "c", '
            'unknown field "metadata.a", unknown field "metadata.b", unknown field "z"',
        ),
    ],
)
def test_several_mistakes_of_a_body(run: Any, media: str, body: bytes, said: str) -> None:
    """They are told in the order of the text; YAML becomes JSON first, whose keys are in their own order."""
    ((status, answer),) = answers(run, ("POST", f"{MAPS}?fieldValidation=Strict", body, {"Content_Type": media}))
    assert status == 400
    assert answer["message"].partition("strict decoding error: ")[2] == said


def test_patches_whose_result_cannot_be_read(run: Any) -> None:
    """The patch is what is invalid, in the words of the decoder that its type goes through."""
    _, merged, restored, named = answers(
        run,
        ("POST", MAPS, config()),
        ("PATCH", f"{MAPS}/a", {"data": {"x": 1}}, {"Content_Type": MERGE}),
        ("PATCH", f"{MAPS}/a", {"data": "x"}, {"Content_Type": STRATEGIC}),
        ("PATCH", f"{MAPS}/a", {"$patch": "delete"}, {"Content_Type": STRATEGIC}),
    )
    words = [answer[1]["details"]["causes"][0]["message"] for answer in (merged, restored)]
    assert words[0].endswith("json: cannot unmarshal number into Go struct field ConfigMap.data of type string")
    assert words[1].endswith("cannot restore map from string")
    assert named[0] == 400 and "undeterminable" in named[1]["message"]


def test_options_of_a_patch(run: Any) -> None:
    """Force belongs to an apply; the name of a manager can be printed."""
    _, forced, unprinted = answers(
        run,
        ("POST", MAPS, config()),
        ("PATCH", f"{MAPS}/a?force=true", {}, {"Content_Type": MERGE}),
        ("PATCH", f"{MAPS}/a?fieldManager=a%0Ab", {}, {"Content_Type": MERGE}),
    )
    assert forced[0] == 422 and forced[1]["details"]["causes"][0]["field"] == "force"
    assert "invalid character U+000A (at position 1)" in unprinted[1]["message"]


def test_put_without_a_name(run: Any) -> None:
    """The object that a PUT is about has to say its name, whether it is there or not."""
    ((status, answer),) = answers(run, ("PUT", f"{MAPS}/none", {}))
    assert status == 400 and "undeterminable: name must be provided" in answer["message"]


def test_a_full_page_goes_on(run: Any) -> None:
    """A page that is full has a token while there are more objects, selected or not; without a count."""
    labelled = {"metadata": {"name": "a", "labels": {"l": "1"}}}
    *_, page = answers(
        run,
        ("POST", MAPS, {**config(), **labelled}),
        ("POST", MAPS, config("z")),
        ("GET", f"{MAPS}?limit=1&labelSelector=l", b""),
    )
    assert page[1]["metadata"]["continue"] and "remainingItemCount" not in page[1]["metadata"]


def test_yaml_is_written_as_the_library_does(run: Any) -> None:
    """Double quotes where a word would be read as something else, blocks for lines, lists not indented."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            await caller.call("POST", MAPS, config(data={"t": "yes", "m": "one\ntwo\n"}))
            await caller.send("GET", f"{MAPS}/a", Accept="application/yaml")
            _, headers, data = await caller.answer()
            assert headers["content-type"] == "application/yaml"
            assert b'data:\n  m: |\n    one\n    two\n  t: "yes"\n' in data

    run(body())


def test_names_of_definitions_are_taken_once(run: Any) -> None:
    """The first definition has the names; the second is not served until they are free."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            await caller.call("POST", DEFINITIONS, definition("widgets"))
            await caller.call("POST", DEFINITIONS, definition("gadgets"))
            second = f"{DEFINITIONS}/gadgets.example.com"
            await _until(server, lambda: _conditions(server, "gadgets").get("NamesAccepted") == "False")
            status = (await caller.call("GET", second))[1]["status"]
            assert status["conditions"][0]["reason"] == "ListKindConflict"
            assert status["acceptedNames"] == {"plural": "gadgets", "singular": "gadgets", "kind": ""}
            assert (await caller.call("GET", WIDGETS))[0] == 200
            assert server.registry.by_resource("example.com", "v1", "gadgets") is None
            await caller.call("DELETE", f"{DEFINITIONS}/widgets.example.com")
            await _until(server, lambda: _conditions(server, "gadgets").get("Established") == "True")
            assert server.registry.by_resource("example.com", "v1", "gadgets") is not None

    run(body())


def _conditions(server: Any, plural: str) -> dict[str, str]:
    kind = server.registry.by_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    found = server.cache.get(kind, "", f"{plural}.example.com") or {}
    return {c["type"]: c["status"] for c in (found.get("status") or {}).get("conditions") or ()}


async def _until(server: Any, holds: Any) -> None:
    while not holds():
        await server.cache.reached(server.cache.revision + 1)


def test_selectable_fields(run: Any) -> None:
    """Custom objects are selected by the fields that the definition names, and by no others."""
    _, _, _, found, refused = answers(
        run,
        ("POST", DEFINITIONS, definition(schema=COLOUR, selectableFields=[{"jsonPath": ".spec.color"}])),
        ("POST", WIDGETS, widget("r", spec={"color": "red"})),
        ("POST", WIDGETS, widget("b", spec={"color": "blue"})),
        ("GET", f"{WIDGETS}?fieldSelector=spec.color%3Dred", b""),
        ("GET", f"{WIDGETS}?fieldSelector=spec.size%3D1", b""),
    )
    assert [item["metadata"]["name"] for item in found[1]["items"]] == ["r"]
    assert refused[0] == 400 and refused[1]["message"] == "field label not supported: spec.size"


def test_selectable_fields_are_checked(run: Any) -> None:
    """A path has to lead to one plain value."""
    paths = {".spec.none": "valid field", "spec.color": "expected [ or .", ".spec": "must point", "": "Required value"}
    bodies = [definition(schema=COLOUR, selectableFields=[{"jsonPath": path}]) for path in paths]
    for (status, answer), words in zip(
        answers(run, *(("POST", DEFINITIONS, body) for body in bodies)), paths.values(), strict=True
    ):
        assert status == 422 and words in answer["message"]


def test_what_a_custom_object_says_of_itself(run: Any) -> None:
    """Kind and apiVersion have to be there and right; a status is judged by itself; a missing part is the object's."""
    status = {"status": {"type": "object", "properties": {"s": {"type": "string"}}}}
    unkind = {"apiVersion": "example.com/v1", "metadata": {"name": "w"}}
    _, _, no_kind, other_kind, other_version, typed, part = answers(
        run,
        ("POST", DEFINITIONS, definition(schema=status, subresources={"status": {}})),
        ("POST", WIDGETS, widget()),
        ("POST", WIDGETS, unkind),
        ("POST", WIDGETS, {**widget(), "kind": "Gadget"}),
        ("POST", WIDGETS, {**widget(), "apiVersion": "other/v1"}),
        ("PATCH", f"{WIDGETS}/w/status", {"status": {"s": 5}}, {"Content_Type": MERGE}),
        ("GET", f"{WIDGETS}/w/scale", b""),
    )
    assert no_kind[0] == 400 and "Object 'Kind' is missing in" in no_kind[1]["message"]
    assert other_kind[0] == 422 and other_kind[1]["details"]["causes"][0]["field"] == "kind"
    assert "does not match the expected API version (example.com/v1)" in other_version[1]["message"]
    assert typed[1]["details"]["causes"][0] == {
        "reason": "FieldValueTypeInvalid",
        "field": "status.s",
        "message": 'Invalid value: "integer": s in body must be of type string: "integer"',
    }
    assert part[0] == 404 and part[1]["details"] == {"name": "w", "group": "example.com", "kind": "widgets"}


def test_resize(run: Any) -> None:
    """Only cpu and memory change, none is taken away, requests stay below limits, and the class stays."""
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    spec = {"automountServiceAccountToken": False, "containers": [{"name": "c", "image": "i", "resources": resources}]}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    asked = [
        ({"requests": {"cpu": "3"}}, "must be less than or equal to cpu limit of 2"),
        ({"limits": {"example.com/x": "1"}}, "only cpu and memory resources are mutable"),
        ({"requests": {"cpu": "2"}}, "Pod QOS Class may not change as a result of resizing"),
        ({"limits": {"memory": None}}, "resource limits cannot be removed"),
    ]
    _, _, good, *bad = answers(
        run,
        ("POST", "/api/v1/namespaces/default/serviceaccounts", account),
        ("POST", PODS, {**pod, "spec": spec}),
        *(
            (
                "PATCH",
                f"{PODS}/p/resize",
                {"spec": {"containers": [{"name": "c", "resources": change}]}},
                {"Content_Type": STRATEGIC},
            )
            for change in ({"requests": {"cpu": "500m"}}, *(change for change, _ in asked))
        ),
    )
    assert good[0] == 200 and good[1]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "500m"
    for (status, answer), (_, words) in zip(bad, asked, strict=True):
        assert status == 422 and words in answer["message"]


def test_finalize(run: Any) -> None:
    """Finalizers of a namespace have a domain; its first DELETE only marks it."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
    path = "/api/v1/namespaces/n"
    _, bad, emptied, deleted = answers(
        run,
        ("POST", "/api/v1/namespaces", space),
        ("PUT", f"{path}/finalize", {**space, "spec": {"finalizers": ["bad"]}}),
        ("PUT", f"{path}/finalize", {**space, "spec": {"finalizers": []}}),
        ("DELETE", path, b""),
    )
    assert bad[0] == 422 and "neither a standard finalizer name" in bad[1]["message"]
    assert emptied[1]["spec"] == {}
    assert deleted[1]["kind"] == "Namespace" and deleted[1]["status"] == {"phase": "Terminating"}


def test_replicas_set_through_scale_have_no_time(run: Any) -> None:
    """The scaler takes the replicas over, in an entry of its own."""
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}
    path = "/apis/apps/v1/namespaces/default/deployments/d"
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 5}}
    *_, found = answers(
        run,
        ("PATCH", f"{path}?fieldManager=m", body, {"Content_Type": APPLY}),
        ("PUT", f"{path}/scale?fieldManager=scaler", scale),
        ("GET", path, b""),
    )
    entry = next(e for e in found[1]["metadata"]["managedFields"] if e.get("subresource") == "scale")
    assert entry["manager"] == "scaler" and "time" not in entry
    assert entry["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (MAPS, 405),
        (f"{MAPS}/a", 405),
        ("/api/v1/namespaces/default/status", 405),
        ("/version", 405),
        (WIDGETS, 200),
        ("/healthz", 200),
        ("/openapi/v2", 200),
        ("/apis", 200),
        ("/metrics", 200),
    ],
)
def test_head(run: Any, path: str, status: int) -> None:
    """Upstream serves built-in kinds and the version by routes that know no HEAD; all else answers it as a GET."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            await caller.call("POST", DEFINITIONS, definition("widgets"))
            await _until(server, lambda: _conditions(server, "widgets").get("Established") == "True")
            await caller.send("HEAD", path)
            assert (await caller.answer_head())[0] == status

    run(body())


def bundled(authorities: str) -> Object:
    """A definition whose webhook is trusted by these authorities."""
    obj = definition("widgets")
    hook = {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://x.io/", "caBundle": authorities}}
    return {**obj, "spec": {**obj["spec"], "conversion": {"strategy": "Webhook", "webhook": hook}}}


def test_authorities_of_a_conversion_webhook(run: Any) -> None:
    """A definition with some that cannot be used is not served until it has others; then it keeps usable ones."""
    good = base64.b64encode(pki.new_authority("ca", time.time()).cert).decode()

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            await caller.call("POST", DEFINITIONS, bundled("Cg=="))
            await _until(server, lambda: _conditions(server, "widgets").get("Established") == "False")
            path = f"{DEFINITIONS}/widgets.example.com"
            _, found = await caller.call("GET", path)
            told = next(c for c in found["status"]["conditions"] if c["type"] == "Established")
            assert told["reason"] == "InvalidCABundle"
            assert server.registry.by_resource("example.com", "v1", "widgets") is None
            spec = {"spec": bundled(good)["spec"]}
            merge = {"Content_Type": "application/merge-patch+json"}
            assert (await caller.call("PATCH", path, spec, **merge))[0] == 200
            await _until(server, lambda: _conditions(server, "widgets").get("Established") == "True")
            status, answer = await caller.call("PATCH", path, {"spec": bundled("Cg==")["spec"]}, **merge)
            assert status == 422
            cause = answer["details"]["causes"][0]
            assert cause["field"] == "spec.conversion.webhookClientConfig.caBundle"
            assert cause["message"] == (
                'Invalid value: "Cg==": unable to load root certificates: unable to parse bytes as PEM block'
            )
            assert (await caller.call("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, **merge))[0] == 200

    run(body())


def test_formats_that_nobody_knows(run: Any) -> None:
    """The write is accepted with a warning; formats of numbers and those that are checked are known."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            schema = {
                "a": {"type": "string", "format": "telephone"},
                "b": {"type": "array", "items": {"type": "string", "format": "telephone"}},
                "c": {"type": "integer", "format": "int64"},
                "d": {"type": "string", "format": "date-time"},
                "e": {"type": "object", "additionalProperties": {"type": "number", "format": "decimal"}},
            }
            await caller.send("POST", DEFINITIONS, definition("widgets", schema))
            status, headers, _ = await caller.answer()
            assert status == 201
            assert 'unrecognized format \\"decimal\\"' in headers["warning"]
            assert "int64" not in headers["warning"] and "date-time" not in headers["warning"]

    run(body())


FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"


@pytest.mark.parametrize(
    ("path", "patch", "refused"),
    [
        ("prioritylevelconfigurations/exempt", {"exempt": {"nominalConcurrencyShares": 10, "lendablePercent": 5}}, ""),
        (
            "prioritylevelconfigurations/catch-all",
            {"limited": {"nominalConcurrencyShares": 6}},
            "spec of 'catch-all' must equal the fixed value",
        ),
        ("flowschemas/exempt", {"matchingPrecedence": 2}, "spec of 'exempt' must equal the fixed value"),
        ("flowschemas/catch-all", {"distinguisherMethod": None}, "spec of 'catch-all' must equal the fixed value"),
        ("prioritylevelconfigurations/workload-low", {"limited": {"nominalConcurrencyShares": 6}}, ""),
    ],
)
def test_what_every_server_relies_on_stays(run: Any, path: str, patch: Object, refused: str) -> None:
    """The mandatory levels and schemas of flow control cannot be changed, but for what the exempt level lends."""
    request = ("PATCH", f"{FLOWS}/{path}", {"spec": patch}, {"Content_Type": "application/merge-patch+json"})
    ((status, answer),) = answers(run, request)
    assert status == (422 if refused else 200)
    assert refused in answer.get("message", "")


def test_fields_of_features_that_are_off(run: Any) -> None:
    """What belongs to a feature that is off is not stored, with a source of a claim that only it allows."""
    claim: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "a", "namespace": "other"},
    }
    driver = {"preventPodSchedulingIfMissing": True, "attachRequired": False}
    claims, drivers = "/api/v1/namespaces/default/persistentvolumeclaims", "/apis/storage.k8s.io/v1/csidrivers"
    made = answers(
        run,
        ("POST", claims, {"metadata": {"name": "c"}, "spec": claim}, {}),
        ("POST", drivers, {"metadata": {"name": "d.io"}, "spec": driver}, {}),
        (
            "PATCH",
            f"{drivers}/d.io",
            {"spec": {"preventPodSchedulingIfMissing": True}},
            {"Content_Type": "application/merge-patch+json"},
        ),
    )
    assert [status for status, _ in made] == [201, 201, 200]
    assert "dataSourceRef" not in made[0][1]["spec"]
    assert all("preventPodSchedulingIfMissing" not in answer["spec"] for _, answer in made[1:])


def test_documents_that_did_not_change(run: Any) -> None:
    """A client that has a document already is told so."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            await caller.send("GET", "/openapi/v3")
            _, headers, _ = await caller.answer()
            tag = headers["etag"]
            cases = ((tag, 304), (f"W/{tag}", 304), (f'"x", {tag}', 304), ("*", 304), ('"x"', 200))
            for given, status in cases:
                await caller.send("GET", "/openapi/v3", If_None_Match=given)
                found, headers, _ = await caller.answer()
                assert found == status, given
                assert ("content-length" in headers) is (status == 200)
            aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            await caller.send("GET", "/apis", Accept=aggregated)
            tag = (await caller.answer())[1]["etag"]
            for given, status in ((tag, 304), (f'"x", {tag}', 200), ("*", 200)):
                await caller.send("GET", "/apis", Accept=aggregated, If_None_Match=given)
                assert (await caller.answer())[0] == status, given

    run(body())


def test_impersonating_nobody(run: Any) -> None:
    """Further headers without a user name are a mistake, not nothing."""
    ((status, answer),) = answers(run, ("GET", MAPS, b"", {"Impersonate_Extra_scopes": "x"}))
    assert status == 400 and "without impersonating a user" in answer["message"]


@pytest.mark.parametrize("depth", [300, 900, 5000])
def test_what_is_nested_too_deeply_is_the_clients_mistake(run: Any, depth: int) -> None:
    """Neither the decoder nor anything behind it answers with an internal error, and the server goes on."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            fields = b'{"f:a":' * depth + b"{}" + b"}" * depth
            entry = (
                b'{"manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":%b}' % fields
            )
            text = b'{"metadata":{"name":"deep","managedFields":[%b]}}' % entry
            status, answer = await caller.call("POST", "/api/v1/namespaces/default/configmaps", text)
            assert status == (400 if depth > 1000 else 201), answer
            assert status == 201 or "exceeded max depth" in answer["message"]
            assert (await caller.call("GET", "/api/v1/namespaces/default/configmaps"))[0] == 200
            caller.close()

    run(body())
