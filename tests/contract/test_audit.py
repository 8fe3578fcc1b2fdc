"""What stands in the audit log of requests to a real server."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.api import Pki
from tests.fakes.server import Caller, serving

from k3s.api.object import Object
from k3s.apiserver.audit.settings import auditor, settings
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy
from k3s.client.transport import Request

MAPS, SECRETS = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/secrets"


def config(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def recorded(run: Any, folder: Path, steps: Any, *rules: Object, **flags: str) -> list[Object]:
    """The events of steps under a policy; RequestReceived is left out unless a rule says otherwise."""
    policy, file = folder / "policy.yaml", folder / "audit.log"
    whole = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules)}
    policy.write_text(json.dumps(whole))
    given = {"audit-policy-file": str(policy), "audit-log-path": str(file)}
    said = settings({**given, **{f"audit-{name.replace('_', '-')}": value for name, value in flags.items()}})
    assert said is not None

    async def body() -> None:
        log = auditor(said, SystemClock(), SeededEntropy(2))
        async with serving(auditor=log) as server:
            caller = Caller(server.ports[0])
            await steps(caller, server)
            caller.close()

    run(body())
    lines = file.read_text().splitlines()
    return [json.loads(line) if line.startswith("{") else {"line": line} for line in lines]


ADMIN = {"level": "RequestResponse", "users": ["admin"], "omitStages": ["RequestReceived"]}


def test_a_write_from_its_arrival_to_its_end(run: Any, tmp_path: Path) -> None:
    """Every field, in upstream's form; the id is that of the answer's header."""
    ids: list[str] = []

    async def steps(caller: Caller, _: Any) -> None:
        await caller.send("POST", f"{MAPS}?fieldManager=me", config("a", k="v"), User_Agent="test/1")
        _, headers, _ = await caller.answer()
        ids.append(headers["audit-id"])
        await caller.send("GET", f"{MAPS}/none", Audit_Id="mine")
        await caller.answer()

    received, complete, _, missing = recorded(
        run, tmp_path, steps, {**ADMIN, "omitStages": [], "omitManagedFields": True}
    )
    assert (received["stage"], complete["stage"]) == ("RequestReceived", "ResponseComplete")
    assert "responseStatus" not in received and "annotations" not in received
    stamps = [complete.pop("requestReceivedTimestamp"), complete.pop("stageTimestamp")]
    assert stamps == sorted(stamps) and len(stamps[0]) == len("2026-01-01T00:00:00.000000Z")
    shown = complete.pop("responseObject")
    assert shown["data"] == {"k": "v"} and shown["metadata"]["uid"] and "managedFields" not in shown["metadata"]
    assert complete.pop("annotations")["authorization.k8s.io/decision"] == "allow"
    sent = complete.pop("requestObject")
    assert (sent["kind"], sent["data"]) == ("ConfigMap", {"k": "v"})
    assert complete == {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "auditID": ids[0],
        "stage": "ResponseComplete",
        "requestURI": f"{MAPS}?fieldManager=me",
        "verb": "create",
        "user": {"username": "admin", "uid": "admin-uid", "groups": ["system:masters", "system:authenticated"]},
        "sourceIPs": ["127.0.0.1"],
        "userAgent": "test/1",
        "objectRef": {"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 201},
    }
    assert missing["auditID"] == "mine"
    status = missing["responseStatus"]
    assert (status["status"], status["reason"], status["code"]) == ("Failure", "NotFound", 404)


def test_levels_tell_as_much_as_they_say(run: Any, tmp_path: Path) -> None:
    """Metadata tells no bodies, Request what was sent, None nothing."""

    async def steps(caller: Caller, _: Any) -> None:
        for name in ("quiet", "meta", "asked"):
            await caller.call("PUT", f"{MAPS}/{name}", config(name))

    def rule(level: str, name: str) -> Object:
        resources = [{"resources": ["configmaps"], "resourceNames": [name]}]
        return {"level": level, "resources": resources, "omitStages": ["RequestReceived"]}

    meta, asked = recorded(
        run, tmp_path, steps, rule("None", "quiet"), rule("Metadata", "meta"), rule("Request", "asked")
    )
    assert (meta["level"], "requestObject" in meta, "responseObject" in meta) == ("Metadata", False, False)
    assert (asked["level"], "requestObject" in asked, "responseObject" in asked) == ("Request", True, False)


def test_secrets_and_tokens_are_never_told(run: Any, tmp_path: Path) -> None:
    """Neither in what is sent nor in what is answered: objects, lists, patches, token requests."""
    hidden = base64.b64encode(b"hidden-value").decode()

    async def steps(caller: Caller, _: Any) -> None:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": hidden}}
        note = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(secret)}
        status, _body = await caller.call("POST", SECRETS, {**secret, "metadata": {"name": "s", "annotations": note}})
        assert status == 201
        await caller.call(
            "PATCH", f"{SECRETS}/s", {"stringData": {"k": hidden}}, Content_Type="application/merge-patch+json"
        )
        steps = [{"op": "replace", "path": "/data/k", "value": hidden}]
        await caller.call("PATCH", f"{SECRETS}/s", steps, Content_Type="application/json-patch+json")
        await caller.call("GET", SECRETS)
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": hidden}}
        await caller.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)

    events = recorded(run, tmp_path, steps, ADMIN)
    assert len(events) == 5 and events[0]["requestObject"]["data"] == {"k": "<redacted>"}
    assert hidden not in (tmp_path / "audit.log").read_text()


def test_refusals_impersonation_and_missing_credentials(run: Any, tmp_path: Path) -> None:
    """Who asked and as whom; what authorization said; why a sender is not known."""

    async def steps(caller: Caller, _: Any) -> None:
        await caller.call("GET", MAPS, Impersonate_User="bob")
        bad = Caller(caller.port, "wrong")
        await bad.call("GET", MAPS)
        bad.close()

    refused, unknown = recorded(
        run,
        tmp_path,
        steps,
        {"level": "Metadata", "omitStages": ["RequestReceived"], "resources": [{"resources": ["configmaps"]}]},
    )
    assert refused["user"]["username"] == "admin"
    assert refused["impersonatedUser"] == {"username": "bob", "groups": ["system:authenticated"]}
    assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert refused["responseStatus"]["code"] == 403
    assert unknown["user"] == {} and unknown["responseStatus"]["code"] == 401
    assert unknown["responseStatus"]["message"] == "Authentication failed, attempted: bearer"


def test_a_watch_begins_and_ends(run: Any, tmp_path: Path) -> None:
    """ResponseStarted when it begins, ResponseComplete when its client is gone."""

    async def steps(caller: Caller, server: Any) -> None:
        await caller.send("GET", f"{MAPS}?watch=true&timeoutSeconds=1")
        await caller.answer_head()
        while await caller.event():
            pass

    events = recorded(run, tmp_path, steps, {**ADMIN, "verbs": ["watch"]})
    assert [event["stage"] for event in events] == ["ResponseStarted", "ResponseComplete"]
    assert {event["responseStatus"]["code"] for event in events} == {200}


def test_components_of_the_server_are_recorded_too(run: Any, tmp_path: Path) -> None:
    """What controllers do in this process stands in the log as what others do."""

    async def steps(caller: Caller, server: Any) -> None:
        from tests.fakes.server import ALICE

        with pytest.raises(Exception, match="cannot get"):
            await server.handler(ALICE).handle(Request("GET", f"{MAPS}/a"))
        await server.itself().handle(Request("POST", MAPS, {}, config("b")))

    rule = {"level": "Metadata", "resources": [{"resources": ["configmaps"]}], "omitStages": ["RequestReceived"]}
    found = [e for e in recorded(run, tmp_path, steps, rule) if e["objectRef"].get("name") in ("a", "b")]
    assert [(e["user"]["username"], e["responseStatus"]["code"]) for e in found] == [
        ("alice", 403),
        ("system:apiserver", 201),
    ]


def test_the_legacy_format(run: Any, tmp_path: Path) -> None:
    """A line of key and value, as before there were objects."""

    async def steps(caller: Caller, _: Any) -> None:
        await caller.call("GET", f"{MAPS}/a", User_Agent='q"uote')

    (event,) = recorded(run, tmp_path, steps, ADMIN, log_format="legacy")
    line = event["line"]
    assert ' AUDIT: id="' in line and 'stage="ResponseComplete" ip="127.0.0.1" method="get" user="admin" ' in line
    assert 'groups="system:masters","system:authenticated" as="<self>" asgroups="<lookup>"' in line
    assert line.endswith(f'user-agent="q\\"uote" namespace="default" uri="{MAPS}/a" response="404"')


def test_a_request_that_cannot_be_recorded_is_refused(run: Any, tmp_path: Path) -> None:
    """In blocking-strict mode only: the log's disk is full."""

    async def steps(caller: Caller, server: Any) -> None:
        log = server._auditor
        whole = log._file.write

        def full(line: bytes) -> None:
            raise OSError(28, "No space left on device")

        log._file.write = full
        status, body = await caller.call("GET", MAPS)
        log._file.write = whole
        assert (status, "cannot be recorded" in body["message"]) == (500, True)
        assert (await caller.call("GET", MAPS))[0] == 200
        await caller.send("GET", "/metrics")
        _, _, text = await caller.answer()
        assert b"apiserver_audit_requests_rejected_total 1\n" in text
        assert b'apiserver_audit_error_total{plugin="log"}' in text

    recorded(run, tmp_path, steps, {"level": "Metadata", "users": ["admin"]}, log_mode="blocking-strict")


def test_a_webhook_gets_batches(run: Any, tmp_path: Path) -> None:
    """Events in lists, at the latest when the server stops."""
    got: list[Object] = []

    async def body() -> None:
        import ssl

        pki = Pki(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pki.issue("localhost"))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().split("\r\n")
                size = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
                got.append({"path": head.split()[1].decode(), **json.loads(await reader.readexactly(size))})
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        hook = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        place = f"https://localhost:{hook.sockets[0].getsockname()[1]}/events"
        kubeconfig = tmp_path / "hook.yaml"
        cluster = {"server": place, "certificate-authority": str(pki.ca)}
        kubeconfig.write_text(
            json.dumps(
                {
                    "current-context": "c",
                    "clusters": [{"name": "k", "cluster": cluster}],
                    "contexts": [{"name": "c", "context": {"cluster": "k"}}],
                }
            )
        )
        policy = tmp_path / "policy.yaml"
        rule = {"level": "Metadata", "users": ["admin"], "omitStages": ["RequestReceived"]}
        policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [rule]}))
        said = settings(
            {
                "audit-policy-file": str(policy),
                "audit-webhook-config-file": str(kubeconfig),
                "audit-webhook-batch-max-size": "2",
            }
        )
        assert said is not None
        async with serving(auditor=auditor(said, SystemClock(), SeededEntropy(2))) as server:
            caller = Caller(server.ports[0])
            for _ in range(3):
                await caller.call("GET", f"{MAPS}/a")
            caller.close()
        hook.close()

    run(body())
    assert {(batch["path"], batch["kind"]) for batch in got} == {("/events", "EventList")}
    assert sum(len(batch["items"]) for batch in got) == 3 and max(len(batch["items"]) for batch in got) == 2
