"""--hardened: what it sets, that what a person said wins, and that each setting arrives where it acts."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from k3s.apiserver.audit.settings import AuditSettings
from k3s.base import tls
from k3s.kubelet.containerd import ContainerdConfig, config_text
from k3s.run import hardening, kernel
from k3s.run import settings as choices
from k3s.run.agent import listening
from k3s.run.agentconfig import AgentConfig
from k3s.run.config import CannotStart, ConfigError, resolve
from k3s.run.serverconfig import ServerConfig


def server(*args: str) -> ServerConfig:
    args = ("--config=/dev/null", "--data-dir=/x", *args)
    return choices.server_config(resolve("server", args, {}), {}, "192.0.2.1")


def agent(*args: str) -> AgentConfig:
    settings = resolve("agent", ["--config=/dev/null", "--server=https://s:6443", *args], {})
    return choices.agent_config(settings, {}, "n", "secret")


def audit(config: ServerConfig) -> AuditSettings:
    assert config.audit is not None
    return config.audit


def test_what_a_server_gets() -> None:
    """Audit, pod security, limits of events, encryption, short tokens, early clearing of ended pods."""
    config, plain = server("--hardened"), server()
    assert audit(config).log == "/x/server/logs/audit.log"
    assert audit(config).policy == hardening.AUDIT_POLICY
    numbers = audit(config).numbers
    assert [numbers[f"audit-log-{name}"] for name in ("maxage", "maxbackup", "maxsize")] == [30, 10, 100]
    assert config.admission.of("PodSecurity")["defaults"]["enforce"] == "restricted"
    assert config.admission.of("PodSecurity")["exemptions"]["namespaces"] == ["kube-system"]
    assert "EventRateLimit" in config.admission.enabled and config.admission.of("EventRateLimit")["limits"]
    assert (config.encryption, config.account_tokens.extend, config.most_ended_pods) == ("aescbc", False, 10)
    assert plain.audit is None and "EventRateLimit" not in plain.admission.enabled
    assert (plain.encryption, plain.account_tokens.extend, plain.most_ended_pods) == ("", True, 12500)
    assert plain.admission.of("PodSecurity") == {}


def test_what_a_person_said_wins(tmp_path: Path) -> None:
    """Flags, switches that are off, and single plugins of a configuration file take the place of what would be set."""
    file = tmp_path / "admission.yaml"
    file.write_text(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n"
        "- name: PodSecurity\n  configuration: {defaults: {enforce: baseline}}\n"
    )
    config = server(
        "--hardened",
        "--secrets-encryption=false",
        "--kube-apiserver-arg=audit-log-path=/y",
        "--kube-apiserver-arg=service-account-extend-token-expiration=true",
        f"--kube-apiserver-arg=admission-control-config-file={file}",
        "--kube-controller-manager-arg=terminated-pod-gc-threshold=7",
    )
    assert (audit(config).log, config.encryption, config.account_tokens.extend) == ("/y", "", True)
    assert config.most_ended_pods == 7
    assert config.admission.of("PodSecurity") == {"defaults": {"enforce": "baseline"}}
    assert config.admission.of("EventRateLimit")["limits"]
    without = server("--hardened", "--kube-apiserver-arg=disable-admission-plugins=EventRateLimit")
    assert "EventRateLimit" not in without.admission.enabled


def test_what_a_node_gets() -> None:
    """Idle streams end, containers without a seccomp profile get the runtime's, the kernel's settings are checked."""
    config, plain = agent("--hardened"), agent()
    assert (config.stream_idle_s, config.seccomp_default, config.protects_kernel) == (300.0, True, True)
    assert (plain.stream_idle_s, plain.seccomp_default, plain.protects_kernel) == (14400.0, False, False)
    assert agent("--protect-kernel-defaults").protects_kernel
    own = agent("--hardened", "--protect-kernel-defaults=false", "--kubelet-arg=streaming-connection-idle-timeout=1h")
    assert (own.stream_idle_s, own.protects_kernel) == (3600.0, False)
    assert listening(config)["streamingConnectionIdleTimeout"] == "300s"


def test_idle_streams_are_told_to_containerd() -> None:
    """The runtime's stream server is what ends them."""
    config = ContainerdConfig(Path("/r"), Path("/c"), Path("/n"), stream_idle_s=300.0)
    text = config_text(config, snapshotter="overlayfs", restrict_oom=False)
    assert 'stream_idle_timeout = "300.000s"' in text


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--kube-apiserver-arg=profiling=true", "profiling is always false here"),
        ("--kube-apiserver-arg=service-account-lookup=false", "service-account-lookup is always true here"),
        ("--kube-scheduler-arg=bind-address=0.0.0.0", "bind-address is always 127.0.0.1 here"),
        ("--kube-controller-manager-arg=use-service-account-credentials=false", "is always true here"),
        ("--kube-apiserver-arg=tls-min-version=VersionTLS10", "'VersionTLS10' is none of VersionTLS12, VersionTLS13"),
        (
            "--kube-apiserver-arg=tls-cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA",
            "is not offered; choose from TLS_ECDHE",
        ),
    ],
)
def test_nothing_weaker_is_taken(flag: str, says: str) -> None:
    """A flag that has one value refuses another one, with the reason; the value itself is taken."""
    with pytest.raises(ConfigError, match=says):
        server(flag)


def test_a_hardened_configuration_of_k3s_works(tmp_path: Path) -> None:
    """The values of the hardening guide are taken as they stand."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "protect-kernel-defaults: true\nsecrets-encryption: true\n"
        "kube-apiserver-arg: [enable-admission-plugins=NodeRestriction, service-account-lookup=true, profiling=false]\n"
        "kube-controller-manager-arg: [terminated-pod-gc-threshold=10, use-service-account-credentials=true]\n"
        "kube-scheduler-arg: [profiling=false]\n"
        "kubelet-arg: [streaming-connection-idle-timeout=5m, make-iptables-util-chains=true, anonymous-auth=false,\n"
        "  'tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305']\n"
    )
    settings = resolve("server", [f"--config={config}"], {})
    assert choices.server_config(settings, {}, "192.0.2.1").most_ended_pods == 10
    settings = resolve("agent", [f"--config={config}", "--server=https://s:6443"], {})
    node = choices.agent_config(settings, {}, "n", "secret")
    assert node.protects_kernel
    ends = ("ECDSA_WITH_AES_256_GCM_SHA384", "RSA_WITH_CHACHA20_POLY1305_SHA256")
    assert node.tls.suites == tuple(f"TLS_ECDHE_{end}" for end in ends)


def test_listeners_keep_to_their_suites() -> None:
    """The suites of TLS 1.2 are those that were chosen; by default the six with forward secrecy and authentication."""
    for chosen, expected in (
        (tls.UNSAID, set(tls.SUITES.values())),
        (tls.listening({"tls-cipher-suites": next(iter(tls.SUITES))}), {"ECDHE-ECDSA-AES128-GCM-SHA256"}),
    ):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chosen.apply(context)
        assert {c["name"] for c in context.get_ciphers() if c["protocol"] == "TLSv1.2"} == expected
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.listening({"tls-min-version": "VersionTLS13"}).apply(context)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3


def test_the_kernel_is_looked_at(tmp_path: Path) -> None:
    """Each setting that differs is named with its value and the remedy; nothing is changed."""
    for name, value in kernel.SETTINGS.items():
        path = tmp_path.joinpath(*name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    kernel.check(tmp_path)
    (tmp_path / "kernel" / "panic").write_text("0\n")
    (tmp_path / "vm" / "panic_on_oom").unlink()
    with pytest.raises(CannotStart, match=r"vm.panic_on_oom is absent, kernel.panic is 0; write vm.panic_on_oom=0, k"):
        kernel.check(tmp_path)
    assert (tmp_path / "kernel" / "panic").read_text() == "0\n"
