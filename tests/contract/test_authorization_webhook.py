"""Authorization by a webhook: what it is asked, how its answers count, what its failure means, and reloading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.authority import Answers, Authority
from tests.fakes.server import Caller, build

from k3s.api.object import Object
from k3s.apiserver.admission.chain import Chain
from k3s.apiserver.authorization.modes import Modes
from k3s.apiserver.authorization.settings import (
    NODE,
    RBAC,
    WEBHOOK,
    AuthorizationSettings,
    AuthorizerSettings,
    SettingsError,
    WebhookSettings,
    parse,
    settings,
)
from k3s.apiserver.authz import Authorizer
from k3s.apiserver.server import ApiServer
from k3s.store.memory import MemoryStore

Run = Callable[[Any], Any]
_MAPS = "/api/v1/namespaces/default/configmaps"
_ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
_REVIEWS = "/apis/authorization.k8s.io/v1"


def _in_order(*types: str, webhook: WebhookSettings) -> AuthorizationSettings:
    return AuthorizationSettings(
        tuple(AuthorizerSettings(type, type.lower(), webhook if type == WEBHOOK else None) for type in types)
    )


def _play(
    run: Run,
    folder: Path,
    answers: Answers,
    steps: Callable[[Authority, Caller, ApiServer], Any],
    order: tuple[str, ...] = (NODE, RBAC, WEBHOOK),
    **more: Any,
) -> Authority:
    """Runs steps, as alice, against a server with this webhook."""
    found: list[Authority] = []

    async def body() -> None:
        async with Authority(folder, answers) as authority:
            found.append(authority)
            given = {"version": "v1", **more}
            webhook = WebhookSettings(authority.kubeconfig(), **given)
            store = MemoryStore()
            await store.open()
            server = build(store, authorization=_in_order(*order, webhook=webhook))
            await server.start()
            caller = Caller(server.ports[0], "ali")
            try:
                await steps(authority, caller, server)
            finally:
                caller.close()
                await server.stop()

    run(body())
    return found[0]


def _reads_maps(spec: Object) -> Object:
    about = spec.get("resourceAttributes") or {}
    if about.get("resource") == "secrets":
        return {"allowed": False, "denied": True, "reason": "never"}
    return {"allowed": about.get("resource") == "configmaps", "reason": "the webhook says so"}


def test_the_webhook_is_asked_last_and_remembered(run: Run, tmp_path: Path) -> None:
    """RBAC has no opinion, so the webhook is asked, in upstream's form, and once for the same question."""

    async def steps(authority: Authority, alice: Caller, server: ApiServer) -> None:
        for _ in range(2):
            assert (await alice.call("GET", f"{_MAPS}?labelSelector=a%3Db,!c&fieldSelector=metadata.name!%3Dx"))[
                0
            ] == 200
        assert len(authority.asked) == 1
        status, said = await alice.call("GET", "/api/v1/namespaces/default/secrets/s")
        assert status == 403 and said["message"] == (
            'secrets "s" is forbidden: User "alice" cannot get resource "secrets" in API group "" '
            'in the namespace "default": never'
        )
        status, said = await alice.call("GET", "/api/v1/namespaces/default/pods")
        assert status == 403 and said["message"].endswith('"default": the webhook says so')
        assert (await alice.call("GET", "/api"))[0] == 200  # RBAC says so itself
        admin = Caller(server.ports[0])
        assert (await admin.call("GET", "/api/v1/secrets"))[0] == 200
        admin.close()
        assert len(authority.asked) == 3

    authority = _play(run, tmp_path, _reads_maps, steps)
    review = authority.asked[0]
    assert review["apiVersion"] == "authorization.k8s.io/v1" and review["kind"] == "SubjectAccessReview"
    assert review["spec"] == {
        "user": "alice",
        "groups": ["system:authenticated"],
        "uid": "alice-uid",
        "resourceAttributes": {
            "verb": "list",
            "version": "v1",
            "resource": "configmaps",
            "namespace": "default",
            "fieldSelector": {"requirements": [{"key": "metadata.name", "operator": "NotIn", "values": ["x"]}]},
            "labelSelector": {
                "requirements": [
                    {"key": "a", "operator": "In", "values": ["b"]},
                    {"key": "c", "operator": "DoesNotExist"},
                ]
            },
        },
    }


def test_the_first_version_has_another_name_for_groups(run: Run, tmp_path: Path) -> None:
    """v1beta1, the flag's default, has `group`; a path has attributes of its own."""

    async def steps(authority: Authority, alice: Caller, server: ApiServer) -> None:
        assert (await alice.call("GET", "/metrics"))[0] == 403

    authority = _play(run, tmp_path, lambda spec: {"allowed": False}, steps, version="v1beta1")
    assert authority.asked[0]["spec"]["group"] == ["system:authenticated"]
    assert authority.asked[0]["spec"]["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}


def test_answers_that_do_not_count_longer_are_asked_for_by_every_request(run: Run, tmp_path: Path) -> None:
    """Without caching a request with two questions ends too, also one that admission asks on its way."""
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": [rule]}

    async def steps(authority: Authority, alice: Caller, server: ApiServer) -> None:
        for _ in range(2):
            await alice.call("GET", f"{_MAPS}/a")
        assert len(authority.asked) == 2
        assert (await alice.call("GET", "/api/v1/namespaces/default/pods/p/exec"))[0] == 503  # nothing leads to nodes
        assert [one["spec"]["resourceAttributes"]["verb"] for one in authority.asked[2:]] == ["get", "create"]
        status, said = await alice.call("POST", _ROLES, role)
        assert status == 201, said
        assert [one["spec"]["resourceAttributes"]["verb"] for one in authority.asked[4:]] == ["create", "escalate"]

    _play(run, tmp_path, lambda spec: {"allowed": True}, steps, authorized_s=0.0, unauthorized_s=0.0)


@pytest.mark.parametrize(
    ("order", "refuses", "status"),
    [
        ((WEBHOOK, RBAC), True, 500),  # the failure decides
        ((WEBHOOK, RBAC), False, 200),  # the next is asked
        ((RBAC, WEBHOOK), True, 200),  # was not needed
    ],
)
def test_what_a_failure_means(run: Run, tmp_path: Path, order: tuple[str, ...], refuses: bool, status: int) -> None:
    """A webhook that fails refuses, or leaves it to the others; where none allows, the client hears of the failure."""

    async def steps(authority: Authority, alice: Caller, server: ApiServer) -> None:
        authority.down = True
        assert (await alice.call("GET", "/api"))[0] == status
        got, said = await alice.call("GET", _MAPS)
        assert got == 500 and said["message"].startswith(f'Internal Server Error: "{_MAPS}": ')
        assert (await alice.call("GET", _MAPS))[0] == 500
        text = server.metrics.text()
        assert 'apiserver_authorization_webhook_evaluations_total{name="webhook",result="error"}' in text
        assert ("webhook_evaluations_fail_open_total{" in text) is not refuses
        authority.down = False  # failures are not remembered
        assert (await alice.call("GET", _MAPS))[0] == 200

    _play(run, tmp_path, _reads_maps, steps, order, refuses=refuses)


def test_conditions_keep_requests_from_the_webhook(run: Run, tmp_path: Path) -> None:
    """One that is false means that the webhook has no opinion; one that fails is a failure of the webhook."""
    conditions = ("has(request.resourceAttributes)", "request.resourceAttributes.namespace == 'default'")

    async def steps(authority: Authority, alice: Caller, server: ApiServer) -> None:
        assert (await alice.call("GET", _MAPS))[0] == 200
        assert (await alice.call("GET", "/api/v1/namespaces/other/configmaps"))[0] == 403
        assert (await alice.call("GET", "/metrics"))[0] == 403
        assert len(authority.asked) == 1
        status, said = await alice.call("GET", "/api/v1/configmaps")  # no namespace to compare
        assert status == 500 and "resulted in error" in said["message"]
        assert 'match_condition_exclusions_total{type="Webhook",name="webhook"} 2' in server.metrics.text()

    _play(run, tmp_path, _reads_maps, steps, conditions=conditions, refuses=True)


def test_reviews_tell_what_a_webhook_says(run: Run, tmp_path: Path) -> None:
    """Access reviews ask it; rules reviews say that they are incomplete."""

    async def steps(authority: Authority, alice: Caller, server: ApiServer) -> None:
        async def review(resource: str) -> Object:
            spec = {"resourceAttributes": {"verb": "get", "resource": resource, "namespace": "default"}}
            _, said = await alice.call("POST", f"{_REVIEWS}/selfsubjectaccessreviews", {"spec": spec})
            return said["status"]

        assert await review("configmaps") == {"allowed": True, "reason": "the webhook says so"}
        assert await review("secrets") == {"allowed": False, "denied": True, "reason": "never"}
        terms = [
            {"key": "a", "operator": "In", "values": ["b", "c"]},
            {"key": "d", "operator": "NotIn", "values": ["e"]},
            {"key": "f", "operator": "Exists"},
            {"key": "g", "operator": "DoesNotExist"},
        ]
        about = {"verb": "list", "resource": "configmaps", "labelSelector": {"requirements": terms}}
        about["fieldSelector"] = {"requirements": terms[1:2]}
        await alice.call("POST", f"{_REVIEWS}/selfsubjectaccessreviews", {"spec": {"resourceAttributes": about}})
        assert authority.asked[-1]["spec"]["resourceAttributes"] == about
        authority.down = True
        failed = await review("pods")
        assert failed["allowed"] is False and "the authority is closed" in failed["evaluationError"]
        _, said = await alice.call("POST", f"{_REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
        assert said["status"]["incomplete"] is True
        assert said["status"]["evaluationError"] == "webhook authorizer does not support user rule resolution"

    _play(run, tmp_path, _reads_maps, steps)


def _config(kubeconfig: str, *more: str) -> str:
    lines = (
        *("apiVersion: apiserver.config.k8s.io/v1", "kind: AuthorizationConfiguration", "authorizers:"),
        *("- type: Webhook", "  name: outside", "  webhook:", "    timeout: 3s", "    failurePolicy: Deny"),
        *("    subjectAccessReviewVersion: v1", "    connectionInfo:", "      type: KubeConfigFile"),
        f"      kubeConfigFile: {kubeconfig}",
        *more,
    )
    return "\n".join(lines) + "\n"


def test_a_changed_file_counts_at_once_and_a_broken_one_not(run: Run, tmp_path: Path) -> None:
    """The file is watched; one that cannot be used leaves the former, and metrics tell."""

    async def steps() -> None:
        async with Authority(tmp_path, _reads_maps) as authority:
            file = tmp_path / "authorization.yaml"
            file.write_text(_config(authority.kubeconfig()))
            given = settings({"authorization-config": str(file)})
            store = MemoryStore()
            await store.open()
            server = build(store, authorization=given)
            modes = server.pipeline._authorizer
            assert isinstance(modes, Modes)
            ready = asyncio.Event()
            running = asyncio.create_task(modes.run(ready.set))
            await server.start()
            await ready.wait()
            alice = Caller(server.ports[0], "ali")

            async def until(text: str) -> None:
                async with asyncio.timeout(10):
                    while text not in server.metrics.text():
                        assert (await alice.call("GET", _MAPS))[0] == 200  # whatever the file says meanwhile

            assert (await alice.call("GET", "/api"))[0] == 403  # RBAC is not among them
            assert (await alice.call("GET", _MAPS))[0] == 200
            file.write_text("authorizers: [")
            await until('status="failure"} 1')
            new = tmp_path / "new.yaml"
            new.write_text(_config(authority.kubeconfig(), "- {type: RBAC, name: roles}"))
            new.rename(file)
            await until('status="success"} 1')
            assert (await alice.call("GET", "/api"))[0] == 200
            alice.close()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await server.stop()

    run(steps())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("authorizers:", "authorizers: []\nx:"), 'strict decoding error: unknown field "x"'),
        (("Webhook", "Webhoo"), 'authorizers[0].type: Unsupported value: "Webhoo": supported values: "AlwaysAllow", '),
        (("name: outside", "name: ''"), "authorizers[0].name: Required value"),
        (("name: outside", "name: A_b"), 'authorizers[0].name: Invalid value: "A_b": authorizer name is invalid: '),
        (("timeout: 3s", "timeout: 31s"), 'authorizers[0].timeout: Invalid value: "31s": must be > 0s and <= 30s'),
        (("timeout: 3s", "unauthorizedTTL: 1s"), "authorizers[0].timeout: Required value"),
        (("timeout: 3s", "timeout: 3s\n    authorizedTTL: -1s"), 'authorizedTTL: Invalid value: "-1s": must be > 0s'),
        (("Deny", "deny"), 'authorizers[0].failurePolicy: Unsupported value: "deny": supported values: "Deny", "NoO'),
        ((": v1\n    conn", ": v2\n    conn"), 'ReviewVersion: Unsupported value: "v2": supported values: "v1", "v1b'),
        (("KubeConfigFile", "''"), "authorizers[0].connectionInfo.type: Required value"),
        (("kubeConfigFile: /", "kubeConfigFile: "), "kubeConfigFile: Invalid value: "),
        (
            ("timeout: 3s", "timeout: 3s\n    matchConditions: [{expression: 'true'}]"),
            "matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified",
        ),
        (
            ("timeout: 3s", "timeout: 3s\n    matchConditions: [{expression: request.usr}]"),
            'authorizers[0].matchConditions[0].expression: Invalid value: "request.usr": compilation failed: ',
        ),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, change: tuple[str, str], text: str) -> None:
    """In upstream's words, all of them together."""
    kubeconfig = tmp_path / "k"
    kubeconfig.write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'https://a'}}]\n"
    )
    good = _config(str(kubeconfig))
    assert parse(good.encode())[0].webhook == WebhookSettings(str(kubeconfig), "v1", 3.0, refuses=True)
    assert change[0] in good
    with pytest.raises(SettingsError) as caught:
        parse(good.replace(*change, 1).encode())
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"authorization-mode": "RBAC,ABAC"}, "authorization-mode 'ABAC' is not a valid mode: use some of"),
        ({"authorization-mode": "RBAC,RBAC"}, "authorization-mode 'RBAC' has mode specified more than once"),
        ({"authorization-mode": "Webhook"}, "authorization-mode Webhook needs authorization-webhook-config-file"),
        ({"authorization-webhook-version": "v1"}, "cannot specify authorization-webhook-version without mode Webhook"),
        (
            {"authorization-mode": "Node", "authorization-config": "/x"},
            "authorization-config can not be specified when authorization-mode or authorization-webhook-* flags",
        ),
        ({"authorization-config": "/nowhere"}, "authorization-config '/nowhere' cannot be read: "),
    ],
)
def test_flags_that_do_not_go_together(flags: dict[str, str], text: str) -> None:
    """What does not fit is said with the flag's name."""
    with pytest.raises(SettingsError, match=text.replace("*", "[*]")):
        settings(flags)


def test_nothing_is_in_the_way_of_who_has_no_webhook() -> None:
    """The default is the authorizer that never waits, and the chain that never waits for it."""
    server = build(MemoryStore())
    assert type(server.pipeline._authorizer) is Authorizer
    assert type(server.crud._admission) is Chain
