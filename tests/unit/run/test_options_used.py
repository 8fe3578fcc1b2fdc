"""No option is swallowed: each one is refused, or read by the personalities it is for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from k3s.cli import process, server
from k3s.run import settings as choices
from k3s.run.config import ConfigError, Settings, resolve
from k3s.run.hardening import FIXED
from k3s.run.options import options_for


class Recorder(Settings):
    """Settings that note which options were asked for."""

    asked: ClassVar[set[str]] = set()

    def text(self, name: str) -> str:
        self.asked.add(name)
        return super().text(name)

    def switch(self, name: str) -> bool:
        self.asked.add(name)
        return super().switch(name)

    def number(self, name: str) -> int:
        self.asked.add(name)
        return super().number(name)

    def items(self, name: str) -> tuple[str, ...]:
        self.asked.add(name)
        return super().items(name)


def recorder(personality: str, *args: str) -> Recorder:
    settings = resolve(personality, ["--config=/dev/null", *args], {})
    Recorder.asked = set()
    return Recorder(settings.values, settings.sources, settings.args)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Keeps the test run's own log handlers."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def wanted(personality: str) -> set[str]:
    """What has to be read; --config is read by `resolve` itself."""
    return {o.name for o in options_for(personality) if not o.refused} - {"config"} - set(choices.ABSENT)


def test_the_agent_reads_every_option(tmp_path: Path) -> None:
    """`k3s agent` honours all that its help lists."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    log = f"--log={tmp_path / 'log'}"
    settings = recorder("agent", "--server=https://s:6443", f"--token-file={token}", "--with-node-id", log)
    process.log_to(settings)
    name = choices.node_name(settings, "12345678")
    assert name.endswith("-12345678")
    choices.agent_config(settings, {}, name, choices.read_token(settings))
    # Whether containerd is started by us is the one thing that the command itself decides.
    assert wanted("agent") - Recorder.asked == set()


def test_the_server_reads_every_option_or_hands_it_to_its_agent(tmp_path: Path) -> None:
    """`k3s server` honours all that its help lists: itself, or by the command line of the agent it starts."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    settings = recorder("server", f"--token-file={token}", f"--agent-token-file={token}", f"--log={tmp_path / 'log'}")
    process.log_to(settings)
    config = choices.server_config(settings, {}, "192.0.2.1")
    for kind in ("token", "agent-token"):
        assert choices.read_token(settings, kind) == "secret"
    server.admin_file(settings)
    server.serving_addresses(settings, config, "192.0.2.1")
    server.with_agent(settings)
    handed = {option.name for option in options_for("agent")} - set(server.OWN)
    # --server is refused when it is given, which asks whether it was.
    assert wanted("server") - Recorder.asked - handed - {"server"} == set()


@pytest.mark.parametrize("name", [*choices.ABSENT, *sorted(f"disable={each}" for each in choices._NOT_PACKAGED)])
def test_who_leaves_out_what_is_not_there_is_told_that_it_changes_nothing(name: str) -> None:
    settings = resolve("server", ["--config=/dev/null", f"--{name}", "--disable=coredns"], {})
    (told,) = choices.without_effect(settings)
    assert told.startswith(f"--{name} has no effect: ")


def _of_audit(logged: str, hooked: str) -> dict[str, str]:
    """Values of the flags that both ways of the audit log have."""
    values = {
        "batch-buffer-size": "7",
        "batch-max-size": "7",
        "batch-max-wait": "7s",
        "batch-throttle-qps": "7",
        "batch-throttle-burst": "7",
        "truncate-enabled": "true",
        "truncate-max-batch-size": "700000",
        "truncate-max-event-size": "7000",
    }
    throttled = {"log": f"true {logged}", "webhook": f"false {hooked}"}
    return {f"audit-{way}-batch-throttle-enable": value for way, value in throttled.items()} | {
        f"audit-{way}-{flag}": f"{value} {also}"
        for way, also in (("log", logged), ("webhook", hooked))
        for flag, value in values.items()
    }


def files(folder: Path) -> None:
    """The files that the values below name."""
    (folder / "tokens.csv").write_text("t,u,1\n")
    (folder / "policy.yaml").write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
    configuration = "apiVersion: apiserver.config.k8s.io/v1\nkind: "
    security = "{apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, defaults: {}}"
    (folder / "admission.yaml").write_text(
        f"{configuration}AdmissionConfiguration\nplugins: [{{name: PodSecurity, configuration: {security}}}]\n"
    )
    issuers = "[{issuer: {url: 'https://i', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]"
    (folder / "jwt.yaml").write_text(f"{configuration}AuthenticationConfiguration\njwt: {issuers}\n")
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(key)
    server = "clusters: [{name: c, cluster: {server: 'https://h'}}]\ncontexts: [{name: c, context: {cluster: c}}]\n"
    (folder / "hook.yaml").write_text(f"apiVersion: v1\nkind: Config\ncurrent-context: c\n{server}")
    (folder / "ca.pem").write_text("a certificate")
    rights = "{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration, authorizers: "
    (folder / "rights.yaml").write_text(rights + "[{type: RBAC, name: r}]}")


@pytest.fixture
def passed_values(tmp_path: Path) -> dict[str, str]:
    """A value for each flag that is passed on to the API server, and what has to be there beside it, after a space."""
    files(tmp_path)
    policy, issuer = f"audit-policy-file={tmp_path}/policy.yaml", "oidc-issuer-url=https://i oidc-client-id=c"
    logged, hooked = f"audit-log-path=/x {policy}", f"audit-webhook-config-file={tmp_path}/hook.yaml {policy}"
    token_hook = f"authentication-token-webhook-config-file={tmp_path}/hook.yaml"
    rights_hook = f"authorization-mode=Webhook authorization-webhook-config-file={tmp_path}/hook.yaml"
    encrypted = f"encryption-provider-config={tmp_path}/hook.yaml"
    return _of_audit(logged, hooked) | {
        "token-auth-file": str(tmp_path / "tokens.csv"),
        "anonymous-auth": "true",
        "enable-bootstrap-token-auth": "false",
        "event-ttl": "2h",
        "request-timeout": "2m",
        "max-requests-inflight": "7",
        "max-mutating-requests-inflight": "7",
        "min-request-timeout": "7",
        "cors-allowed-origins": "//a$",
        "strict-transport-security-directives": "preload",
        "shutdown-delay-duration": "7s",
        "shutdown-send-retry-after": "true",
        "goaway-chance": "0.01",
        "etcd-compaction-interval": "7m",
        "api-audiences": "a",
        "oidc-issuer-url": "https://j oidc-client-id=c",
        "oidc-client-id": "d oidc-issuer-url=https://i",
        "oidc-username-claim": f"a {issuer}",
        "oidc-username-prefix": f"a {issuer}",
        "oidc-groups-claim": f"a {issuer}",
        "oidc-groups-prefix": f"a {issuer} oidc-groups-claim=g",
        "oidc-required-claim": f"a=b {issuer}",
        "oidc-signing-algs": f"ES256 {issuer}",
        "oidc-ca-file": f"{tmp_path}/ca.pem {issuer}",
        "authentication-config": str(tmp_path / "jwt.yaml"),
        "authentication-token-webhook-config-file": f"{tmp_path}/hook.yaml",
        "authentication-token-webhook-version": f"v1 {token_hook}",
        "authentication-token-webhook-cache-ttl": f"7m {token_hook}",
        "authorization-mode": "RBAC",
        "authorization-webhook-config-file": f"{tmp_path}/hook.yaml authorization-mode=Webhook",
        "authorization-webhook-version": f"v1 {rights_hook}",
        "authorization-webhook-cache-authorized-ttl": f"7m {rights_hook}",
        "authorization-webhook-cache-unauthorized-ttl": f"7m {rights_hook}",
        "authorization-config": f"{tmp_path}/rights.yaml",
        "service-account-key-file": f"{tmp_path}/key.pem",
        "service-account-signing-key-file": f"{tmp_path}/key.pem",
        "service-account-issuer": "https://i",
        "service-account-jwks-uri": "https://i/keys",
        "service-account-max-token-expiration": "7h",
        "service-account-extend-token-expiration": "false",
        "enable-admission-plugins": "AlwaysPullImages",
        "disable-admission-plugins": "LimitRanger",
        "admission-control-config-file": f"{tmp_path}/admission.yaml",
        "audit-policy-file": f"{tmp_path}/policy.yaml audit-log-path=/x",
        "audit-log-path": f"/y {policy}",
        "audit-log-maxage": f"7 {logged}",
        "audit-log-maxbackup": f"7 {logged}",
        "audit-log-maxsize": f"7 {logged}",
        "audit-log-compress": f"true {logged}",
        "audit-log-format": f"legacy {logged}",
        "audit-log-mode": f"batch {logged}",
        "audit-webhook-config-file": f"{tmp_path}/hook.yaml {policy}",
        "audit-webhook-initial-backoff": f"7s {hooked}",
        "tls-cipher-suites": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "tls-min-version": "VersionTLS13",
        "audit-webhook-mode": f"blocking {hooked}",
        "encryption-provider-config": f"{tmp_path}/hook.yaml",
        "encryption-provider-config-automatic-reload": f"true {encrypted}",
    }


# Whose only value is the one that holds without it.
_SINGLE = {"audit-log-version", "audit-webhook-version", *FIXED["kube-apiserver-arg"]}


@pytest.mark.parametrize("flag", sorted(set(choices.API_SERVER_ARGS) - _SINGLE))
def test_flags_of_the_api_server_change_what_it_is_told(passed_values: dict[str, str], flag: str) -> None:
    """None is taken and forgotten: with it, the configuration is another one than without it."""

    def config(*pairs: str) -> object:
        args = [f"--kube-apiserver-arg={pair}" for pair in pairs]
        return choices.server_config(resolve("server", ["--config=/dev/null", *args], {}), {}, "192.0.2.1")

    assert flag in passed_values, "a new flag: say above which value of it changes something"
    value, *beside = passed_values[flag].split(" ")
    try:
        before: object = config(*beside)
    except ConfigError:  # it is what the others cannot do without
        before = None
    assert config(f"{flag}={value}", *beside) != before


EVERY_AGENT_OPTION = {
    "--node-name=n": "n",
    "--node-label=a=b": "a=b",
    "--node-taint=a=b:NoSchedule": "a=b:NoSchedule",
    "--pause-image=example.org/pause:1": "example.org/pause:1",
    "--snapshotter=native": "native",
    "--container-runtime-endpoint=/run/x.sock": "/run/x.sock",
    "--node-ip=192.0.2.7": "192.0.2.7",
    "--node-external-ip=198.51.100.7": "198.51.100.7",
    "--resolv-conf=/etc/hostname": "/etc/hostname",
    "--kubelet-arg=max-pods=7": "max-pods=7",
    "--with-node-id": "true",
    "--debug": "true",
    "-v=4": "4",
    "--log-format=json": "json",
}


@pytest.mark.parametrize("flag", EVERY_AGENT_OPTION)
def test_options_of_nodes_reach_the_agent_of_a_server(flag: str) -> None:
    """What was given to the server arrives at the agent with the same value."""
    settings = resolve("server", ["--config=/dev/null", flag], {})
    config = choices.server_config(settings, {}, "192.0.2.1")
    told = resolve("agent", server.agent_args(settings, config), {})
    name = flag.lstrip("-").partition("=")[0]
    value = told.values[name]
    shown = value[0] if isinstance(value, tuple) else str(value).lower()
    assert shown == EVERY_AGENT_OPTION[flag]
    assert told.text("server") == "https://127.0.0.1:6443"
