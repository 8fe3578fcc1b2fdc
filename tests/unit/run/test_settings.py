"""From options to what the processes have to know; wrong combinations name flag, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from k3s.run import settings as choices
from k3s.run.agent import masked
from k3s.run.agentconfig import AgentConfig
from k3s.run.config import ConfigError, resolve
from k3s.run.serverconfig import ServerConfig


def server(*args: str, address: str = "192.0.2.1") -> ServerConfig:
    return choices.server_config(resolve("server", ["--config=/dev/null", *args], {}), {}, address)


def agent(*args: str) -> AgentConfig:
    settings = resolve("agent", ["--config=/dev/null", "--server=https://s:6443", *args], {})
    return choices.agent_config(settings, {}, choices.node_name(settings, "0a0b"), "secret")


def test_networks() -> None:
    """The addresses of the API service and of DNS follow the service network."""
    config = server("--service-cidr=10.96.0.0/12", "--cluster-cidr=10.244.0.0/16", "--cluster-domain=k.example")
    assert (config.service_ip, config.cluster_dns, config.cluster_domain) == ("10.96.0.1", "10.96.0.10", "k.example")
    told = config.for_agents()
    assert (told["clusterCIDR"], told["clusterDNS"], told["clusterDomain"]) == (
        "10.244.0.0/16",
        "10.96.0.10",
        "k.example",
    )


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), ("192.0.2.1", 6443)),
        (("--node-external-ip=198.51.100.1",), ("198.51.100.1", 6443)),
        (("--advertise-address=203.0.113.1", "--node-external-ip=198.51.100.1"), ("203.0.113.1", 6443)),
        (("--https-listen-port=7443",), ("192.0.2.1", 7443)),
        (("--https-listen-port=7443", "--advertise-port=443"), ("192.0.2.1", 443)),
    ],
)
def test_what_is_advertised(args: tuple[str, ...], expected: tuple[str, int]) -> None:
    """The address in the kubernetes service's endpoints: given, external, or the machine's own."""
    config = server(*args)
    assert (config.advertise_address, config.advertise_port) == expected


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("0.0.0.0", "https://127.0.0.1:6443"),
        ("::", "https://127.0.0.1:6443"),
        ("192.0.2.1", "https://192.0.2.1:6443"),
        ("2001:db8::1", "https://[2001:db8::1]:6443"),
    ],
)
def test_where_this_machine_reaches_the_server(address: str, url: str) -> None:
    """A server that listens at one address only is not asked at loopback."""
    assert server(f"--bind-address={address}").local_url == url


def test_parts_that_are_left_out() -> None:
    """--disable and the --disable-… switches reach the server's parts and, through its document, the agents."""
    config = server("--disable=coredns,servicelb", "--disable-scheduler", "--disable-controller-manager")
    assert (config.scheduler, config.controllers) == (False, False)
    assert config.for_agents()["disabled"] == ["coredns", "servicelb"]
    assert server().for_agents()["disableKubeProxy"] is False
    assert server("--disable-kube-proxy").for_agents()["disableKubeProxy"] is True


def test_flannel_backend_reaches_agents() -> None:
    """vxlan, host-gw and none are told to agents."""
    for backend in ("vxlan", "host-gw", "none"):
        assert server(f"--flannel-backend={backend}").for_agents()["flannelBackend"] == backend


def test_folders() -> None:
    """State goes below --data-dir; without root below the user's home."""
    settings = resolve("server", ["--config=/dev/null", "--data-dir=/srv/k3s"], {})
    assert choices.data_dir(settings, {}) == Path("/srv/k3s")
    assert server("--data-dir=/srv/k3s").server_dir == Path("/srv/k3s/server")


def test_a_node() -> None:
    """What a node is told, and how it registers."""
    config = agent(
        "--node-name=Web-1",
        "--node-label=a=b",
        "--node-label=topology.kubernetes.io/zone=z",
        "--node-taint=k=v:NoSchedule",
        "--node-taint=only:NoExecute",
        "--node-ip=192.0.2.5",
        "--node-external-ip=198.51.100.5",
        "--pause-image=example.org/pause:1",
        "--snapshotter=native",
        "--container-runtime-endpoint=unix:///run/x.sock",
        "--kubelet-arg=max-pods=9",
    )
    assert config.node_name == "web-1"
    assert config.labels == (("a", "b"), ("topology.kubernetes.io/zone", "z"))
    assert config.taints == (
        {"key": "k", "value": "v", "effect": "NoSchedule"},
        {"key": "only", "effect": "NoExecute"},
    )
    assert (config.node_ip, config.node_external_ip) == ("192.0.2.5", "198.51.100.5")
    assert (config.pause_image, config.snapshotter) == ("example.org/pause:1", "native")
    assert (config.runtime_endpoint, config.max_pods) == ("/run/x.sock", 9)
    assert agent("--node-name=n", "--with-node-id").node_name == "n-0a0b"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("--tls-san-security=false", ("--tls-san-security=false", "--tls-san")),
        ("--service-cidr=10.43.0.0/29", ("--service-cidr", "10.43.0.0/29", "larger")),
        ("--cluster-cidr=10.43.0.0/17", ("--cluster-cidr", "10.43.0.0/17", "--service-cidr")),
        ("--cluster-dns=10.99.0.10", ("--cluster-dns", "10.99.0.10", "10.43.0.0/16")),
        ("--cluster-domain=Not_a_domain", ("--cluster-domain", "Not_a_domain")),
        ("--datastore-endpoint=postgres://u:secret@h/db", ("--datastore-endpoint", "postgres", "SQLite")),
        ("--server=https://h:6443", ("--server", "several servers")),
        ("--kube-apiserver-arg=anonymous-auth=maybe", ("anonymous-auth", "maybe", "true or false")),
        ("--kube-apiserver-arg=token-auth-file=/none", ("token-auth-file", "/none")),
        ("--kube-apiserver-arg=audit-log-path=/x", ("audit-log-path", "audit-policy-file")),
        ("--kube-apiserver-arg=feature-gates=X=true", ("feature-gates", "not honoured")),
        ("--kube-apiserver-arg=goaway-chance=0.5", ("goaway-chance", "0.5", "0.02")),
        ("--kube-apiserver-arg=cors-allowed-origins=example.com", ("cors-allowed-origins", "example.com", "begin")),
        ("--kube-apiserver-arg=cors-allowed-origins=//a(b$", ("cors-allowed-origins", "//a(b$", "missing closing )")),
        ("--kube-apiserver-arg=strict-transport-security-directives=x", ("directives", "'x'", "max-age")),
        ("--kube-apiserver-arg=shutdown-delay-duration=soon", ("shutdown-delay-duration", "soon", "duration")),
        (
            "--kube-controller-manager-arg=terminated-pod-gc-threshold=few",
            ("--kube-controller-manager-arg", "terminated-pod-gc-threshold", "few", "use a number"),
        ),
        ("--kube-scheduler-arg=v=2", ("--kube-scheduler-arg", "not honoured")),
    ],
)
def test_refused_by_the_server(args: str, words: tuple[str, ...]) -> None:
    """Each refusal names the flag and the value, and says what to do; secrets are not shown."""
    with pytest.raises(ConfigError) as refused:
        server(args)
    assert all(word in str(refused.value) for word in words), refused.value
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("--node-label=novalue", ("--node-label", "novalue", "key=value")),
        ("--node-label=node-role.kubernetes.io/x=true", ("--node-label", "node-role.kubernetes.io", "kubectl label")),
        ("--node-taint=k=v:Never", ("--node-taint", "k=v:Never", "NoSchedule")),
        ("--node-name=a_b", ("--node-name", "a_b")),
        ("--resolv-conf=/does/not/exist", ("--resolv-conf", "/does/not/exist")),
        ("--kubelet-arg=max-pods=many", ("max-pods", "many", "number")),
        ("--kubelet-arg=root-dir=/x", ("root-dir", "not honoured", "max-pods")),
        ("--kube-proxy-arg=v=2", ("--kube-proxy-arg", "not honoured")),
        ("--server=h:6443", ("--server", "h:6443", "https://")),
    ],
)
def test_refused_by_the_agent(args: str, words: tuple[str, ...]) -> None:
    """Each refusal names the flag and the value, and says what to do."""
    with pytest.raises(ConfigError) as refused:
        agent(args)
    assert all(word in str(refused.value) for word in words), refused.value


def test_tokens_from_files(tmp_path: Path) -> None:
    """A token file is read without its line end; the flag wins; what cannot be used is named."""
    good, empty, odd = tmp_path / "good", tmp_path / "empty", tmp_path / "odd"
    good.write_text("secret\n")
    empty.write_text("\n")
    odd.write_bytes(b"\xff\xfe")

    def read(*args: str) -> str:
        return choices.read_token(resolve("server", ["--config=/dev/null", *args], {}))

    assert read(f"--token-file={good}") == "secret"
    assert read(f"--token-file={good}", "--token=other") == "other"
    for path in (empty, odd, tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match=f"--token-file={path}"):
            read(f"--token-file={path}")


def test_secrets_are_not_noted_on_the_node() -> None:
    """The annotation with the node's arguments hides tokens in both forms."""
    shown = masked(("--token=abc", "--token", "def", "-t", "ghi", "--debug"))
    assert shown == ["--token=********", "--token", "********", "-t", "********", "--debug"]
