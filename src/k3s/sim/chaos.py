"""Crashes of processes and machines, at moments that the seed chooses, and their return."""

from __future__ import annotations

import asyncio

from k3s.base.aio import Tasks
from k3s.base.entropy import Entropy
from k3s.sim.cluster import Node, SimCluster
from k3s.sim.disk import FAULTS, WELL

#: What can happen: (weight, name).
_BLOWS = (
    (3, "server"),
    (4, "deciders"),
    (5, "kubelet"),
    (2, "partition"),
    (2, "machine"),
    (4, "container"),
    (4, "compaction"),
    (4, "disk"),
)


class Chaos:
    """Strikes while `run` runs; `over` brings everything back."""

    def __init__(self, cluster: SimCluster, entropy: Entropy, every_s: float = 20.0) -> None:
        self._cluster = cluster
        self._entropy = entropy
        self._every_s = every_s
        self._hurt: set[str] = set()
        self._tasks = Tasks("chaos")

    async def run(self) -> None:
        """Strikes until cancelled."""
        while True:
            await asyncio.sleep(2 * self._every_s * self._entropy.fraction())
            what = self._choose()
            if what in self._hurt:
                continue
            self._tasks.spawn(self._strike(what), what)

    def _choose(self) -> str:
        names = [name for weight, name in _BLOWS for _ in range(weight)]
        return names[self._entropy.below(len(names))]

    def _node(self) -> Node | None:
        nodes = list(self._cluster.nodes.values())
        node = nodes[self._entropy.below(len(nodes))] if nodes else None
        return node if node is not None and node.name not in self._hurt else None

    async def _for(self, least_s: float, most_s: float) -> None:
        await asyncio.sleep(least_s + (most_s - least_s) * self._entropy.fraction())

    async def _strike(self, what: str) -> None:
        whole = {"server": self._server, "deciders": self._deciders, "disk": self._disk}
        if what in whole:
            self._hurt.add(what)
            try:
                await whole[what]()
            finally:
                self._hurt.discard(what)
            return
        if what == "compaction":
            await self._compaction()
            return
        node = self._node()
        if node is None or not node.runs:
            return
        if what == "container":
            self._container(node)
            return
        self._hurt.add(node.name)
        try:
            await {"kubelet": self._kubelet, "partition": self._partition, "machine": self._machine}[what](node)
        finally:
            self._hurt.discard(node.name)

    async def _server(self) -> None:
        await self._cluster.crash_server()
        await self._for(0.5, 20)
        # One that cannot write when it starts ends, and is started again until it can.
        await self._cluster.disk.well()
        await self._cluster.start_server()

    async def _disk(self) -> None:
        fault = FAULTS[self._entropy.below(len(FAULTS))]
        self._cluster.tell("store", f"its disk {fault}")
        self._cluster.disk.goes(fault)
        await self._for(0.5, 40)
        self._cluster.tell("store", f"its disk {WELL}")
        self._cluster.disk.goes(WELL)
        # The datastore tries by itself every two seconds.
        await self._for(0, 2)
        self._recover()

    def _recover(self) -> None:
        if self._cluster.server is not None:
            self._cluster.server.session.recovered()

    async def _compaction(self) -> None:
        """Forgets almost everything at once: whoever resumes from before has to begin again."""
        store = self._cluster.store
        revision = store.revision() - self._entropy.below(30)
        self._cluster.tell("store", f"compacts to {revision}")
        await store.compact(max(0, revision))

    async def _deciders(self) -> None:
        server = self._cluster.server
        if server is None or server.deciders is None:
            return
        self._cluster.tell("deciders", "crash")
        await server.stop_deciding()
        await self._for(0.1, 15)
        if server is self._cluster.server and server.deciders is None:
            self._cluster.tell("deciders", "start")
            server.decide()

    async def _kubelet(self, node: Node) -> None:
        self._cluster.tell(node.name, "kubelet crashes")
        await node.crash()
        await self._for(0.1, 30)
        self._back(node, "kubelet starts")

    async def _partition(self, node: Node) -> None:
        self._cluster.tell(node.name, "is cut off")
        node.connected = False
        await self._for(5, 500)
        self._cluster.tell(node.name, "is connected again")
        node.connected = True

    async def _machine(self, node: Node) -> None:
        self._cluster.tell(node.name, "power fails")
        await node.power_off()
        await self._for(10, 600)
        self._back(node, "power is back")

    def _back(self, node: Node, how: str) -> None:
        if node.name in self._cluster.nodes:
            self._cluster.tell(node.name, how)
            node.start()

    def _container(self, node: Node) -> None:
        running = node.runtime.running()
        if running:
            victim = running[self._entropy.below(len(running))]
            self._cluster.tell(node.name, f"container of {victim.labels.get('io.kubernetes.pod.name')} is killed")
            node.runtime.exit(victim.id, 137, "Error")

    async def over(self) -> None:
        """Ends what is going on and brings everything back that is down."""
        await self._tasks.close()
        cluster = self._cluster
        cluster.disk.goes(WELL)
        self._recover()
        if cluster.server is None:
            await cluster.start_server()
        elif cluster.server.deciders is None:
            cluster.server.decide()
        for node in cluster.nodes.values():
            node.connected = True
            if not node.runs:
                self._back(node, "power is back")
