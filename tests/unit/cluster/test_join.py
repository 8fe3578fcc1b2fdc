"""Joining: tokens, node passwords, the server's routes, and the agent that uses them."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from k3s.api.errors import Forbidden
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy
from k3s.cluster import passwords, pki, tokens
from k3s.cluster.certs import Certificates
from k3s.cluster.fetch import Unreachable, fetch
from k3s.cluster.join import AgentCredentials, Joiner, JoinError, Node, NotYet, node_id, node_password
from k3s.cluster.supervisor import Supervisor
from k3s.cluster.tokens import BadToken

Run = Callable[[Any], Any]
DAY = 86400.0
URL = "https://127.0.0.1:6443"


class Clock(SystemClock):
    """The machine's clock, moved by the test."""

    ahead_s = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_s


class User:
    """An identity as the authenticator gives it."""

    def __init__(self, name: str, *groups: str) -> None:
        self.name = name
        self.groups = groups


class Server:
    """A server's routes, its secrets, and a fetch that reaches it without a network."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.clock = Clock()
        self.certificates = Certificates(folder / "tls", self.clock, ["127.0.0.1", "localhost"])
        run(self.certificates.ensure())
        self.ca = self.certificates.read("server-ca")
        self.secrets = tokens.ensure(folder, self.ca, SeededEntropy(1), "s3cret")
        self.ready = True
        self.nodes: dict[str, str] = {}
        self.asked: list[str] = []
        self.supervisor = Supervisor(
            self.certificates,
            self.clock,
            config=lambda: {"clusterDNS": "10.43.0.10"},
            servers=lambda: ["127.0.0.1:6443"],
            is_ready=lambda: self.ready,
            check_password=self.check_password,
            reserved={"kubernetes.default.svc", "10.43.0.1"},
        )

    async def check_password(self, node: str, password: str) -> None:
        if self.nodes.setdefault(node, password) != password:
            raise Forbidden("another machine")

    def user(self, headers: Mapping[str, str]) -> User | None:
        """Who the basic credentials stand for."""
        text = headers.get("authorization", "").removeprefix("Basic ")
        name, _, password = base64.b64decode(text).decode().partition(":")
        secrets, groups = self.secrets.passwords().get(name, ((), ()))
        return User(name, *groups) if password in secrets else None

    async def fetch(
        self, url: str, method: str, path: str, headers: Mapping[str, str], body: bytes, ca: bytes | None
    ) -> tuple[int, bytes]:
        assert ca is not None or path == "/cacerts", "only the authority is asked for without verifying the server"
        self.asked.append(path)
        lower = {key.lower(): value for key, value in headers.items()}
        answer = await self.supervisor.handle(method, path, lower, self.user(lower), body)
        return answer.status, answer.body

    def joiner(self, folder: Path, token: str = "", node: Node | None = None) -> Joiner:
        text = token or tokens.full("s3cret", "server", self.ca)
        return Joiner(URL, text, node or Node("n1", "pw", ("192.0.2.7",)), folder, self.clock, self.fetch)


@pytest.fixture
def server(tmp_path: Path, run: Run) -> Server:
    return Server(tmp_path / "server", run)


def test_join_gives_certificates(server: Server, tmp_path: Path, run: Run) -> None:
    """After joining a node has its configuration and certificates for keys that never left it."""
    found: AgentCredentials = run(server.joiner(tmp_path / "agent").attempt())
    assert found.config == {"clusterDNS": "10.43.0.10"}
    for name, authority in (
        ("client-kubelet", "client-ca"),
        ("serving-kubelet", "server-ca"),
        ("client-kube-proxy", "client-ca"),
        ("client-k3s-controller", "client-ca"),
    ):
        cert, key = found.certificate(name)
        assert pki.verifies(cert.read_bytes(), server.certificates.read(authority), key.read_bytes()), name
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    kubelet = pki.facts(found.certificate("client-kubelet")[0].read_bytes())
    assert (kubelet.common_name, kubelet.organizations) == ("system:node:n1", ("system:nodes",))
    serving = pki.facts(found.certificate("serving-kubelet")[0].read_bytes())
    assert {"n1", "localhost", "127.0.0.1", "192.0.2.7"} <= set(serving.names)
    proxy = pki.facts(found.certificate("client-kube-proxy")[0].read_bytes())
    assert proxy.common_name == "system:kube-proxy"
    controller = pki.facts(found.certificate("client-k3s-controller")[0].read_bytes())
    assert controller.common_name == "system:k3s-controller"


def test_rejoin_keeps_good_certificates(server: Server, tmp_path: Path, run: Run) -> None:
    """A restart asks for nothing new until a certificate is due, an address is new or the file was changed."""
    folder = tmp_path / "agent"
    first = run(server.joiner(folder).attempt())
    server.asked.clear()
    run(server.joiner(folder).attempt())
    assert not [path for path in server.asked if "kubelet" in path]
    run(server.joiner(folder, node=Node("n1", "pw", ("192.0.2.8",))).attempt())
    assert server.asked.count("/v1-k3s/serving-kubelet.crt") == 1
    first.certificate("client-kubelet")[0].write_bytes(b"broken")
    run(server.joiner(folder, node=Node("n1", "pw", ("192.0.2.8",))).attempt())
    assert server.asked.count("/v1-k3s/client-kubelet.crt") == 1
    server.clock.ahead_s = 246 * DAY
    run(server.joiner(folder, node=Node("n1", "pw", ("192.0.2.8",))).attempt())
    assert server.asked.count("/v1-k3s/client-kube-proxy.crt") == 1


def test_wrong_tokens(server: Server, tmp_path: Path, run: Run) -> None:
    """A wrong secret, a token of another cluster, a name that is taken: told apart, and not tried again."""
    with pytest.raises(JoinError, match="does not know this token"):
        run(server.joiner(tmp_path / "a", "wrong").attempt())
    other = "K10" + "0" * 64 + "::server:s3cret"
    with pytest.raises(JoinError, match="not the one in the token"):
        run(server.joiner(tmp_path / "b", other).attempt())
    assert not (tmp_path / "b" / "server-ca.crt").exists()
    run(server.joiner(tmp_path / "c").attempt())
    with pytest.raises(JoinError, match="another machine"):
        run(server.joiner(tmp_path / "d", node=Node("n1", "other")).attempt())


def test_short_token_trusts_the_first_authority_only(server: Server, tmp_path: Path, run: Run) -> None:
    """Without a hash the authority of the first join is kept: another one later is refused."""
    folder = tmp_path / "agent"
    run(server.joiner(folder, "s3cret").attempt())
    run(server.joiner(folder, "s3cret").attempt())
    (folder / "server-ca.crt").write_bytes(b"another")
    with pytest.raises(JoinError, match="differs from"):
        run(server.joiner(folder, "s3cret").attempt())


def test_waits_for_a_server_that_starts(server: Server, tmp_path: Path, run: Run) -> None:
    """While the API is not ready the join is only not yet possible."""
    server.ready = False
    with pytest.raises(NotYet, match="503"):
        run(server.joiner(tmp_path / "agent").attempt())


@pytest.mark.parametrize(
    ("method", "path", "headers", "user", "status"),
    [
        ("GET", "/ping", {}, None, 200),
        ("GET", "/cacerts", {}, None, 200),
        ("GET", "/v1-k3s/config", {}, None, 401),
        ("GET", "/v1-k3s/config", {}, User("alice", "system:authenticated"), 403),
        ("GET", "/v1-k3s/config", {}, User("node", "k3s:agent"), 200),
        ("GET", "/v1-k3s/apiservers", {}, User("system:node:n", "system:nodes"), 200),
        ("GET", "/v1-k3s/nothing", {}, User("node", "k3s:agent"), 404),
        ("DELETE", "/v1-k3s/config", {}, User("node", "k3s:agent"), 405),
        ("POST", "/v1-k3s/config", {}, User("node", "k3s:agent"), 405),
        ("GET", "/v1-k3s/server-ca.key", {}, User("node", "k3s:agent"), 404),
        ("GET", "/v1-k3s/client-kubelet.crt", {}, User("node", "k3s:agent"), 400),
        ("GET", "/v1-k3s/client-kubelet.crt", {"k3s-node-name": "n"}, User("node", "k3s:agent"), 400),
        ("GET", "/v1-k3s/client-kubelet.crt", {"name": "n"}, User("node", "k3s:agent"), 200),
        ("GET", "/v1-k3s/client-kubelet.crt", {"name": "../x"}, User("node", "k3s:agent"), 400),
        ("GET", "/v1-k3s/client-kubelet.crt", {"name": "N\nx"}, User("node", "k3s:agent"), 400),
        ("GET", "/v1-k3s/client-kubelet.crt", {"name": "m"}, User("system:node:n", "system:nodes"), 403),
        ("GET", "/v1-k3s/client-kubelet.crt", {"name": "n"}, User("system:node:n", "system:nodes"), 200),
        ("GET", "/v1-k3s/serving-kubelet.crt", {"name": "n", "ip": "no"}, User("node", "k3s:agent"), 400),
        ("GET", "/v1-k3s/serving-kubelet.crt", {"name": "kubernetes.default.svc"}, User("node", "k3s:agent"), 403),
        ("GET", "/v1-k3s/serving-kubelet.crt", {"name": "n", "ip": "10.43.0.1"}, User("node", "k3s:agent"), 403),
    ],
)
def test_routes(
    server: Server, run: Run, method: str, path: str, headers: dict[str, str], user: User | None, status: int
) -> None:
    """Who gets which answer of the server's own routes."""
    names = {"name": "k3s-node-name", "ip": "k3s-node-ip"}
    sent = {names.get(key, key): value for key, value in headers.items()}
    if "name" in headers:
        sent["k3s-node-password"] = "pw"
    answer = run(server.supervisor.handle(method, path, sent, user, b""))
    assert answer.status == status, answer.body


def test_keys_of_authorities_never_leave(server: Server, run: Run) -> None:
    """No answer carries the key of an authority, and what is signed is never an authority."""
    node = User("node", "k3s:agent")
    headers = {"k3s-node-name": "n", "k3s-node-password": "pw"}
    secret = [server.certificates.read(f"{name}.key") for name in ("client-ca", "server-ca", "request-header-ca")]
    for path in ("client-kubelet", "serving-kubelet", "client-kube-proxy", "client-k3s-controller", "client-ca"):
        answer = run(server.supervisor.handle("GET", f"/v1-k3s/{path}.crt", headers, node, b""))
        assert answer.status == 200
        assert not any(key in answer.body for key in secret)
    answer = run(server.supervisor.handle("POST", "/v1-k3s/client-kubelet.crt", headers, node, b"nonsense"))
    assert answer.status == 400


# Tokens


def test_token_forms() -> None:
    """Short, full, bootstrap; and what is none."""
    assert tokens.parse(" abc \n") == tokens.Token("abc")
    digest = "a" * 64
    assert tokens.parse(f"K10{digest}::server:x:y") == tokens.Token("x:y", "server", digest)
    assert tokens.parse(f"K10{digest}::abcdef.0123456789abcdef").is_bootstrap
    assert tokens.parse("K10::node:x") == tokens.Token("x", "node", "")
    for bad in ("", "K10", "K10abc::server:x", f"K10{digest}::server", f"K10{digest}::server:"):
        with pytest.raises(BadToken):
            tokens.parse(bad)
    assert "x:y" not in repr(tokens.parse(f"K10{digest}::server:x:y"))


def test_token_files(tmp_path: Path) -> None:
    """Secrets are made once, kept over restarts, changed on request, and linked as node-token."""
    ca, entropy = b"ca", SeededEntropy(2)
    first = tokens.ensure(tmp_path, ca, entropy)
    assert first.server == first.agent
    assert len(first.server) == 32
    assert tokens.ensure(tmp_path, ca, entropy) == first
    assert (tmp_path / "node-token").read_text().strip() == tokens.full(first.server, "server", ca)
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    second = tokens.ensure(tmp_path, ca, entropy, "own", "for-agents")
    assert (second.server, second.agent) == ("own", "for-agents")
    assert os.readlink(tmp_path / "node-token") == "agent-token"
    assert tokens.ensure(tmp_path, ca, entropy) == second
    assert tokens.ensure(tmp_path, ca, entropy, tokens.full("own", "server", ca)).server == "own"
    with pytest.raises(BadToken, match="another certificate authority"):
        tokens.ensure(tmp_path, ca, entropy, tokens.full("own", "server", b"other"))
    assert "own" not in repr(second)


def test_hash_of_a_chain_is_that_of_its_root() -> None:
    """A CA file with intermediates is recognised by its root."""
    clock = SystemClock()
    root = pki.new_authority("root", clock.now()).cert
    other = pki.new_authority("intermediate", clock.now()).cert
    assert tokens.ca_hash(other + root) == tokens.ca_hash(b"# note\n" + other + root)
    assert tokens.ca_hash(root) != tokens.ca_hash(other + root)


def test_password_hash_as_k3s_writes_it() -> None:
    """The text has version, salt and costs; only the right password fits."""
    text = passwords.hashed("pw", bytes(8))
    assert text.startswith("$1:0000000000000000:15:8:1:")
    assert passwords.verifies(text, "pw")
    assert not passwords.verifies(text, "px")
    for bad in ("", "$1:zz:15:8:1:AAAA", "$2:00:15:8:1:AAAA", "$1:00:99:8:1:AAAA", "a:b:c:d:e:f"):
        assert not passwords.verifies(bad, "pw")


def test_machine_identity(tmp_path: Path) -> None:
    """Password and id are made once, for root alone, in folders that do not hide what is beside them."""
    entropy, folder = SeededEntropy(3), tmp_path / "rancher" / "node"
    assert node_password(folder, entropy) == node_password(folder, entropy)
    assert node_id(folder, entropy) == node_id(folder, entropy)
    assert len(node_id(folder, entropy)) == 8
    assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o755


# Over the network


def test_fetch_over_tls(server: Server, run: Run) -> None:
    """The small client verifies the server, sends header and body, and says why when it cannot."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(4) if b"POST" in head else b""
        answer = head.split(b" ")[1] + b" " + body
        if b"/chunked" in head:
            writer.write(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        await writer.drain()
        writer.close()

    async def main() -> None:
        listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server.certificates.server_context())
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        assert await fetch(url, "POST", "/x", {"A": "b"}, b"body", server.ca) == (200, b"/x body")
        assert await fetch(url, "GET", "/chunked", {}, b"", server.ca) == (201, b"abc")
        assert (await fetch(url, "GET", "/cacerts", {}, b"", None))[0] == 200
        foreign = pki.new_authority("foreign", server.clock.now()).cert
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await fetch(url, "GET", "/x", {}, b"", foreign)
        with pytest.raises(Unreachable):
            await fetch(url, "GET", "/x", {"A": "b\r\nC: d"}, b"", server.ca)
        listener.close()
        with pytest.raises(Unreachable):
            await fetch(url, "GET", "/x", {}, b"", server.ca)
        with pytest.raises(Unreachable, match="must be https"):
            await fetch("http://127.0.0.1:1", "GET", "/x", {}, b"", None)

    run(main())


def test_the_token_is_exchanged(tmp_path: Path) -> None:
    """For a given one or a random one; agents' own one stays; one that cannot be used changes nothing."""
    ca, entropy = b"ca", SeededEntropy(3)
    first = tokens.ensure(tmp_path, ca, entropy)
    second = tokens.rotate(tmp_path, ca, entropy, tokens.full("second", "server", ca))
    assert second == tokens.read(tmp_path) == tokens.Secrets("second", "second") and first.server != "second"
    assert (tmp_path / "token").read_text() == (tmp_path / "node-token").read_text()
    assert (tmp_path / "token").read_text().endswith("::server:second\n")
    third = tokens.rotate(tmp_path, ca, entropy)
    assert len(third.server) == 32 and third.agent == third.server and tokens.read(tmp_path) == third
    tokens.ensure(tmp_path, ca, entropy, third.server, "of-agents")
    assert tokens.rotate(tmp_path, ca, entropy, "fourth") == tokens.Secrets("fourth", "of-agents")
    for bad in ("fourth", "a b", "a:b", "abcdef.0123456789abcdef", tokens.full("x", "server", b"other"), "K10x"):
        with pytest.raises(BadToken):
            tokens.rotate(tmp_path, ca, entropy, bad)
    assert tokens.read(tmp_path) == tokens.Secrets("fourth", "of-agents")


def test_only_servers_exchange_the_token(tmp_path: Path, run: Run) -> None:
    """By PUT, with the reason when it cannot be done."""
    server = Server(tmp_path, run)
    routes = Supervisor(
        server.certificates,
        server.clock,
        config=dict,
        servers=list,
        is_ready=lambda: True,
        check_password=server.check_password,
        rotate=lambda new: server.asked.append(tokens.rotate(tmp_path, server.ca, SeededEntropy(1), new).server),
    )

    def put(user: User | None, body: bytes, method: str = "PUT") -> tuple[int, bytes]:
        answer = run(routes.handle(method, "/v1-k3s/token", {}, user, body))
        return answer.status, answer.body

    boss, node = User("server", "k3s:server"), User("node", "k3s:agent")
    assert put(node, b"{}")[0] == 403 and put(None, b"{}")[0] == 401 and put(boss, b"", "GET")[0] == 405
    assert put(boss, b'{"newToken": "s3cret"}') == (400, b"Cannot use the new token: it is the present one\n")
    assert put(boss, b'{"newToken": "next"}') == (200, b"{}")
    assert server.asked == ["next"]
    assert run(server.supervisor.handle("PUT", "/v1-k3s/token", {}, boss, b"{}")).status == 404
