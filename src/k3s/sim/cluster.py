"""A cluster of real parts under virtual time: the server process on a store in memory, kubelets on runtimes in memory.

Any process can crash and be started again; what it had written stays. Faults come from `faults`, what must hold is
watched by `invariants`.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from k3s import VERSION
from k3s.api.errors import ApiError, OutcomeUnknown, ServiceUnavailable
from k3s.apiserver import identity
from k3s.apiserver.identity import User
from k3s.base.aio import Tasks
from k3s.base.clock import LoopClock
from k3s.base.entropy import SeededEntropy
from k3s.base.story import Story
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.client.transport import Request, Response, Transport, WatchEvent
from k3s.cluster.certs import Certificates
from k3s.cluster.tokens import Secrets
from k3s.kubelet.host import FakeHost
from k3s.kubelet.node import Identity
from k3s.kubelet.runtime.fake import FakeRuntime
from k3s.kubelet.runtime.interface import POD_NAME, RUNNING, Container, ExecResult, Sandbox
from k3s.kubelet.service import Kubelet, KubeletConfig
from k3s.run.server import ControlPlane
from k3s.run.serverconfig import ServerConfig
from k3s.run.supervisor import Service, ServiceFailed, Supervisor
from k3s.sim import loop as virtual
from k3s.sim.disk import Disk, Session
from k3s.sim.faults import CALM, FaultyTransport, Sky, Weather
from k3s.sim.invariants import Findings, Ledger, SharedObjects, WatchedStore
from k3s.sim.pods import PodRules
from k3s.store.interface import StoreError

log = logging.getLogger(__name__)

# 2026-01-01T00:00:00Z: when every simulated cluster begins.
EPOCH = 1767225600.0
ADMIN = identity.authenticated(identity.ADMIN, identity.MASTERS)
_DECIDERS = ("informers", "controllers", "scheduler")


@lru_cache(maxsize=1)
def credentials() -> Certificates:
    """The certificates of all simulated clusters of this process: nobody connects, but the server reads them."""
    folder = tempfile.TemporaryDirectory(prefix="k3s-sim-")
    certificates = _Certificates(Path(folder.name), LoopClock(EPOCH), ["127.0.0.1"])
    certificates.keep = folder
    virtual.run("certificates", certificates.ensure())
    return certificates


class _Certificates(Certificates):
    keep: object  # removes the folder at the end of the process


@dataclass(frozen=True, slots=True)
class Shape:
    """What a cluster is made of, and the store that it runs on."""

    nodes: int = 3
    weather: Weather = CALM
    store: type[WatchedStore] = WatchedStore


class SimRuntime(FakeRuntime):
    """A runtime that tells the rules what starts."""

    rules: PodRules
    node: str

    async def start_container(self, container_id: str) -> None:
        """Starts a container."""
        await super().start_container(container_id)
        self.rules.started(self.node, self._container(container_id))

    def running(self) -> list[Container]:
        """The containers that run."""
        return [container for container in self._containers.values() if container.state == RUNNING]

    def ready_sandboxes(self) -> list[Sandbox]:
        """The sandboxes that are up."""
        return [sandbox for sandbox in self._sandboxes.values() if sandbox.ready]


class Link:
    """The way of one user to whatever server process runs now; notes what was acknowledged and handed out."""

    def __init__(self, cluster: SimCluster, user: User) -> None:
        self._cluster = cluster
        self._user = user

    async def send(self, request: Request) -> Response:
        """Answers a request. Raises ApiError, OutcomeUnknown when the server died meanwhile."""
        server = self._server()
        try:
            response = await server.local(self._user).send(request)
        except (ApiError, StoreError) as error:
            if not server.alive:
                raise OutcomeUnknown("the server died") from error
            raise
        if not server.alive:
            raise OutcomeUnknown("the server died")
        return response

    async def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """The events of a watch, until the server dies."""
        server = self._server()
        stream = server.local(self._user).watch(request)
        try:
            async for event in stream:
                if not server.alive:
                    break
                yield event
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        if not server.alive:
            raise ServiceUnavailable("the server died")

    async def close(self) -> None:
        """Nothing to do."""

    def _server(self) -> Server:
        server = self._cluster.server
        if server is None or not server.serves:
            raise ServiceUnavailable("connection refused: the server is down")
        return server


class Noting:
    """A Transport that tells the ledger what was acknowledged, and the detector what was handed out."""

    def __init__(self, inner: Transport, ledger: Ledger, shared: SharedObjects) -> None:
        self._inner = inner
        self._ledger = ledger
        self._shared = shared

    async def send(self, request: Request) -> Response:
        """Answers a request."""
        response = await self._inner.send(request)
        self._shared.handed_out(response.body)
        self._ledger.acknowledged(request, response)
        return response

    async def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """The events of a watch."""
        stream = self._inner.watch(request)
        try:
            async for event in stream:
                self._shared.handed_out(event.object)
                yield event
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def close(self) -> None:
        """Closes what it wraps."""
        await self._inner.close()


class Process:
    """Services under a supervisor, that can be killed. A service that fails by itself is a finding."""

    def __init__(self, name: str, services: list[Service], findings: Findings) -> None:
        present = {service.name for service in services}
        here = [replace(s, needs=tuple(need for need in s.needs if need in present)) for s in services]
        self.name = name
        self.ready = asyncio.Event()
        self._supervisor = Supervisor(here, LoopClock(EPOCH))
        self._findings = findings
        self._tasks = Tasks(name)
        self._killed = False
        self._tasks.spawn(self._run(), "run")

    async def _run(self) -> None:
        try:
            await self._supervisor.run(asyncio.Event(), self.ready.set)
        except ServiceFailed as failure:
            if not self._killed:
                self._findings.add("part failed", self.name, str(failure))

    async def kill(self) -> None:
        """Ends it without asking."""
        self._killed = True
        await self._tasks.close()


class Server:
    """One life of the server process: the API, and the deciders that can die and come back alone."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self.alive = True
        self._deciding: list[bool] = []
        self.session = Session(cluster.store, cluster.sky, cluster.disk)
        self.plane = ControlPlane(
            _config(),
            self.session,
            credentials(),
            Secrets("server", "agent"),
            cluster.clock,
            cluster.entropy,
            self._through,
        )
        self.plane.story = cluster.story
        services = self.plane.services()
        self._decider_services = [service for service in services if service.name in _DECIDERS]
        self.api = Process("api", [s for s in services if s.name not in _DECIDERS], cluster.findings)
        self.deciders: Process | None = None

    @property
    def serves(self) -> bool:
        """Whether requests are answered."""
        return self.alive and self.api.ready.is_set()

    def local(self, user: User) -> Transport:
        """The server as a user on another machine sees it."""
        return Noting(LocalTransport(self.plane.api.handler(user)), self._cluster.ledger, self._cluster.shared)

    def _through(self, user: User, transport: Transport) -> Transport:
        # Made anew with each start of the deciders: those of a life that ended may send nothing more.
        life = len(self._deciding) - 1
        noting = Noting(transport, self._cluster.ledger, self._cluster.shared)
        return FaultyTransport(noting, self._cluster.sky, lambda: self.alive and (life < 0 or self._deciding[life]))

    def decide(self) -> None:
        """Starts controllers and scheduler."""
        self._deciding.append(True)
        self.deciders = Process("deciders", self._decider_services, self._cluster.findings)

    async def stop_deciding(self) -> None:
        """Kills controllers and scheduler."""
        if self.deciders is not None:
            self._deciding[-1] = False
            await self.deciders.kill()
            self.deciders = None

    async def kill(self) -> None:
        """Kills the process."""
        self.alive = self.session.alive = False
        await self.stop_deciding()
        await self.api.kill()


class Node:
    """A machine: its runtime outlives its kubelet, as containerd does."""

    def __init__(self, cluster: SimCluster, number: int) -> None:
        self.name = f"n{number}"
        self._cluster = cluster
        self._number = number
        self.runtime = SimRuntime(cluster.clock, prefix=f"10.42.{number}.", start_s=0.05, pull_s=0.2)
        self.runtime.rules, self.runtime.node = cluster.pods, self.name
        self.runtime.on_exec = self._probed
        self.connected = True
        self._life = 0
        self._process: Process | None = None

    def _probed(self, container: Container, command: Sequence[str]) -> ExecResult:
        # Every third pod is named, by a number that the seed gave it.
        name, _, number = self._cluster.unready.rpartition("-")
        pod = container.labels[POD_NAME]
        unready = bool(number) and pod.startswith(name) and zlib.crc32(pod.encode()) % 3 == int(number)
        return ExecResult(1 if unready else 0, b"", b"")

    @property
    def runs(self) -> bool:
        """Whether its kubelet runs."""
        return self._process is not None

    def start(self) -> None:
        """Starts the kubelet."""
        if self._process is not None:
            return
        cluster, self._life = self._cluster, self._life + 1
        life = self._life
        user = identity.authenticated(identity.NODE_PREFIX + self.name, identity.NODES)
        transport = FaultyTransport(
            Link(cluster, user),
            cluster.sky,
            lambda: self._life == life and self._process is not None and self.connected,
        )
        address = f"192.0.2.{self._number}"
        config = KubeletConfig(Identity(self.name, (address,), hostname=self.name, version=VERSION))
        self.kubelet = Kubelet(config, Client(transport), self.runtime, cluster.clock, cluster.entropy, host=FakeHost())
        self._process = Process(self.name, [Service("kubelet", self.kubelet.run)], cluster.findings)

    async def crash(self) -> None:
        """Kills the kubelet; containers go on."""
        process, self._process = self._process, None
        if process is not None:
            await process.kill()

    async def power_off(self) -> None:
        """The machine is off: nothing runs on it any more."""
        await self.crash()
        self.runtime.crash()


class SimCluster:
    """The whole; made by `simulated`."""

    def __init__(self, seed: int | str, shape: Shape) -> None:
        self.seed = seed
        self.shape = shape
        self.clock = LoopClock(EPOCH)
        self.entropy = SeededEntropy(f"cluster {seed}")
        self.sky = Sky(SeededEntropy(f"sky {seed}"), shape.weather)
        self.disk = Disk(SeededEntropy(f"disk {seed}"))
        self.story = Story(1 << 16)
        self.findings = Findings(self.clock)
        self.store = shape.store()
        self.ledger = Ledger(self.store, self.findings)
        self.shared = SharedObjects(self.findings)
        self.pods = PodRules(self.findings, self.clock, self.running)
        self.store.watchers.append(self.pods.written)
        self.server: Server | None = None
        self.nodes: dict[str, Node] = {}
        self._machines = 0
        #: `<app>-<0..2>`: that third of the app's pods is not ready when it is probed.
        self.unready = ""
        self.tasks = Tasks("simulation", lambda name, error: self.findings.add("simulation", name, repr(error)))
        for _ in range(shape.nodes):
            self.add_node()

    def client(self, user: User = ADMIN) -> Client:
        """A client in good weather, with the rights of an administrator."""
        return Client(Link(self, user))

    def add_node(self) -> Node:
        """One more machine, off."""
        self._machines += 1
        node = Node(self, self._machines)
        self.nodes[node.name] = node
        return node

    async def remove_node(self, name: str) -> None:
        """A machine that goes and does not come back."""
        await self.nodes.pop(name).power_off()

    async def start_server(self) -> None:
        """Starts the server process and waits until it answers."""
        self.tell("server", "starts")
        self.server = Server(self)
        await self.server.api.ready.wait()
        self.server.decide()

    async def crash_server(self) -> None:
        """Kills the server process."""
        self.tell("server", "crashes")
        server, self.server = self.server, None
        if server is not None:
            await server.kill()

    def running(self) -> dict[str, list[Container]]:
        """The running containers of each node."""
        return {name: node.runtime.running() for name, node in self.nodes.items()}

    def tell(self, key: str, what: str) -> None:
        """A line of the story."""
        self.story.tell(self.clock.now(), "sim", key, what)

    async def stop(self) -> None:
        """Ends everything."""
        await self.tasks.close()
        for node in self.nodes.values():
            await node.crash()
            await node.runtime.close()
        await self.crash_server()


def _config() -> ServerConfig:
    return ServerConfig(
        data_dir=Path("/nowhere"),
        bind_address="",
        port=6443,
        advertise_address="192.0.2.100",
        advertise_port=6443,
        cluster_cidr="10.42.0.0/16",
        service_cidr="10.43.0.0/16",
        node_ports=(30000, 32767),
        cluster_dns="10.43.0.10",
        cluster_domain="cluster.local",
        flannel_backend="host-gw",
        service_ip="10.43.0.1",
        # So little that whoever was away for half a minute may have to begin again.
        compaction_s=10.0,
        history_kept=20,
        cache_ring=8,
    )


@asynccontextmanager
async def simulated(seed: int | str, shape: Shape) -> AsyncIterator[SimCluster]:
    """A cluster whose server answers and whose kubelets were started."""
    cluster = SimCluster(seed, shape)
    try:
        await cluster.start_server()
        for node in cluster.nodes.values():
            node.start()
        yield cluster
    finally:
        await cluster.stop()
