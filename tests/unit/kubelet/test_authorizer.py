"""Who may use which path of a kubelet: the API server is asked for the subresources of nodes, the finest first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.fakes.server import serving
from tests.unit.kubelet.test_server import NoPods, ask

from k3s.api.kinds import builtin
from k3s.apiserver.identity import NODES, authenticated
from k3s.base.clock import SystemClock
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.kubelet.authorizer import ApiAuthorizer
from k3s.kubelet.runtime.fake import FakeRuntime
from k3s.kubelet.server import KubeletServer

Run = Callable[[Any], Any]
_RBAC = "rbac.authorization.k8s.io"
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
_EXEC, _RUN = "/exec/a/b/c?command=id&output=1", "/run/a/b/c?cmd=id"


async def _allow(admin: Client, subresource: str, verb: str) -> None:
    rule = {"apiGroups": [""], "resources": [f"nodes/{subresource}"], "verbs": [verb]}
    api = f"{_RBAC}/v1"
    role = {"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [rule]}
    await admin.create(builtin(api, "ClusterRole"), role)
    ref = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "r"}
    alice = {"apiGroup": _RBAC, "kind": "User", "name": "alice"}
    binding = {"apiVersion": api, "kind": "ClusterRoleBinding", "metadata": {"name": "r"}, "roleRef": ref}
    await admin.create(builtin(api, "ClusterRoleBinding"), {**binding, "subjects": [alice]})


@pytest.mark.parametrize(
    ("subresource", "verb", "opened"),
    [
        ("pods", "get", {"/pods", "/runningpods/"}),
        ("healthz", "get", {"/healthz", "/healthz/ping"}),
        ("configz", "get", {"/configz"}),
        ("statusz", "get", {"/statusz"}),
        ("stats", "get", {"/stats/summary"}),
        ("metrics", "get", {"/metrics", "/metrics/cadvisor"}),
        ("log", "get", {"/logs/syslog"}),
        ("checkpoint", "get", {"/checkpoint/a/b/c"}),
        # Older roles reach by proxy what had no subresource of its own.
        (
            "proxy",
            "get",
            {"/pods", "/runningpods/", "/healthz", "/healthz/ping", "/configz", "/statusz", "/containerLogs/a/b/c"},
        ),
        ("proxy", "create", {_EXEC, _RUN}),
    ],
)
def test_which_subresource_opens_which_path(run: Run, subresource: str, verb: str, opened: set[str]) -> None:
    """Nothing more than what is opened; no reading runs a command, though a WebSocket begins with GET."""
    paths = (
        *("/pods", "/runningpods/", "/healthz", "/healthz/ping", "/configz", "/statusz", "/stats/summary", "/metrics"),
        *("/metrics/cadvisor", "/logs/syslog", "/checkpoint/a/b/c", "/containerLogs/a/b/c", _EXEC, _RUN, "/podsx"),
    )

    async def check() -> None:
        async with serving() as api:
            await _allow(Client(LocalTransport(api.itself())), subresource, verb)
            node = Client(LocalTransport(api.handler(authenticated("system:node:n1", NODES))))
            clock = SystemClock()
            kubelet = KubeletServer(NoPods(), FakeRuntime(clock), ApiAuthorizer(node, "n1", clock), clock, {})
            ready = asyncio.Event()
            none: Any = None
            task = asyncio.ensure_future(kubelet.run(ready.set, "127.0.0.1", none, 0, 0))
            await asyncio.wait_for(ready.wait(), 5)
            found = set()
            for path in paths:
                assert (await ask(kubelet.port, path, {"Authorization": "Bearer nobody"}))[0] == 401
                status, _ = await ask(kubelet.port, path, {"Authorization": "Bearer ali", **_UPGRADE})
                found |= {path} if status != 403 else set()
            assert found - {"/podsx"} == opened
            status, said = await ask(kubelet.port, "/pods", {"Authorization": "Bearer ali"}, "OPTIONS")
            assert status == 403
            assert said == b"Forbidden (user=alice, verb=options, resource=nodes, subresource(s)=[pods proxy])\n"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(check())
