"""Redirects: whoever the API server asks cannot send it, or its clients' credentials, somewhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.scene import may, scene
from tests.fakes.aggregated import BASE, beside
from tests.fakes.authority import Authority
from tests.fakes.hooks import Hooks, played
from tests.fakes.server import Caller

from k3s.api.object import Object
from k3s.apiserver.authorization.settings import AuthorizationSettings, AuthorizerSettings, WebhookSettings

Run = Callable[[Any], Any]
_MAPS = "/api/v1/namespaces/default/configmaps"
_AWAY = "302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_admission_webhooks_do_not_redirect(run: Run, tmp_path: Path, status: str) -> None:
    """CVE-2020-8561: neither the redirect's own body nor the other place decides."""
    port = 0

    def answers(path: str, request: Object) -> Object:
        return {"http": f"{status}\r\nLocation: https://localhost:{port}/elsewhere"}  # and the body allows

    async def steps(hooks: Hooks, admin: Caller) -> None:
        nonlocal port
        port = hooks.port
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        assert (await admin.call("POST", path, hooks.configuration("ValidatingWebhookConfiguration", {})))[0] == 201
        code, said = await admin.call("POST", _MAPS, {"metadata": {"name": "m"}})
        assert code == 500 and "redirects are not followed" in said["message"]

    hooks = played(run, tmp_path, answers, steps)
    assert [path for path, _ in hooks.asked] == ["/0"]


def test_authorizers_do_not_redirect(run: Run, tmp_path: Path) -> None:
    """An answer that redirects allows nothing."""

    async def check() -> None:
        async with Authority(tmp_path, lambda spec: {"allowed": True}) as authority:
            authority.http = f"307 Temporary\r\nLocation: https://localhost:{authority.port}/elsewhere"
            webhook = WebhookSettings(authority.kubeconfig(), "v1")
            given = AuthorizationSettings((AuthorizerSettings("Webhook", "outside", webhook),))
            async with scene(authorization=given) as here:
                assert (await here.alice.call("GET", _MAPS))[0] == 500
            assert len(authority.asked) == 1

    run(check())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/nodes/n1/proxy/logs/x"),
        ("GET", "/api/v1/namespaces/default/pods/p/log"),
        ("POST", "/api/v1/namespaces/default/pods/p/exec?command=id&stdout=true"),
    ],
)
def test_kubelets_do_not_redirect(run: Run, method: str, path: str) -> None:
    """Where a kubelet points to is not reached for; at the most its client hears of it."""

    async def check() -> None:
        async with scene(may("nodes/proxy pods/log pods/exec", "get create")) as here:
            here.kubelet.answer = f"HTTP/1.1 {_AWAY}\r\nContent-Length: 0\r\n\r\n".encode()
            await here.alice.send(method, path, Connection="Upgrade", Upgrade="websocket")
            status, _, _ = await here.alice.answer()
            assert status in (302, 500, 502)
            assert here.kubelet.dials == [("192.0.2.1", 10250)]

    run(check())


def test_other_api_servers_do_not_redirect(run: Run, tmp_path: Path) -> None:
    """CVE-2022-3172: the other server cannot send clients, with their credentials, somewhere else."""

    async def check() -> None:
        async with beside(tmp_path) as (_, __, caller):
            await caller.send("GET", f"{BASE}/namespaces/d/flunders/elsewhere")
            status, headers, body = await caller.answer()
            assert status == 502 and "location" not in headers
            assert body == b"the backend attempted to redirect this request, which is not permitted\n"

    run(check())
