"""Where attacks happen: a server with a node, and alice, who may do what a test says and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.fakes.server import Caller, serving

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.nodes import Nodes
from k3s.apiserver.server import ApiServer
from k3s.base.duplex import Duplex, connect
from k3s.client.client import Client
from k3s.client.local import LocalTransport

NODE, POD = builtin("v1", "Node"), builtin("v1", "Pod")
ROLE = builtin("rbac.authorization.k8s.io/v1", "ClusterRole")
_BINDING = builtin("rbac.authorization.k8s.io/v1", "ClusterRoleBinding")


def node(name: str) -> Object:
    """A node whose kubelet is reached for at an address of documentation."""
    status = {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}


def pod(name: str, on: str) -> Object:
    """A pod that is bound to a node."""
    spec = {"nodeName": on, "containers": [{"name": "c", "image": "i"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


class Kubelet:
    """Answers every request with `answer`; `came` is what was sent to it, `dials` where it was reached for.

    `ended` is set when a connection to it has come to its end.
    """

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.came = b""
        self.dials: list[tuple[str, int]] = []
        self.ended = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def dial(self, host: str, port: int, tls: Any) -> Duplex:
        """Connects here, wherever the request was to go."""
        self.dials.append((host, port))
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return await connect("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        while more := await reader.read(65536):
            self.came += more
        writer.close()
        self.ended.set()


class _Reader:
    """What `Nodes` reads, set once the server is there."""

    server: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server.cache, name)


@dataclass(frozen=True, slots=True)
class Scene:
    """The server, a client that may everything, alice's connection, and the kubelet of n1."""

    server: ApiServer
    admin: Client
    alice: Caller
    kubelet: Kubelet


@asynccontextmanager
async def scene(*rules: Object, **more: Any) -> AsyncIterator[Scene]:
    """A server with node n1 and its pod p, where alice has the rights of `rules`."""
    kubelet, reader = Kubelet(), _Reader()
    nodes = Nodes(reader, None, kubelet.dial)  # type: ignore[arg-type]
    async with serving(nodes=nodes, **more) as server:
        reader.server = server
        admin = Client(LocalTransport(server.itself()))
        await admin.create(NODE, node("n1"))
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"},
        }
        await admin.create(builtin("v1", "ServiceAccount"), account)
        await admin.create(POD, pod("p", "n1"))
        group = "rbac.authorization.k8s.io"
        role = {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "alices"},
            "rules": list(rules),
        }
        await admin.create(ROLE, role)
        bound = {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "alices"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "alices"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "alice"}],
        }
        await admin.create(_BINDING, bound)
        alice = Caller(server.ports[0], "ali")
        try:
            yield Scene(server, admin, alice, kubelet)
        finally:
            alice.close()


def may(resources: str, verbs: str) -> Object:
    """A rule about resources of the core group, both lists separated by spaces."""
    return {"apiGroups": [""], "resources": resources.split(), "verbs": verbs.split()}
