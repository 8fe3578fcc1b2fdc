"""Attacks on the API server, over the wire: each test is one, and shows that it fails.

More stand beside what they are about: redirects and paths of other servers (`contract/test_aggregation`), failed
upgrades of kubelets (`unit/apiserver/test_nodes`), tokens (`unit/apiserver/test_authn`, `test_oidc`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.fakes.server import Caller, serving

from k3s.api.errors import Forbidden, Invalid
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.identity import NODES, User, authenticated
from k3s.apiserver.nodes import Nodes
from k3s.base.duplex import Duplex, connect
from k3s.client.client import Client
from k3s.client.local import LocalTransport

Run = Callable[[Any], Any]
_PODS = "/api/v1/namespaces/default/pods"
_NODE = builtin("v1", "Node")
_POD = builtin("v1", "Pod")
_ROLE = builtin("rbac.authorization.k8s.io/v1", "ClusterRole")
_BINDING = builtin("rbac.authorization.k8s.io/v1", "ClusterRoleBinding")
_REQUEST = builtin("certificates.k8s.io/v1", "CertificateSigningRequest")


def _node(name: str, **labels: str) -> Object:
    """A node with the kubelet on this machine."""
    status = {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


async def _allow(admin: Client, rule: Object) -> None:
    """Lets alice do something."""
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [rule]}
    await admin.create(_ROLE, role)
    await admin.create(
        _BINDING,
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "r"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "r"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "alice"}],
        },
    )


class Kubelet:
    """Counts the requests that come, whole ones and smuggled ones."""

    def __init__(self) -> None:
        self.came = b""
        self._server: asyncio.Server | None = None

    async def dial(self, host: str, port: int, tls: Any) -> Duplex:
        """Connects here, wherever the request was to go."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return await connect("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()


class Reader:
    """What `Nodes` reads, set once the server is there."""

    server: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server.cache, name)


@pytest.mark.parametrize(
    "path",
    [
        "exec/default/p/c?command=id&output=1",
        "%65xec/default/p/c?command=id&output=1",
        "/exec/default/p/c?command=id&output=1",
        "attach/default/p/c?output=1",
        "portForward/default/p?port=1",
        "run/default/p/c?cmd=id",
    ],
)
def test_reading_through_a_node_runs_no_commands(run: Run, path: str) -> None:
    """exec over a WebSocket begins with GET: who may only get nodes/proxy must not reach it, however it is spelled."""

    async def check() -> None:
        kubelet, reader = Kubelet(), Reader()
        nodes = Nodes(reader, None, kubelet.dial)  # type: ignore[arg-type]
        async with serving(nodes=nodes) as server:
            reader.server = server
            admin = Client(LocalTransport(server.itself()))
            await admin.create(_NODE, _node("n1"))
            await _allow(admin, {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]})
            alice = Caller(server.ports[0], "ali")
            await alice.send("GET", f"/api/v1/nodes/n1/proxy/{path}", Connection="Upgrade", Upgrade="websocket")
            status, _, body = await alice.answer()
            assert status == 403 and b'cannot create resource \\"nodes/proxy\\"' in body
            assert not kubelet.came
            alice.close()

    run(check())


def test_double_encoded_paths_stay_encoded_and_nothing_is_smuggled(run: Run) -> None:
    """What the kubelet decodes is what was authorized; line ends in a path do not begin another request."""

    async def check() -> None:
        kubelet, reader = Kubelet(), Reader()
        nodes = Nodes(reader, None, kubelet.dial)  # type: ignore[arg-type]
        async with serving(nodes=nodes) as server:
            reader.server = server
            admin = Client(LocalTransport(server.itself()))
            await admin.create(_NODE, _node("n1"))
            await _allow(admin, {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]})
            alice = Caller(server.ports[0], "ali")
            await alice.send("GET", "/api/v1/nodes/n1/proxy/%2565xec/default/p/c?command=id")
            assert (await alice.answer())[0] == 200
            assert kubelet.came.startswith(b"GET /%2565xec/default/p/c?command=id HTTP/1.1\r\n")
            kubelet.came = b""
            smuggled = "x%20HTTP/1.1%0D%0AHost:%20n%0D%0A%0D%0APOST%20/run/default/p/c%20HTTP/1.1%0D%0A%0D%0A"
            await alice.send("GET", f"/api/v1/nodes/n1/proxy/{smuggled}")
            assert (await alice.answer())[0] == 200
            assert b"\r\nPOST" not in kubelet.came and kubelet.came.count(b"\r\n\r\n") == 1
            alice.close()

    run(check())


def test_exec_by_get_needs_the_right_to_create(run: Run) -> None:
    """A viewer with get on pods/exec, as many old roles give it, does not run commands."""

    async def check() -> None:
        async with serving() as server:
            admin = Client(LocalTransport(server.itself()))
            await _allow(
                admin,
                {"apiGroups": [""], "resources": ["pods/exec", "pods/attach", "pods/portforward"], "verbs": ["get"]},
            )
            alice = Caller(server.ports[0], "ali")
            for part in ("exec", "attach", "portforward"):
                status, body = await alice.call("GET", f"{_PODS}/p/{part}")
                assert status == 403 and f'cannot create resource "pods/{part}"' in body["message"]
            alice.close()

    run(check())


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Remote_User": "root", "X_Remote_Group": "system:masters"},
        {"Impersonate_User": "root", "Impersonate_Group": "system:masters"},
        {"Impersonate_Group": "system:masters"},
        {"Impersonate_Uid": "0"},
        {"Impersonate_User": "alice", "Impersonate_Extra_Scopes": "all"},
    ],
)
def test_claimed_identities_do_not_count(run: Run, headers: dict[str, str]) -> None:
    """Who is no front proxy and may not impersonate stays who he is."""

    async def check() -> None:
        async with serving() as server:
            alice = Caller(server.ports[0], "ali")
            status, _ = await alice.call("GET", "/api/v1/secrets", **headers)
            assert status in (400, 403)
            alice.close()

    run(check())


@pytest.mark.parametrize(
    "path",
    [
        "//api/v1/secrets",
        "/api/v1//secrets",
        "/healthz/../api/v1/secrets",
        "/healthz/%2e%2e/api/v1/secrets",
        "/livez%2F..%2Fapi/v1/secrets",
        "/api/v1/namespaces/default/configmaps/../../../secrets",
        "/API/v1/secrets",
    ],
)
def test_paths_do_not_escape(run: Run, path: str) -> None:
    """No spelling of a path is authorized as one thing and answered as another."""

    async def check() -> None:
        async with serving() as server:
            admin = Client(LocalTransport(server.itself()))
            await _allow(admin, {"nonResourceURLs": ["/healthz*", "/livez*"], "verbs": ["get"]})
            alice = Caller(server.ports[0], "ali")
            await alice.send("GET", path)
            status, _, body = await alice.answer()
            assert status in (403, 404) and b"SecretList" not in body
            alice.close()

    run(check())


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
    ],
)
def test_requests_are_not_smuggled(run: Run, head: str) -> None:
    """A body whose length is told in two ways ends the connection; what follows is never read as a request."""

    async def check() -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
            line = f"POST {_PODS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer adm\r\n"
            second = "GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer adm\r\n\r\n"
            writer.write(f"{line}{head}\r\n0\r\n\r\n{second}".encode())
            said = await asyncio.wait_for(reader.read(), 5)
            assert b"gitVersion" not in said and (not said or b" 400 " in said.partition(b"\r\n")[0])
            writer.close()

    run(check())


def _bombs() -> dict[str, tuple[str, bytes]]:
    aliases = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))
    return {
        "deep JSON": ("application/json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "deep JSON list": ("application/json", b"[" * 1_000_000),
        "YAML of a billion laughs": ("application/yaml", f"a0: &a0 lol\n{aliases}\n".encode()),
        "deep YAML": ("application/yaml", b"[" * 100_000),
        "a large body": ("application/json", b'{"a": "' + b"x" * 4_000_000 + b'"}'),
        "deep protobuf": ("application/vnd.kubernetes.protobuf", b"k8s\x00" + b"\x0a\x7f" * 100_000),
    }


@pytest.mark.parametrize("name", _bombs())
def test_bombs_do_not_go_off(run: Run, name: str) -> None:
    """Small bodies that would become large or deep values are refused in no time (CVE-2019-11253)."""
    kind, body = _bombs()[name]

    async def check() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            await caller.send("POST", "/api/v1/namespaces/default/configmaps", body, Content_Type=kind)
            status, _, _ = await asyncio.wait_for(caller.answer(), 10)
            assert status in (400, 413, 422)
            other = Caller(server.ports[0])
            assert (await asyncio.wait_for(other.call("GET", "/version"), 5))[0] == 200
            other.close()
            caller.close()

    run(check())


def test_a_node_stays_in_its_place(run: Run) -> None:
    """A stolen kubelet's identity changes no other node, takes no label of trust, starts no pod with others' rights."""

    async def check() -> None:
        async with serving() as server:
            admin = Client(LocalTransport(server.itself()))
            for name in ("n1", "n2"):
                await admin.create(_NODE, _node(name))
            thief = Client(LocalTransport(server.handler(authenticated("system:node:n1", NODES))))
            cordoned = {"spec": {"unschedulable": True}}
            trusted = {"metadata": {"labels": {"node-restriction.kubernetes.io/trust": "high"}}}
            for name, patch in (("n2", cordoned), ("n1", trusted), ("n1", {"spec": {"taints": [{"key": "a"}]}})):
                with pytest.raises(Forbidden):
                    await thief.patch(_NODE, "", name, patch)
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "evil", "namespace": "kube-system"},
                "spec": {"nodeName": "n1", "serviceAccountName": "admin", "containers": [{"name": "c", "image": "i"}]},
            }
            with pytest.raises(Forbidden):
                await thief.create(_POD, pod)
            with pytest.raises(Forbidden):
                await thief.list(builtin("v1", "Secret"), "kube-system")

    run(check())


def test_nobody_signs_himself_into_masters(run: Run) -> None:
    """A certificate of the API server's client authority for system:masters is not even asked for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    parts = [(NameOID.ORGANIZATION_NAME, "system:masters"), (NameOID.COMMON_NAME, "eve")]
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])
    pem = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    import base64

    body = base64.b64encode(pem.public_bytes(serialization.Encoding.PEM)).decode()
    spec = {"request": body, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    obj = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "e"},
        "spec": spec,
    }

    async def check() -> None:
        async with serving() as server:
            eve = Client(LocalTransport(server.handler(User("eve", ("system:masters",)))))
            with pytest.raises((Forbidden, Invalid), match="system:masters"):
                await eve.create(_REQUEST, obj)

    run(check())
