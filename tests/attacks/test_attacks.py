"""Attacks on the API server, over the wire: each test is one, and shows that it fails.

Redirects are in `test_redirects`; more about tokens is in `unit/apiserver/test_authn` and `test_oidc`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.attacks.scene import NODE, POD, ROLE, may, node, scene
from tests.fakes.server import Caller, serving

from k3s.api.errors import Forbidden, Invalid
from k3s.api.kinds import builtin
from k3s.apiserver.identity import NODES, User, authenticated
from k3s.client.client import Client
from k3s.client.local import LocalTransport

Run = Callable[[Any], Any]
_PODS = "/api/v1/namespaces/default/pods"
_REQUEST = builtin("certificates.k8s.io/v1", "CertificateSigningRequest")
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket"}


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
        async with scene(may("nodes/proxy", "get")) as here:
            alice, kubelet = here.alice, here.kubelet
            await alice.send("GET", f"/api/v1/nodes/n1/proxy/{path}", **_UPGRADE)
            status, _, body = await alice.answer()
            assert status == 403 and b'cannot create resource \\"nodes/proxy\\"' in body
            assert not kubelet.came

    run(check())


def test_double_encoded_paths_stay_encoded_and_nothing_is_smuggled(run: Run) -> None:
    """What the kubelet decodes is what was authorized; line ends in a path do not begin another request."""

    async def check() -> None:
        async with scene(may("nodes/proxy", "get")) as here:
            alice, kubelet = here.alice, here.kubelet
            await alice.send("GET", "/api/v1/nodes/n1/proxy/%2565xec/default/p/c?command=id")
            assert (await alice.answer())[0] == 200
            assert kubelet.came.startswith(b"GET /%2565xec/default/p/c?command=id HTTP/1.1\r\n")
            kubelet.came = b""
            smuggled = "x%20HTTP/1.1%0D%0AHost:%20n%0D%0A%0D%0APOST%20/run/default/p/c%20HTTP/1.1%0D%0A%0D%0A"
            await alice.send("GET", f"/api/v1/nodes/n1/proxy/{smuggled}")
            assert (await alice.answer())[0] == 200
            assert b"\r\nPOST" not in kubelet.came and kubelet.came.count(b"\r\n\r\n") == 1

    run(check())


def test_exec_by_get_needs_the_right_to_create(run: Run) -> None:
    """A viewer with get on pods/exec, as many old roles give it, does not run commands."""

    async def check() -> None:
        async with scene(may("pods/exec pods/attach pods/portforward", "get")) as here:
            for part in ("exec", "attach", "portforward"):
                status, body = await here.alice.call("GET", f"{_PODS}/p/{part}")
                assert status == 403 and f'cannot create resource "pods/{part}"' in body["message"]
            assert not here.kubelet.dials

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
        async with scene() as here:
            status, _ = await here.alice.call("GET", "/api/v1/secrets", **headers)
            assert status in (400, 403)

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
        async with scene({"nonResourceURLs": ["/healthz*", "/livez*"], "verbs": ["get"]}) as here:
            await here.alice.send("GET", path)
            status, _, body = await here.alice.answer()
            assert status in (403, 404) and b"SecretList" not in body

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


def test_a_refused_upgrade_leaves_no_connection_to_use(run: Run) -> None:
    """CVE-2018-1002105: what follows a refused upgrade is not the kubelet's to answer, with the server's own rights."""

    async def check() -> None:
        async with scene(may("pods/exec", "get create")) as here:
            here.kubelet.answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
            await here.alice.send("GET", f"{_PODS}/p/exec?command=id&stdout=true", **_UPGRADE)
            await here.alice.send("POST", "/run/default/p/c?cmd=id", b"x", Connection="close")
            assert (await here.alice.answer())[0] == 500
            await asyncio.wait_for(here.kubelet.ended.wait(), 5)
            assert here.alice.reader is not None
            rest = await asyncio.wait_for(here.alice.reader.read(), 5)
            assert not rest or b" 403 " in rest.partition(b"\r\n")[0]  # at the most the API server's own word
            assert here.kubelet.came.startswith(b"GET /exec/default/p/c?command=id&output=1 HTTP/1.1\r\n")
            assert here.kubelet.came.count(b"\r\n\r\n") == 1 and len(here.kubelet.dials) == 1

    run(check())


def _tokens(cache: Any) -> tuple[Any, Any]:
    """An issuer of tokens, and who checks them."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from k3s.apiserver import tokenissuer, tokens
    from k3s.apiserver.tokenkeys import Signer
    from k3s.base.clock import SystemClock
    from k3s.base.entropy import SeededEntropy

    key = rsa.generate_private_key(65537, 2048)
    signer = Signer(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    settings, clock = tokens.settings("cluster.local"), SystemClock()
    issuer = tokenissuer.Issuer(cache, signer, settings, clock, SeededEntropy(1))
    return issuer, tokens.Verifier(cache, [signer.public], settings, clock)


def test_tokens_for_others_and_changed_ones_are_no_credentials(run: Run) -> None:
    """What a pod gives to a vault does not let the vault act as the pod; no claim and no algorithm can be changed."""
    import base64
    import json

    def coded(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    async def check() -> None:
        async with scene(tokens=_tokens) as here:
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "s", "namespace": "default"}}
            await here.admin.create(builtin("v1", "ServiceAccount"), account)
            admin = Caller(here.server.ports[0])

            async def token(*audiences: str) -> str:
                path = "/api/v1/namespaces/default/serviceaccounts/s/token"
                _, said = await admin.call("POST", path, {"spec": {"audiences": list(audiences)}})
                return str(said["status"]["token"])

            async def asks(text: str) -> int:
                caller = Caller(here.server.ports[0], text)
                status, _ = await caller.call("GET", "/api")
                caller.close()
                return status

            good = await token()
            assert await asks(good) == 200
            assert await asks(await token("vault")) == 401
            header, claims, signature = good.split(".")
            changed = json.loads(base64.urlsafe_b64decode(claims + "=="))
            changed["sub"] = "system:serviceaccount:kube-system:admin"
            assert await asks(f"{header}.{coded(changed)}.{signature}") == 401
            assert await asks(f"{coded({'alg': 'none', 'typ': 'JWT'})}.{claims}.") == 401
            await here.admin.delete(builtin("v1", "ServiceAccount"), "default", "s")
            assert await asks(good) == 401
            admin.close()

    run(check())


def test_rights_are_not_gathered_by_labels(run: Run) -> None:
    """Who may change roles, but not hand out their rights, has none of them gathered into a role of his own."""
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    rule = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["get", "patch"]}

    async def check() -> None:
        async with scene(rule) as here:
            label = {"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}}
            kind = "application/merge-patch+json"
            status, said = await here.alice.call("PATCH", f"{path}/cluster-admin", label, Content_Type=kind)
            assert status == 403 and "not currently held" in said["message"]
            grown = {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
            status, said = await here.alice.call("PATCH", f"{path}/alices", grown, Content_Type=kind)
            assert status == 403 and "not currently held" in said["message"]
            assert (await here.admin.get(ROLE, "", "alices"))["rules"] == [rule]

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
        async with scene() as here:
            await here.admin.create(NODE, node("n2"))
            thief = Client(LocalTransport(here.server.handler(authenticated("system:node:n1", NODES))))
            cordoned = {"spec": {"unschedulable": True}}
            trusted = {"metadata": {"labels": {"node-restriction.kubernetes.io/trust": "high"}}}
            for name, patch in (("n2", cordoned), ("n1", trusted), ("n1", {"spec": {"taints": [{"key": "a"}]}})):
                with pytest.raises(Forbidden):
                    await thief.patch(NODE, "", name, patch)
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "evil", "namespace": "kube-system"},
                "spec": {"nodeName": "n1", "serviceAccountName": "admin", "containers": [{"name": "c", "image": "i"}]},
            }
            with pytest.raises(Forbidden):
                await thief.create(POD, pod)
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
