"""All controllers over the real API server in memory, each with the rights of its own account."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

import pytest
from tests.unit.controllers.test_runtime import web

from k3s.api.errors import ApiError, NotFound
from k3s.api.kinds import REGISTRY, Kind
from k3s.api.object import Object, evolve
from k3s.apiserver import identity, rbac_bootstrap
from k3s.apiserver.admission import defaults as admission
from k3s.apiserver.admission.settings import settings
from k3s.apiserver.authz import Authorizer
from k3s.apiserver.cache import Cache
from k3s.apiserver.conversion import computed
from k3s.apiserver.nodeauthz import NodeAuthorizer
from k3s.apiserver.rbac import Rbac
from k3s.apiserver.server import ApiServer, ApiServerConfig
from k3s.base.aio import Tasks
from k3s.base.clock import LoopClock
from k3s.base.entropy import SeededEntropy
from k3s.base.story import Story
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.controllers import table
from k3s.controllers.informers import Informers
from k3s.controllers.known import (
    CONFIG_MAP,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    QUOTA,
    REPLICA_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
)
from k3s.controllers.policystatus import POLICY
from k3s.controllers.service import Controllers
from k3s.sim import loop
from k3s.store.memory import MemoryStore

EPOCH = 1_767_225_600.0  # 2026-01-01


class Nobody:
    """There is no request from outside."""

    def authenticate(self, headers: object, peer: object, remark: object) -> None:
        return None


class Plane:
    """A control plane without listening, and a kubelet that runs whatever it is given."""

    def __init__(self, seed: int = 1, enable: Iterable[str] = ()) -> None:
        clock, entropy = LoopClock(EPOCH), SeededEntropy(seed)
        registry = REGISTRY.copy()
        cache = Cache(computed(registry))
        self.store = MemoryStore()
        authorizer = Authorizer(Rbac(cache), NodeAuthorizer(cache, rbac_bootstrap.node_rules()))
        self.api = ApiServer(
            self.store,
            ApiServerConfig(advertise=("10.0.0.1", 6443)),
            Nobody(),  # type: ignore[arg-type]
            authorizer,
            admission.chain(cache, authorizer, clock, entropy, settings=settings(enable)),
            clock,
            entropy,
            registry=registry,
            cache=cache,
        )
        self.cache = cache
        self.root = Client(LocalTransport(self.api.itself()))
        manager = identity.authenticated("system:kube-controller-manager")
        self.informers = Informers(self.client(manager), clock, entropy)
        self.story = Story()
        specs = table.controllers(table.Settings("PEM", ("10.0.0.1",)), registry)
        self.controllers = Controllers(specs, self.informers, self.account, registry, clock, entropy, self.story)
        self.changed = asyncio.Event()
        self.errors: list[BaseException] = []
        self.tasks = Tasks("test", lambda name, error: self.errors.append(error))

    def client(self, user: identity.User) -> Client:
        return Client(LocalTransport(self.api.handler(user)))

    def account(self, name: str) -> Client:
        groups = identity.service_account_groups("kube-system")
        return self.client(identity.User(identity.service_account_name("kube-system", name), groups))

    async def __aenter__(self) -> Plane:
        await self.store.open()
        await self.api.load()
        ready = asyncio.Event()
        self.tasks.spawn(self.informers.run(lambda: None), "informers")
        self.tasks.spawn(self.controllers.run(ready.set), "controllers")
        await ready.wait()
        self.informers.of(POD).subscribe(self._pod_changed)
        for kind in self.api.registry.stored():
            if kind in self.informers:
                self.informers.of(kind).subscribe(lambda key, old, new: self.changed.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.close()
        await self.store.close()
        assert not self.errors, self.errors

    def _pod_changed(self, key: str, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.tasks.spawn(self._run(new), key)

    async def _run(self, pod: Object) -> None:
        meta = pod["metadata"]
        if "deletionTimestamp" in meta:
            if meta.get("deletionGracePeriodSeconds"):
                await self.root.delete(POD, meta["namespace"], meta["name"], grace_s=0, uid=meta["uid"])
        elif pod.get("status", {}).get("phase", "Pending") == "Pending":
            number = int(meta["uid"][:4], 16)
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            ip = f"10.42.{number % 250}.{number // 250 % 250 + 1}"
            status = {"phase": "Running", "conditions": [ready], "podIP": ip, "podIPs": [{"ip": ip}]}
            await self.set_status(pod, status)

    async def set_status(self, pod: Object, status: Object) -> None:
        with contextlib.suppress(NotFound):
            meta = pod["metadata"]
            await self.root.patch(POD, meta["namespace"], meta["name"], {"status": status}, subresource="status")

    def all(self, kind: Kind, namespace: str = "") -> list[Object]:
        return list(self.cache.list(kind, namespace))

    async def until(self, condition: Callable[[], bool], within_s: float = 120.0) -> None:
        """Looks at the condition again whenever an object of a kind that controllers follow has changed."""
        async with asyncio.timeout(within_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def available(plane: Plane) -> int:
    found = plane.cache.get(DEPLOYMENT, "default", "web")
    return found.get("status", {}).get("availableReplicas", 0) if found else 0


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Callable[[], None]:
    """Fails on any warning, and on any refusal that a controller met."""

    def check() -> None:
        bad = [r.getMessage() + str(r.__dict__.get("error", "")) for r in caplog.records]
        assert not [text for text in bad if "orbidden" in text or "Cannot decide" in text], bad

    caplog.set_level(logging.INFO, "k3s")
    return check


def test_namespaces_get_what_they_need(quiet: Callable[[], None]) -> None:
    """Each namespace has its default account and root CA; a deleted one goes with its contents."""

    async def main() -> None:
        async with Plane() as plane:
            await plane.root.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
            await plane.until(lambda: bool(plane.all(SERVICE_ACCOUNT, "shop")) and bool(plane.all(CONFIG_MAP, "shop")))
            await plane.until(lambda: len(plane.all(SERVICE_ACCOUNT)) >= 5)
            await plane.root.delete(NAMESPACE, "", "shop")
            await plane.until(lambda: plane.cache.get(NAMESPACE, "", "shop") is None)
            assert not plane.all(SERVICE_ACCOUNT, "shop") and not plane.all(CONFIG_MAP, "shop")
            quiet()

    loop.run(1, main())


def test_deployment_behind_a_service(quiet: Callable[[], None]) -> None:
    """Pods come, their addresses are behind the Service, scaling and deleting follow; nothing is refused."""

    async def main() -> None:
        async with Plane(2) as plane:
            await plane.until(lambda: bool(plane.all(SERVICE_ACCOUNT, "default")))
            service = {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
            }
            await plane.root.create(SERVICE, service)
            deployment = {"apiVersion": "apps/v1", "kind": "Deployment", **web(5)}
            await plane.root.create(DEPLOYMENT, deployment)
            await plane.until(lambda: available(plane) == 5)

            def addresses() -> int:
                pieces = [s for s in plane.all(ENDPOINT_SLICE) if s["metadata"]["name"].startswith("web-")]
                return sum(len(piece.get("endpoints") or ()) for piece in pieces)

            await plane.until(lambda: addresses() == 5)
            subsets = plane.cache.get(ENDPOINTS, "default", "web")
            assert subsets is not None and len(subsets["subsets"][0]["addresses"]) == 5
            live = await plane.root.get(DEPLOYMENT, "default", "web")
            await plane.root.update(DEPLOYMENT, evolve(live, ("spec", "replicas"), 2))
            await plane.until(lambda: available(plane) == 2 == len(plane.all(POD)) == addresses())
            await plane.root.delete(DEPLOYMENT, "default", "web", propagation="Foreground")
            await plane.until(lambda: not plane.all(POD) and not plane.all(REPLICA_SET) and not plane.all(DEPLOYMENT))
            quiet()

    loop.run(2, main())


def test_quotas_hold_under_concurrency_and_fill_up_again(quiet: Callable[[], None]) -> None:
    """Of 40 creates at once as many succeed as fit, the status is exact at once; what goes can be used again."""

    async def main() -> None:
        async with Plane(5) as plane:
            root = plane.root
            hard = {"configmaps": "13", "count/secrets": "100"}
            body = {"apiVersion": "v1", "metadata": {"namespace": "default"}}
            for name in ("one", "two"):
                meta = {"name": name, "namespace": "default"}
                await root.create(QUOTA, {**body, "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}})

            def used(quota: str = "one") -> Object:
                found = plane.cache.get(QUOTA, "default", quota) or {}
                status: Object = found.get("status", {}).get("used", {})
                return status

            await plane.until(lambda: bool(plane.all(CONFIG_MAP, "default")))
            count = 1  # the root CA
            await plane.until(lambda: used() == used("two") == {"configmaps": str(count), "count/secrets": "0"})

            async def make(n: int) -> str:
                meta = {"name": f"c{n}", "namespace": "default"}
                try:
                    await root.create(CONFIG_MAP, {**body, "kind": "ConfigMap", "metadata": meta})
                except ApiError as error:
                    return error.message
                return ""

            told = await asyncio.gather(*(make(n) for n in range(40)))
            refused = [text for text in told if text]
            assert len(plane.all(CONFIG_MAP, "default")) == 13 and len(refused) == 40 - 13 + count
            assert used()["configmaps"] == used("two")["configmaps"] == "13"
            end = "exceeded quota: one, requested: configmaps=1, used: configmaps=13, limited: configmaps=13"
            assert refused[-1].endswith(end), refused[-1]
            assert "already exists" not in await make(99)
            for gone in plane.all(CONFIG_MAP, "default")[:3]:  # sorted: ours come first
                await root.delete(CONFIG_MAP, "default", gone["metadata"]["name"])
            await plane.until(lambda: used()["configmaps"] == used("two")["configmaps"] == "10")
            assert await make(100) == ""

    loop.run(5, main())


def test_policies_are_told_what_does_not_fit(quiet: Callable[[], None]) -> None:
    """An expression that asks for a field that a kind lacks is warned of in the status, in the reference's words."""

    async def main() -> None:
        async with Plane(6) as plane:
            rule = {
                "apiGroups": ["apps"],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["deployments"],
            }
            rules = [
                {"expression": "object.replicas > 1"},
                {"expression": "object.spec.template.spec.containers.all(c, c.name != '')"},
            ]
            kind = "ValidatingAdmissionPolicy"
            meta = {"name": "p"}
            spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": rules}
            body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": meta, "spec": spec}
            await plane.root.create(POLICY, body)

            def status() -> Object:
                found: Object = (plane.cache.get(POLICY, "", "p") or {}).get("status") or {}
                return found

            await plane.until(lambda: "observedGeneration" in status())
            (warning,) = status()["typeChecking"]["expressionWarnings"]
            assert warning["fieldRef"] == "spec.validations[0].expression"
            assert warning["warning"] == (
                "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n"
                " | object.replicas > 1\n | ......^"
            )
            quiet()

    loop.run(6, main())


def test_nodes_get_networks_and_jobs_end(quiet: Callable[[], None]) -> None:
    """Two nodes get different networks; a silent one is tainted; a Job's pods are counted through status updates."""

    async def main() -> None:
        async with Plane(3) as plane:
            for name in ("a", "b"):
                ready = [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]
                node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"conditions": ready}}
                await plane.root.create(NODE, node)
            await plane.until(lambda: all("podCIDR" in node.get("spec", {}) for node in plane.all(NODE)))
            assert len({node["spec"]["podCIDR"] for node in plane.all(NODE)}) == 2
            template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
            job = {
                "metadata": {"name": "work", "namespace": "default"},
                "spec": {"completions": 3, "template": template},
            }
            await plane.until(lambda: bool(plane.all(SERVICE_ACCOUNT, "default")))
            await plane.root.create(JOB, {"apiVersion": "batch/v1", "kind": "Job", **job})

            def done() -> bool:
                for pod in plane.all(POD):
                    if pod["status"]["phase"] == "Running":
                        plane.tasks.spawn(plane.set_status(pod, {"phase": "Succeeded", "conditions": []}), "end")
                found = plane.cache.get(JOB, "default", "work")
                types = [c["type"] for c in (found or {}).get("status", {}).get("conditions") or ()]
                return "Complete" in types

            await plane.until(done)
            await asyncio.sleep(60)
            taints = {n["metadata"]["name"]: n["spec"].get("taints") or [] for n in plane.all(NODE)}
            assert {taint["key"] for taint in taints["a"]} == {"node.kubernetes.io/unreachable"}
            quiet()

    loop.run(3, main())


def test_sets_roll_and_settle(quiet: Callable[[], None]) -> None:
    """Daemon and stateful sets run, roll to a new template, and then nothing is written for an hour."""

    async def main() -> None:
        async with Plane(4) as plane:
            await plane.until(lambda: bool(plane.all(SERVICE_ACCOUNT, "default")))
            for name in ("a", "b"):
                await plane.root.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})

            def body(image: str, label: str) -> Object:
                template = {
                    "metadata": {"labels": {"app": label}},
                    "spec": {"containers": [{"name": "c", "image": image}], "hostNetwork": label == "agent"},
                }
                return {"selector": {"matchLabels": {"app": label}}, "template": template}

            claim = {
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }
            more = {"replicas": 2, "serviceName": "db", "volumeClaimTemplates": [claim]}
            meta = {"name": "agent", "namespace": "default"}
            daemon = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta, "spec": body("1", "agent")}
            meta = {"name": "db", "namespace": "default"}
            stateful = {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "metadata": meta,
                "spec": body("1", "db") | more,
            }
            await plane.root.create(DAEMON_SET, daemon)
            await plane.root.create(STATEFUL_SET, stateful)

            def settled(image: str) -> bool:
                pods = plane.all(POD)
                same = {pod["spec"]["containers"][0]["image"] for pod in pods} == {image}
                one = plane.cache.get(DAEMON_SET, "default", "agent") or {}
                two = plane.cache.get(STATEFUL_SET, "default", "db") or {}
                updated = [one["status"].get("updatedNumberScheduled"), two["status"].get("updatedReplicas")]
                return same and len(pods) == 4 and updated == [2, 2] and two["status"].get("availableReplicas") == 2

            await plane.until(lambda: settled("1"))
            for kind, name in ((DAEMON_SET, "agent"), (STATEFUL_SET, "db")):
                live = await plane.root.get(kind, "default", name)
                containers = ("spec", "template", "spec", "containers")
                await plane.root.update(kind, evolve(live, containers, [{"name": "c", "image": "2"}]))
            await plane.until(lambda: settled("2"))
            await asyncio.sleep(300)
            before = len(plane.story.lines())
            await asyncio.sleep(3600)
            assert plane.story.lines()[before:] == []
            quiet()

    loop.run(4, main())
