"""Which flow a request belongs to, with the objects that a cluster starts with and with changed ones."""

from __future__ import annotations

import pytest
from tests.fakes.server import ADMIN, ALICE, Caller, serving

from k3s.api import object as objects
from k3s.apiserver.flows import LEVEL, SCHEMA, Flows
from k3s.apiserver.identity import NODES, User, anonymous, authenticated, service_account_groups
from k3s.apiserver.request import parse
from k3s.apiserver.seats import Seating
from k3s.client.client import Client
from k3s.client.local import LocalTransport

NODE = authenticated("system:node:a", NODES)
SYSTEM = User("system:serviceaccount:kube-system:x", service_account_groups("kube-system"))
OTHER = User("system:serviceaccount:default:x", service_account_groups("default"))
SCHEDULER = authenticated("system:kube-scheduler")
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/a"


@pytest.mark.parametrize(
    ("user", "method", "target", "schema", "level"),
    [
        (ADMIN, "GET", "/api/v1/pods", "exempt", "exempt"),
        (ALICE, "GET", "/api/v1/pods", "global-default", "global-default"),
        (ALICE, "GET", "/readyz", "probes", "exempt"),
        (anonymous(), "GET", "/livez", "probes", "exempt"),
        (ALICE, "POST", "/readyz", "global-default", "global-default"),
        (NODE, "PATCH", "/api/v1/nodes/a/status", "system-node-high", "node-high"),
        (NODE, "PUT", LEASE, "system-node-high", "node-high"),
        (NODE, "GET", "/api/v1/pods", "system-nodes", "system"),
        (SCHEDULER, "PUT", LEASE, "system-leader-election", "leader-election"),
        (SCHEDULER, "PATCH", LEASE, "kube-scheduler", "workload-high"),
        (SCHEDULER, "GET", "/api/v1/pods", "kube-scheduler", "workload-high"),
        (SYSTEM, "GET", "/api/v1/pods", "kube-system-service-accounts", "workload-high"),
        (OTHER, "GET", "/version", "service-accounts", "workload-low"),
        (User("nobody"), "GET", "/version", "", ""),
    ],
)
def test_requests_fall_into_the_flows_of_upstream(  # type: ignore[no-untyped-def]
    run, user: User, method: str, target: str, schema: str, level: str
) -> None:
    async def body() -> None:
        async with serving() as server:
            flow = Flows(server.cache, Seating(600), lambda: 0.0).of(user, parse(method, target).info)
            found = (objects.name(flow.schema), objects.name(flow.level)) if flow is not None else ("", "")
            assert found == (schema, level)

    run(body())


def test_answers_tell_of_their_flow_and_follow_changes(run) -> None:  # type: ignore[no-untyped-def]
    """Also refusals; a new schema counts from the next request on, and one without its level never."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0], "ali")

            async def told() -> tuple[str, str]:
                await caller.send("GET", "/api/v1/pods")
                assert caller.reader is not None
                head = (await caller.reader.readuntil(b"\r\n\r\n")).decode()
                lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
                await caller.reader.readexactly(int(lines["Content-Length"]))
                return lines["X-Kubernetes-Pf-Flowschema-Uid"], lines["X-Kubernetes-Pf-Prioritylevel-Uid"]

            def uid(kind, name: str) -> str:  # type: ignore[no-untyped-def]
                return str(server.cache.get(kind, "", name)["metadata"]["uid"])  # type: ignore[index]

            assert await told() == (uid(SCHEMA, "global-default"), uid(LEVEL, "global-default"))
            client = Client(LocalTransport(server.handler(ADMIN)))
            spec = {**server.cache.get(SCHEMA, "", "global-default")["spec"], "matchingPrecedence": 50}  # type: ignore[index]
            for name, level in (("dangling", "none"), ("mine", "workload-low")):
                spec = {**spec, "priorityLevelConfiguration": {"name": level}}
                await client.create(
                    SCHEMA,
                    {"apiVersion": SCHEMA.api_version, "kind": SCHEMA.kind, "metadata": {"name": name}, "spec": spec},
                )
            assert await told() == (uid(SCHEMA, "mine"), uid(LEVEL, "workload-low"))
            await client.delete(SCHEMA, "", "mine")
            assert await told() == (uid(SCHEMA, "global-default"), uid(LEVEL, "global-default"))

    run(body())
