"""`./k3s server --disable-agent` as a process: what its options change, what it refuses, how it tells systemd."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import ssl
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.cluster import ROOT
from tests.controlplane import Server, flags_of, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with many options."""
    made = Server(tmp_path_factory.mktemp("server"))
    made.start(
        "--write-kubeconfig-mode=644",
        "--tls-san=k3s.example,198.51.100.1",
        "--advertise-address=198.51.100.9",
        "--advertise-port=443",
        "--service-cidr=10.99.0.0/16",
        "--service-node-port-range=31000-31010",
        "--cluster-domain=c.example",
        "--disable=coredns",
        "--disable-scheduler",
        "--token=of-servers",
        "--agent-token=of-agents",
    )
    yield made
    assert made.stop() == 0, (made.folder / "log").read_text()


def test_options_have_their_effect(server: Server) -> None:
    """Addresses, ports, parts and files are as asked for."""
    service = json.loads(server.kubectl("get", "service", "kubernetes", "-o", "json"))
    assert service["spec"]["clusterIP"] == "10.99.0.1"
    ends = json.loads(server.kubectl("get", "endpointslices", "kubernetes", "-o", "json"))
    assert (ends["endpoints"][0]["addresses"], ends["ports"][0]["port"]) == (["198.51.100.9"], 443)
    server.kubectl("create", "service", "nodeport", "np", "--tcp=80", "--node-port=31010")
    with pytest.raises(subprocess.CalledProcessError):
        server.kubectl("create", "service", "nodeport", "outside", "--tcp=80", "--node-port=30000")
    assert "kube-dns" not in server.kubectl("get", "services", "-A")
    assert "scheduler" not in server.kubectl("get", "--raw", "/readyz?verbose")
    assert stat.S_IMODE((server.folder / "admin.yaml").stat().st_mode) == 0o644
    tokens = server.folder / "data" / "server"
    assert (tokens / "token").read_text().endswith("::server:of-servers\n")
    assert (tokens / "node-token").read_text().endswith("::node:of-agents\n")


def test_serving_certificate(server: Server) -> None:
    """It holds the names that were given, the cluster's domain, and the first service address."""
    context = ssl.create_default_context(cafile=str(server.folder / "data" / "server" / "tls" / "server-ca.crt"))
    for name in ("k3s.example", "198.51.100.1", "kubernetes.default.svc.c.example", "10.99.0.1", "198.51.100.9"):
        with (
            socket.create_connection(("127.0.0.1", server.port)) as raw,
            context.wrap_socket(raw, server_hostname=name) as made,
        ):
            assert made.version() == "TLSv1.3"


def _as(server: Server, token: str) -> str:
    """Who a bearer token is, or the status of the refusal."""
    authority = ssl.create_default_context(cafile=str(server.folder / "data" / "server" / "tls" / "server-ca.crt"))
    url = f"https://127.0.0.1:{server.port}/apis/authentication.k8s.io/v1/selfsubjectreviews"
    body = b'{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}'
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers), context=authority, timeout=10
        ) as answer:
            return str(json.load(answer)["status"]["userInfo"]["username"])
    except urllib.error.HTTPError as error:
        return str(error.code)


def test_keys_of_service_accounts_are_exchanged(tmp_path: Path) -> None:
    """As k3s' documentation has it: a new key before the old one in service.key, and later the new one alone. Tokens of
    the old key hold while it is listed; so do those of an issuer that is named second."""
    server, who = Server(tmp_path), "system:serviceaccount:default:default"
    server.start()
    file = tmp_path / "data" / "server" / "tls" / "service.key"
    old, key = file.read_bytes(), ec.generate_private_key(ec.SECP256R1())
    new = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    before = server.kubectl("create", "token", "default").strip()
    assert _as(server, before) == who
    server.stop()
    file.write_bytes(new + old)
    server.start()
    after = server.kubectl("create", "token", "default").strip()
    assert (_as(server, before), _as(server, after)) == (who, who)
    listed = json.loads(server.kubectl("get", "--raw", "/openid/v1/jwks"))
    assert [key["kty"] for key in listed["keys"]] == ["EC", "RSA"]
    server.stop()
    file.write_bytes(new)
    issuers = ("https://new.example", "https://kubernetes.default.svc.cluster.local")
    server.start(*(f"--kube-apiserver-arg=service-account-issuer={issuer}" for issuer in issuers))
    assert (_as(server, before), _as(server, after)) == ("401", who)
    assert json.loads(server.kubectl("get", "--raw", "/.well-known/openid-configuration"))["issuer"] == issuers[0]
    server.stop()


def test_tokens_are_kept_in_order(server: Server) -> None:
    """An expired bootstrap token goes, by the rights of the controller; it is known since when tokens' uses are."""
    past = ("--from-literal=expiration=2020-01-01T00:00:00Z", "--from-literal=token-id=abcdef")
    command = ("create", "secret", "generic", "bootstrap-token-abcdef", "--type=bootstrap.kubernetes.io/token", *past)
    server.kubectl("-n", "kube-system", *command)
    server.kubectl("-n", "kube-system", "wait", "--for=delete", "secret/bootstrap-token-abcdef", "--timeout=10s")
    name = "kube-apiserver-legacy-service-account-token-tracking"
    since = server.kubectl("-n", "kube-system", "get", "configmap", name, "-o", "jsonpath={.data.since}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", since)


def test_bootstrap_tokens(server: Server) -> None:
    """What `k3s token create` prints is a join token; its last part is good until it is deleted."""

    def k3s(*words: str) -> str:
        command = ("./k3s", "token", *words, f"--kubeconfig={server.folder / 'admin.yaml'}")
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    made = k3s("create", "--ttl=1h", "--description=ci").strip()
    ca = (server.folder / "data" / "server" / "tls" / "server-ca.crt").read_bytes()
    assert made.startswith(f"K10{hashlib.sha256(ca).hexdigest()}::")
    token = made.rpartition("::")[2]
    assert _as(server, token) == f"system:bootstrap:{token[:6]}"
    assert re.search(rf"{token} +59m +\S+Z +authentication,signing +ci +system:bootstrappers:k3s", k3s("list"))
    assert k3s("delete", made) == f'bootstrap token "{token[:6]}" deleted\n'
    assert _as(server, token) == "401" and token not in k3s("list")


def test_the_token_is_exchanged(tmp_path: Path) -> None:
    """The former token opens nothing any more, at once; the server starts again with the new one and no other."""
    server = Server(tmp_path)
    server.start("--token=first")
    place = (f"--server=https://127.0.0.1:{server.port}", f"--data-dir={tmp_path / 'data'}")

    def joins(secret: str) -> int:
        pair = base64.b64encode(f"node:{secret}".encode()).decode()
        authority = ssl.create_default_context(cafile=str(tmp_path / "data" / "server" / "tls" / "server-ca.crt"))
        request = urllib.request.Request(f"https://127.0.0.1:{server.port}/v1-k3s/config")
        request.add_header("Authorization", f"Basic {pair}")
        try:
            with urllib.request.urlopen(request, context=authority, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert joins("first") == 200
    command = ("./k3s", "token", "rotate", "--token=first", "--new-token=second", *place)
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.startswith("Token rotated, restart k3s nodes with new token")
    assert (joins("first"), joins("second")) == (401, 200)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "Unauthorized" in again.stderr
    server.stop()
    code, said = _refused(*flags_of(tmp_path, server.port), "--token=first")
    assert code == 2 and "was made with another token" in said
    server.start("--token=second")
    assert (joins("first"), joins("second")) == (401, 200)
    server.stop()


def _refused(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def test_a_second_server_is_refused(server: Server, tmp_path: Path) -> None:
    """One line that names folder or port, exit code 1, and the first one goes on."""
    code, said = _refused(*flags_of(server.folder, free_port()))
    assert code == 1 and f"another k3s server works on {server.folder / 'data'}" in said and "Traceback" not in said
    code, said = _refused(*flags_of(tmp_path, server.port))
    assert code == 1 and f"127.0.0.1 port {server.port}" in said and "Traceback" not in said
    assert server.kubectl("get", "--raw", "/readyz") == "ok"


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    """Exit code 2 and the flag's name; nothing is left of the attempt that would refuse the next one."""
    flags = flags_of(tmp_path, free_port())
    for flag, word in (
        (f"--token-file={tmp_path / 'none'}", "--token-file"),
        ("--tls-san-security=false", "--tls-san-security"),
        ("--cluster-cidr=10.43.0.0/16", "--cluster-cidr"),
        ("--bind-address=192.0.2.77", "--bind-address"),
    ):
        code, said = _refused(*flags, flag)
        assert code == 2 and word in said and "Traceback" not in said, said
    (tmp_path / "file").write_text("")
    code, said = _refused(*flags, f"--data-dir={tmp_path / 'file' / 'x'}")
    assert code == 2 and "--data-dir" in said, said


def test_another_token_at_a_restart(tmp_path: Path) -> None:
    """A server keeps its token: another one is refused, the same one or none is not."""
    made = Server(tmp_path)
    made.start("--token=first")
    assert made.stop() == 0
    code, said = _refused(*flags_of(tmp_path, made.port), "--token=second")
    assert code == 2 and "--token" in said
    made.start()
    assert made.stop() == 0
