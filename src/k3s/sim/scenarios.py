"""What users do to a simulated cluster. Each scenario works in a namespace of its own; the seed chooses which run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from k3s.api.object import Object
from k3s.sim.cluster import SimCluster
from k3s.sim.user import User

APPS, BATCH = "apps/v1", "batch/v1"


@dataclass(frozen=True, slots=True)
class Stage:
    """What a scenario has at hand."""

    cluster: SimCluster
    user: User
    namespace: str

    async def open(self) -> None:
        """Makes the namespace."""
        await self.user.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})

    def key(self, name: str) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{name}"

    def below(self, limit: int) -> int:
        """A number from the seed."""
        return self.user.entropy.below(limit)

    def meta(self, name: str) -> Object:
        """The metadata of an object here."""
        return {"name": name, "namespace": self.namespace, "labels": {"app": name}}


Scenario = Callable[[Stage], Awaitable[None]]


def template(app: str, image: str = "app:1", *, command: tuple[str, ...] = (), restart: str = "Always") -> Object:
    """A pod template."""
    container: Object = {"name": "main", "image": image, "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}}}
    if command:
        container["command"] = list(command)
    spec = {"containers": [container], "restartPolicy": restart, "terminationGracePeriodSeconds": 5}
    return {"metadata": {"labels": {"app": app}}, "spec": spec}


def service(stage: Stage, name: str, *, headless: bool = False) -> Object:
    """A Service for the pods of an app."""
    spec: Object = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    if headless:
        spec["clusterIP"] = "None"
    return {"apiVersion": "v1", "kind": "Service", "metadata": stage.meta(name), "spec": spec}


def workload(stage: Stage, kind: str, name: str, pod: Object, **spec: object) -> Object:
    """A Deployment, StatefulSet or DaemonSet."""
    full = {"selector": {"matchLabels": {"app": name}}, "template": pod, **spec}
    return {"apiVersion": APPS, "kind": kind, "metadata": stage.meta(name), "spec": full}


def image_patch(number: int) -> Object:
    """A patch that asks for another version of the app."""
    pod = template("x", f"app:{number}")["spec"]
    return {"spec": {"template": {"spec": {"containers": pod["containers"]}}}}


async def deployment(stage: Stage) -> None:
    """5 → 8 → 2 replicas behind a Service, with roll-outs between."""
    user, key = stage.user, stage.key("web")
    await user.create(workload(stage, "Deployment", "web", template("web"), replicas=5))
    await user.create(service(stage, "web"))
    for replicas in (8, 2 + stage.below(3), 2):
        await user.pause(1, 60)
        await user.patch(APPS, "Deployment", key, {"spec": {"replicas": replicas}})
        if stage.below(2):
            await user.pause(0, 30)
            await user.patch(APPS, "Deployment", key, image_patch(2 + stage.below(3)))


async def scaling(stage: Stage) -> None:
    """5 → 8 → 2 replicas, nothing else."""
    user, key = stage.user, stage.key("only")
    await user.create(workload(stage, "Deployment", "only", template("only"), replicas=5))
    for replicas in (8, 2):
        await user.pause(5, 60)
        await user.patch(APPS, "Deployment", key, {"spec": {"replicas": replicas}})


async def stateful(stage: Stage) -> None:
    """A StatefulSet that is scaled and rolled, and whose pods are deleted by hand."""
    user, key = stage.user, stage.key("db")
    policy = "Parallel" if stage.below(2) else "OrderedReady"
    await user.create(service(stage, "db", headless=True))
    await user.create(
        workload(stage, "StatefulSet", "db", template("db"), replicas=3, serviceName="db", podManagementPolicy=policy)
    )
    for _ in range(3):
        await user.pause(5, 60)
        match stage.below(3):
            case 0:
                await user.patch(APPS, "StatefulSet", key, {"spec": {"replicas": 1 + stage.below(4)}})
            case 1:
                await user.patch(APPS, "StatefulSet", key, image_patch(2 + stage.below(3)))
            case _:
                await user.delete("v1", "Pod", stage.key(f"db-{stage.below(3)}"))


async def job(stage: Stage) -> None:
    """A Job that runs to completion, one that cannot, and one with an index for each pod."""
    user = stage.user
    ends = ("sh", "-c", f"sleep {1 + stage.below(20)}; exit 0")
    for name, command, spec in (
        ("good", ends, {"completions": 5, "parallelism": 2}),
        ("bad", ("sh", "-c", "sleep 1; exit 3"), {"backoffLimit": 2}),
        ("each", ends, {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}),
    ):
        pod = template(name, command=command, restart="Never")
        # What is killed by the storm counts as a failure; only the bad one should have too many.
        full = {"template": pod, "backoffLimit": 50, **spec}
        await user.create({"apiVersion": BATCH, "kind": "Job", "metadata": stage.meta(name), "spec": full})
        await user.pause(0, 10)


async def daemons(stage: Stage) -> None:
    """A DaemonSet on nodes that come and go, rolled once."""
    user, key = stage.user, stage.key("agent")
    await user.create(workload(stage, "DaemonSet", "agent", template("agent")))
    await user.pause(10, 60)
    node = stage.cluster.add_node()
    stage.cluster.tell(node.name, "joins")
    node.start()
    await user.pause(5, 60)
    await user.patch(APPS, "DaemonSet", key, image_patch(2))
    await user.pause(5, 60)
    if stage.below(2):
        stage.cluster.tell(node.name, "leaves for ever")
        await stage.cluster.remove_node(node.name)
        await user.delete("v1", "Node", node.name)


async def flapping(stage: Stage) -> None:
    """Pods whose readiness changes, behind a Service."""
    user = stage.user
    pod = template("flap")
    probe = {"exec": {"command": ["ready?"]}, "periodSeconds": 5, "failureThreshold": 1}
    pod["spec"]["containers"][0]["readinessProbe"] = probe
    await user.create(service(stage, "flap"))
    await user.create(workload(stage, "Deployment", "flap", pod, replicas=3))
    for _ in range(3):
        await user.pause(5, 40)
        stage.cluster.unready = f"flap-{stage.below(3)}"
    stage.cluster.unready = ""


async def namespace_deleted(stage: Stage) -> None:
    """A namespace that is deleted with all that is in it, and made again."""
    user = stage.user
    await user.create(workload(stage, "Deployment", "web", template("web"), replicas=3))
    await user.create(service(stage, "web"))
    await user.create(workload(stage, "StatefulSet", "db", template("db"), replicas=2, serviceName="db"))
    for number in range(3):
        await user.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": stage.meta(f"c{number}")})
    await user.pause(5, 60)
    await user.delete("v1", "Namespace", stage.namespace)
    if stage.below(2):
        await user.pause(0, 60)
        await stage.open()
        while not await user.exists("v1", "Namespace", stage.namespace):
            await user.pause(1, 5)
            await stage.open()


async def cascades(stage: Stage) -> None:
    """Owners deleted in the foreground, in the background, and their dependents left alone."""
    user = stage.user
    for name, policy in (("fore", "Foreground"), ("back", "Background"), ("orphan", "Orphan")):
        await user.create(workload(stage, "Deployment", name, template(name), replicas=2))
        await user.pause(1, 30)
        await user.delete(APPS, "Deployment", stage.key(name), policy)


#: Every scenario, by the name that the story gives it.
ALL: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (deployment, scaling, stateful, job, daemons, flapping, namespace_deleted, cascades)
}
