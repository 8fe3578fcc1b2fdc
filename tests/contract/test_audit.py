"""What stands in the audit log of requests to a real server."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.hooks import Hooks
from tests.fakes.server import Caller, serving

from k3s.api.object import Object
from k3s.apiserver.audit.settings import auditor, settings
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy
from k3s.client.transport import Request

MAPS, SECRETS = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/secrets"


def config(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


class Issuer:
    """Issues one token."""

    token = "e30.e30.c2lnbmVk"

    def checked(self, namespace: str, name: str, body: Object) -> Object:
        return body

    def request(self, namespace: str, name: str, body: Object) -> tuple[Object, str, str]:
        return {**body, "status": {"token": self.token}}, "JTI=id-of-it", ""

    def published(self, jwks_uri: str) -> Object:
        return {}


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
        async with serving(auditor=log, issuer=Issuer()) as server:
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
    assert refused["authenticationMetadata"] == {"impersonationConstraint": "impersonate:user-info"}
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
        (place,) = server._auditor.places
        whole = place._file.write

        def full(line: bytes) -> None:
            raise OSError(28, "No space left on device")

        place._file.write = full
        status, body = await caller.call("GET", MAPS)
        place._file.write = whole
        assert (status, "cannot be recorded" in body["message"]) == (500, True)
        assert (await caller.call("GET", MAPS))[0] == 200
        await caller.send("GET", "/metrics")
        _, _, text = await caller.answer()
        assert b"apiserver_audit_requests_rejected_total 1\n" in text
        assert b'apiserver_audit_error_total{plugin="log"}' in text

    recorded(run, tmp_path, steps, {"level": "Metadata", "users": ["admin"]}, log_mode="blocking-strict")


def test_the_log_in_batches(run: Any, tmp_path: Path) -> None:
    """Lines come beside the requests, all of them at the end; what finds no room is counted."""

    async def steps(caller: Caller, _: Any) -> None:
        for _ in range(5):
            await caller.call("GET", f"{MAPS}/a")

    events = recorded(run, tmp_path, steps, ADMIN, log_mode="batch", log_batch_max_size="3", log_batch_max_wait="1h")
    assert [event["responseStatus"]["code"] for event in events] == [404] * 5


def test_large_events_are_cut(run: Any, tmp_path: Path) -> None:
    """Their bodies go, and it is said."""

    async def steps(caller: Caller, _: Any) -> None:
        await caller.call("POST", MAPS, config("a", k="v" * 2000))
        await caller.call("POST", MAPS, config("b", k="v"))

    cut, whole = recorded(run, tmp_path, steps, ADMIN, log_truncate_enabled="true", log_truncate_max_event_size="2000")
    assert "requestObject" not in cut and "responseObject" not in cut
    assert cut["annotations"]["audit.k8s.io/truncated"] == "true" and cut["objectRef"]["name"] == "a"
    assert whole["requestObject"]["data"] == {"k": "v"} and "audit.k8s.io/truncated" not in whole["annotations"]


HOOKED = {"level": "Request", "users": ["admin"], "verbs": ["create"], "omitStages": ["RequestReceived"]}


def test_what_webhooks_and_policies_did_is_told(run: Any, tmp_path: Path) -> None:
    """Who was asked in which round, what was patched (not at Metadata, never of a Secret), who failed open."""

    def patch(path: str, value: str) -> Object:
        text = base64.b64encode(json.dumps([{"op": "add", "path": path, "value": value}]).encode()).decode()
        return {"patchType": "JSONPatch", "patch": text}

    def answers(path: str, asked: Object) -> Object:
        if path == "/1":
            return {"http": "500 No", "body": "no"}
        if path == "/0":
            return {"auditAnnotations": {"seen": "yes"}}
        return patch("/data/x", "aGlkZGVu") if "x" not in asked["object"]["data"] else {}

    def events(rule: Object, folder: Path) -> list[Object]:
        folder.mkdir()

        async def steps(caller: Caller, _: Any) -> None:
            async with Hooks(folder, answers) as hooks:
                wanted = ({"reinvocationPolicy": "IfNeeded"}, {"failurePolicy": "Ignore"}, {})
                about = {"resources": ["configmaps", "secrets"]}
                made = hooks.configuration("MutatingWebhookConfiguration", *wanted, rule=about)
                group = "/apis/admissionregistration.k8s.io/v1"
                assert (await caller.call("POST", f"{group}/mutatingwebhookconfigurations", made))[0] == 201
                checks = hooks.configuration(
                    "ValidatingWebhookConfiguration", {"path": "/1", "failurePolicy": "Ignore"}
                )
                assert (await caller.call("POST", f"{group}/validatingwebhookconfigurations", checks))[0] == 201
                assert (await caller.call("POST", MAPS, config("a", k="v")))[0] == 201
                secret = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": ""}}
                assert (await caller.call("POST", SECRETS, secret))[0] == 201

        return [e for e in recorded(run, folder, steps, rule) if e["objectRef"].get("apiGroup") is None]

    made, secret = (event["annotations"] for event in events(HOOKED, tmp_path / "request"))

    def told(prefix: str, turn: str) -> Any:
        return json.loads(made[f"{prefix}.webhook.admission.k8s.io/{turn}"])

    name = "mutatingwebhookconfiguration"
    for turn, number, mutated in (
        ("round_0_index_0", 0, False),
        ("round_0_index_1", 1, False),
        ("round_0_index_2", 2, True),
        ("round_1_index_0", 0, False),
    ):
        told_of = {"configuration": name, "webhook": f"h{number}.example.com", "mutated": mutated}
        assert told("mutation", turn) == told_of
    patched = {"op": "add", "path": "/data/x", "value": "aGlkZGVu"}
    assert told("patch", "round_0_index_2") == {
        "configuration": name,
        "webhook": "h2.example.com",
        "patch": [patched],
        "patchType": "JSONPatch",
    }
    assert [key for key in made if key.startswith("patch.")] == ["patch.webhook.admission.k8s.io/round_0_index_2"]
    assert made["failed-open.mutation.webhook.admission.k8s.io/round_0_index_1"] == "h1.example.com"
    assert made["failed-open.validating.webhook.admission.k8s.io/round_0_index_0"] == "h0.example.com"
    assert made["h0.example.com/seen"] == "yes"
    hidden = json.loads(secret["patch.webhook.admission.k8s.io/round_0_index_2"])["patch"]
    assert hidden == [{**patched, "value": "<redacted>"}]
    made, _ = (event["annotations"] for event in events({**HOOKED, "level": "Metadata"}, tmp_path / "metadata"))
    assert told("mutation", "round_0_index_2")["mutated"] is True
    assert not [key for key in made if key.startswith("patch.")]


def test_what_other_parts_note(run: Any, tmp_path: Path) -> None:
    """Authorization, pod security, policies, and which token was issued, each under upstream's key."""

    async def steps(caller: Caller, _: Any) -> None:
        space = {"kind": "Namespace", "metadata": {"name": "n", "labels": {}}}
        for mode in ("enforce", "audit"):
            space["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] = "baseline"
        assert (await caller.call("POST", "/api/v1/namespaces", space))[0] == 201
        account = {"kind": "ServiceAccount", "metadata": {"name": "default"}}
        assert (await caller.call("POST", "/api/v1/namespaces/n/serviceaccounts", account))[0] == 201
        group = "/apis/admissionregistration.k8s.io/v1"
        rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
        noted = [{"key": "size", "valueExpression": "string(size(object.data))"}]
        spec = {"matchConstraints": {"resourceRules": [rule]}, "auditAnnotations": noted}
        policy = {"kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p.example.com"}, "spec": spec}
        assert (await caller.call("POST", f"{group}/validatingadmissionpolicies", policy))[0] == 201
        binding = {"kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"}}
        binding["spec"] = {"policyName": "p.example.com", "validationActions": ["Deny"]}
        assert (await caller.call("POST", f"{group}/validatingadmissionpolicybindings", binding))[0] == 201
        assert (await caller.call("POST", MAPS, config("a", k="v")))[0] == 201
        pod = {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        assert (await caller.call("POST", "/api/v1/namespaces/n/pods", pod))[0] == 201
        workload = {**pod["spec"], "hostNetwork": True}
        template = {"metadata": {"labels": {"a": "b"}}, "spec": workload}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        made = {"kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec}
        assert (await caller.call("POST", "/apis/apps/v1/namespaces/n/replicasets", made))[0] == 201
        asked = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}}
        assert (await caller.call("POST", "/api/v1/namespaces/n/serviceaccounts/default/token", asked))[0] == 201

    rule = {"level": "Metadata", "users": ["admin"], "omitStages": ["RequestReceived"]}
    events = {
        (e["objectRef"]["resource"], e["objectRef"].get("subresource")): e["annotations"]
        for e in recorded(run, tmp_path, steps, rule)
    }
    for notes in events.values():
        assert notes["authorization.k8s.io/decision"] == "allow" and "authorization.k8s.io/reason" in notes
    assert events["configmaps", None]["p.example.com/size"] == "1"
    assert events["pods", None]["pod-security.kubernetes.io/enforce-policy"] == "baseline:latest"
    assert "hostNetwork" in events["replicasets", None]["pod-security.kubernetes.io/audit-violations"] or (
        "host namespaces" in events["replicasets", None]["pod-security.kubernetes.io/audit-violations"]
    )
    issued = events["serviceaccounts", "token"]["authentication.kubernetes.io/issued-credential-id"]
    assert issued == "JTI=id-of-it"
    assert Issuer.token not in (tmp_path / "audit.log").read_text()
