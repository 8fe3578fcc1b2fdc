"""Webhooks against a real HTTPS server on the loopback address: what it is asked, and what its answers do."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.hooks import Hooks, played
from tests.fakes.reader import FakeReader
from tests.fakes.server import Caller

from k3s.api.object import Object
from k3s.apiserver import services

MAPS = "/api/v1/namespaces/default/configmaps"
GROUP = "/apis/admissionregistration.k8s.io/v1"


def patch(*operations: Object) -> Object:
    text = base64.b64encode(json.dumps(list(operations)).encode()).decode()
    return {"patchType": "JSONPatch", "patch": text}


def add(path: str, value: Any) -> Object:
    return {"op": "add", "path": path, "value": value}


def config(name: str = "a", **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


async def configured(caller: Caller, configuration: Object) -> None:
    status, made = await caller.call("POST", f"{GROUP}/{configuration['kind'].lower()}s", configuration)
    assert status == 201, made


def test_mutating_hooks_see_each_other_and_patch(run: Any, tmp_path: Path) -> None:
    """Each sees what the one before made; one that wants it is asked again when a later one changed the object."""

    def answers(path: str, asked: Object) -> Object:
        data = (asked["object"].get("data") or {}) if asked["object"] else {}
        if path == "/0":
            return patch(add("/data/seen", ",".join(sorted(k for k in data if k != "seen"))))
        return patch(add("/data/second", "yes")) | {"warnings": ["told"]} if "second" not in data else {}

    async def steps(hooks: Hooks, caller: Caller) -> None:
        both = ({"reinvocationPolicy": "IfNeeded"}, {})
        await configured(caller, hooks.configuration("MutatingWebhookConfiguration", *both))
        await caller.send("POST", MAPS, config(data={"k": "v"}))
        status, headers, body = await caller.answer()
        assert (status, headers.get("warning")) == (201, '299 - "told"'), body
        assert json.loads(body)["data"] == {"k": "v", "seen": "k,second", "second": "yes"}

    hooks = played(run, tmp_path, answers, steps)
    assert [path for path, _ in hooks.asked] == ["/0", "/1", "/0"]
    asked = hooks.asked[0][1]
    assert asked["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert asked["resource"] == asked["requestResource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (asked["operation"], asked["namespace"], asked["name"]) == ("CREATE", "default", "a")
    assert asked["userInfo"]["username"] == "admin" and asked["oldObject"] is None and asked["dryRun"] is False
    assert asked["options"]["kind"] == "CreateOptions"


@pytest.mark.slow  # one of them waits for a second
def test_refusals_and_failures_have_upstreams_words(run: Any, tmp_path: Path) -> None:
    """A denial carries the hook's status; a hook that cannot be asked refuses, or is ignored, as it says."""

    def answers(path: str, asked: Object) -> Object:
        return {
            "/no": {"allowed": False},
            "/why": {"allowed": False, "status": {"code": 418, "message": "I am a teapot", "reason": "Teapot"}},
            "/reason": {"allowed": False, "status": {"reason": "OnlyAReason"}},
            "/500": {"http": "500 Oops", "body": "broken"},
            "/uid": {"uid": "other"},
            "/patch": patch(add("/data", {})),
            "/slow": {"wait": 30},
        }[path]

    async def steps(hooks: Hooks, caller: Caller) -> None:
        async def refused(hook: Object, kind: str = "ValidatingWebhookConfiguration") -> tuple[int, str, str]:
            await configured(caller, hooks.configuration(kind, hook))
            status, body = await caller.call("POST", MAPS, config())
            await caller.call("DELETE", f"{GROUP}/{kind.lower()}s/{kind.lower()}")
            return status, body.get("reason", ""), body.get("message", "")

        denied = 'admission webhook "h0.example.com" denied the request'
        assert await refused({"path": "/no"}) == (400, "", f"{denied} without explanation")
        assert await refused({"path": "/why"}) == (418, "Teapot", f"{denied}: I am a teapot")
        assert await refused({"path": "/reason"}) == (400, "OnlyAReason", f"{denied}: OnlyAReason")
        failed = 'Internal error occurred: failed calling webhook "h0.example.com": '
        status, reason, text = await refused({"path": "/500"})
        assert (status, reason) == (500, "InternalError")
        assert text.startswith(f"{failed}failed to call webhook: an error on the server (")
        _, _, text = await refused({"path": "/uid"})
        assert text.startswith(f'{failed}received invalid webhook response: expected response.uid="')
        _, _, text = await refused({"path": "/patch"})
        assert text == f"{failed}received invalid webhook response: validating webhook may not return response.patch"
        _, _, text = await refused({"path": "/slow", "timeoutSeconds": 1})
        url = f"https://localhost:{hooks.port}"
        assert text == f'{failed}failed to call webhook: Post "{url}/slow?timeout=1s": context deadline exceeded'
        _, _, text = await refused({"path": "/no", "clientConfig": {"caBundle": None}})
        assert "failed to verify certificate" in text
        _, _, text = await refused({"clientConfig": {"url": "https://127.0.0.1:1/x"}})
        assert text.endswith("connect: connection refused")
        service = {"namespace": "default", "name": "gone", "path": "/x"}
        _, _, text = await refused({"clientConfig": {"url": None, "service": service}})
        assert text == (
            f'{failed}failed to call webhook: Post "https://gone.default.svc:443/x?timeout=10s": '
            'service "gone" not found'
        )
        assert (await refused({"path": "/500", "failurePolicy": "Ignore"}))[0] == 201

    played(run, tmp_path, answers, steps)


def test_who_is_asked(run: Any, tmp_path: Path) -> None:
    """Selectors, conditions, dry run, equivalent versions and exempt kinds decide whether a hook is asked."""

    async def steps(hooks: Hooks, caller: Caller) -> None:
        async def count(path: str, body: Object, hook: Object, rule: Object | None = None) -> int:
            before = len(hooks.asked)
            await configured(caller, hooks.configuration("ValidatingWebhookConfiguration", hook, rule=rule))
            status, made = await caller.call("POST", f"{path}?dryRun=All", body)
            assert status == 201, made
            name = "validatingwebhookconfiguration"
            await caller.call("DELETE", f"{GROUP}/{name}s/{name}")
            return len(hooks.asked) - before

        def labels(value: str) -> Object:
            return {"matchLabels": {"kubernetes.io/metadata.name": value}}

        assert await count(MAPS, config(), {}) == 1
        assert await count(MAPS, config(), {"namespaceSelector": labels("default")}) == 1
        assert await count(MAPS, config(), {"namespaceSelector": labels("other")}) == 0
        assert await count(MAPS, config(), {"objectSelector": {"matchLabels": {"a": "b"}}}) == 0
        mine = {"name": "c", "expression": "request.userInfo.username == 'admin' && object.metadata.name == 'a'"}
        assert await count(MAPS, config(), {"matchConditions": [mine]}) == 1
        assert await count(MAPS, config("b"), {"matchConditions": [mine]}) == 0
        assert await count(MAPS, config(), {}, {"resources": ["configmaps/status", "pods"]}) == 0
        assert await count(MAPS, config(), {}, {"resources": ["*/*"], "scope": "Cluster"}) == 0
        every = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
        policy = hooks.configuration("MutatingWebhookConfiguration", {})
        assert await count(f"{GROUP}/mutatingwebhookconfigurations", policy, {}, every) == 0
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        }
        events = {"apiGroups": ["events.k8s.io"], "resources": ["events"]}
        path = "/api/v1/namespaces/default/events"
        assert await count(path, event, {"matchPolicy": "Exact"}, events) == 0
        assert await count(path, event, {"matchPolicy": "Equivalent"}, events) == 1
        seen = hooks.asked[-1][1]
        assert seen["kind"] == {"group": "events.k8s.io", "version": "v1", "kind": "Event"}
        assert seen["requestKind"]["group"] == "" and seen["object"]["apiVersion"] == "events.k8s.io/v1"
        assert await count(MAPS, config(), {"sideEffects": "NoneOnDryRun"}) == 1

    played(run, tmp_path, lambda path, asked: {}, steps)


def test_services_updates_and_deletions(run: Any, tmp_path: Path) -> None:
    """Who is behind a Service is asked under the Service's name, about both sides of an update and about a deletion."""

    async def steps(hooks: Hooks, caller: Caller) -> None:
        spec = {"type": "ExternalName", "externalName": "localhost"}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"}, "spec": spec}
        assert (await caller.call("POST", "/api/v1/namespaces/default/services", service))[0] == 201
        where = {"namespace": "default", "name": "hook", "path": "/svc", "port": hooks.port}
        target = {"url": None, "service": where}
        rule = {"operations": ["UPDATE", "DELETE"]}
        configuration = hooks.configuration("ValidatingWebhookConfiguration", {"clientConfig": target}, rule=rule)
        await configured(caller, configuration)
        assert (await caller.call("POST", MAPS, config()))[0] == 201
        assert (await caller.call("PUT", f"{MAPS}/a", config(data={"k": "v"})))[0] == 200
        status, body = await caller.call("DELETE", f"{MAPS}/a")
        assert status == 400 and body["message"].endswith("denied the request: stays"), body

    def answers(path: str, asked: Object) -> Object:
        assert path == "/svc"
        return {"allowed": asked["operation"] != "DELETE", "status": {"message": "stays"}}

    hooks = played(run, tmp_path, answers, steps)
    update, delete = (asked for _, asked in hooks.asked)
    assert update["oldObject"]["metadata"]["name"] == "a" and update["object"]["data"] == {"k": "v"}
    assert delete["object"] is None and delete["oldObject"]["data"] == {"k": "v"}
    assert delete["options"]["kind"] == "DeleteOptions"


def test_where_a_service_is_asked() -> None:
    """At a ready endpoint's own port, at the Service's address when it selects nothing, nowhere without an endpoint."""
    meta = {"name": "hook", "namespace": "default"}
    ports = [{"name": "web", "port": 443}, {"name": "other", "port": 80}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"selector": {"a": "b"}, "ports": ports},
    }
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "x", "namespace": "default", "labels": {"kubernetes.io/service-name": "hook"}},
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}, {"addresses": ["10.0.0.2"]}],
        "ports": [{"name": "other", "port": 8080}, {"name": "web", "port": 8443}],
    }
    reader = FakeReader([service, piece])
    where = {"namespace": "default", "name": "hook"}
    assert services.address(reader, where) == ("10.0.0.2", 8443)
    assert services.address(reader, {**where, "port": 80}) == ("10.0.0.2", 8080)
    with pytest.raises(services.NoAddress, match='no service port 81 found for service "hook"'):
        services.address(reader, {**where, "port": 81})
    reader.put({**piece, "endpoints": []})
    with pytest.raises(services.NoAddress, match='no endpoints available for service "hook"'):
        services.address(reader, where)
    reader.put({**service, "spec": {"ports": ports, "clusterIP": "10.43.0.9"}})
    assert services.address(reader, where) == ("10.43.0.9", 443)


def test_bindings_and_evictions_are_asked_about(run: Any, tmp_path: Path) -> None:
    """Each is a CREATE of its own, with the body that was posted."""

    async def steps(hooks: Hooks, caller: Caller) -> None:
        rule = {"operations": ["*"], "resources": ["pods/binding", "pods/eviction", "bindings"]}
        await configured(caller, hooks.configuration("ValidatingWebhookConfiguration", {}, rule=rule))
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        assert (await caller.call("POST", "/api/v1/namespaces/default/serviceaccounts", account))[0] == 201
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
        body["spec"] = {"containers": [{"name": "c", "image": "i"}]}
        pods = "/api/v1/namespaces/default/pods"
        assert (await caller.call("POST", pods, body))[0] == 201
        bound = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n"}}
        assert (await caller.call("POST", f"{pods}/p/binding", bound))[0] == 201
        assert (await caller.call("POST", "/api/v1/namespaces/default/bindings", bound))[0] == 409
        evicted = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
        status, answer = await caller.call("POST", f"{pods}/p/eviction", evicted)
        assert (status, answer["message"]) == (400, 'admission webhook "h0.example.com" denied the request: stays')

    def answers(path: str, asked: Object) -> Object:
        return {"allowed": asked.get("subResource") != "eviction", "status": {"message": "stays"}}

    hooks = played(run, tmp_path, answers, steps)
    seen = [(a["operation"], a.get("subResource"), a["kind"]["kind"], a["object"]["kind"]) for _, a in hooks.asked]
    assert seen == [
        ("CREATE", "binding", "Binding", "Binding"),
        ("CREATE", None, "Binding", "Binding"),
        ("CREATE", "eviction", "Eviction", "Eviction"),
    ]
    assert [asked["resource"]["resource"] for _, asked in hooks.asked] == ["pods", "bindings", "pods"]


def test_who_is_asked_may_write_the_object(run: Any, tmp_path: Path) -> None:
    """Nobody holds an object while a webhook thinks about it: what it writes itself is kept, and the write goes on."""
    ports: list[int] = []

    async def steps(hooks: Hooks, caller: Caller) -> None:
        ports.append(caller.port)
        assert (await caller.call("POST", MAPS, config()))[0] == 201
        await configured(caller, hooks.configuration("ValidatingWebhookConfiguration", {}))
        change = {"data": {"from": "client"}}
        merge = {"Content_Type": "application/merge-patch+json"}
        status, made = await caller.call("PATCH", f"{MAPS}/a", change, **merge)
        assert (status, made["data"]) == (200, {"from": "client", "hook": "too"})

    async def answer(asked: Object) -> Object:
        if "hook" not in (asked["object"].get("data") or {}):
            merge = {"Content_Type": "application/merge-patch+json"}
            other = Caller(ports[0])
            assert (await other.call("PATCH", f"{MAPS}/a", {"data": {"hook": "too"}}, **merge))[0] == 200
            other.close()
        return {}

    hooks = played(run, tmp_path, lambda path, asked: answer(asked), steps)
    assert len(hooks.asked) == 3, "about the client's change, about the webhook's own, about both together"
