"""From resolved options to what the server and the agent process have to know. Wrong combinations are ConfigErrors."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from k3s.api import names, times
from k3s.apiserver import accounttokens
from k3s.apiserver.audit.settings import FLAGS as AUDIT_FLAGS
from k3s.apiserver.audit.settings import AuditError, AuditSettings
from k3s.apiserver.audit.settings import settings as audit_settings
from k3s.apiserver.authorization.settings import DEFAULT as DEFAULT_AUTHORIZATION
from k3s.apiserver.authorization.settings import FLAGS as AUTHORIZATION_FLAGS
from k3s.apiserver.tokensources import FLAGS as TOKEN_FLAGS
from k3s.apiserver.tokensources import REPEATED
from k3s.base import tls
from k3s.cluster.encryption import PROVIDERS
from k3s.run import hardening
from k3s.run.agentconfig import AgentConfig
from k3s.run.config import ConfigError, Settings, component_args, default_data_dir

# The agent does without the server's parts, which are half of its start.
if TYPE_CHECKING:
    from k3s.apiserver.admission.settings import Settings as AdmissionSettings
    from k3s.apiserver.authorization.settings import AuthorizationSettings
    from k3s.apiserver.tokensources import SourceSettings
    from k3s.run.serverconfig import ServerConfig

# Pass-through flags that are honoured, by option.
API_SERVER_ARGS = {
    "token-auth-file": "a file",
    "anonymous-auth": "true or false",
    "enable-bootstrap-token-auth": "true or false",
    "event-ttl": "a duration",
    "request-timeout": "a duration",
    "max-requests-inflight": "a number",
    "max-mutating-requests-inflight": "a number",
    "min-request-timeout": "a number of seconds",
    "cors-allowed-origins": "expressions, separated by commas",
    "strict-transport-security-directives": "directives, separated by commas",
    "shutdown-delay-duration": "a duration",
    "shutdown-send-retry-after": "true or false",
    "goaway-chance": "a number",
    "etcd-compaction-interval": "a duration",
    "api-audiences": "audiences, separated by commas",
    **TOKEN_FLAGS,
    **accounttokens.FLAGS,
    **AUTHORIZATION_FLAGS,
    "enable-admission-plugins": "names, separated by commas",
    "disable-admission-plugins": "names, separated by commas",
    "admission-control-config-file": "a file",
    **AUDIT_FLAGS,
    "encryption-provider-config": "a file",
    "encryption-provider-config-automatic-reload": "true or false",
    **tls.FLAGS,
    **hardening.forms("kube-apiserver-arg"),
}
CONTROLLER_ARGS = {
    "terminated-pod-gc-threshold": "a number",
    "legacy-service-account-token-clean-up-period": "a duration",
    **hardening.forms("kube-controller-manager-arg"),
}
SCHEDULER_ARGS = hardening.forms("kube-scheduler-arg")
KUBELET_ARGS = {
    "max-pods": "a number",
    "seccomp-default": "true or false",
    "streaming-connection-idle-timeout": "a duration",
    **tls.FLAGS,
    **hardening.forms("kubelet-arg"),
}
#: All of them, by option.
PASSED = {
    "kube-apiserver-arg": API_SERVER_ARGS,
    "kube-controller-manager-arg": CONTROLLER_ARGS,
    "kube-scheduler-arg": SCHEDULER_ARGS,
    "kubelet-arg": KUBELET_ARGS,
}
_DNS_POSITION = 10
# Switches that leave out parts which are not built yet: with and without them there is no such part.
ABSENT = ("disable-cloud-controller", "disable-network-policy", "disable-helm-controller")
# The same for --disable: packaged components that there are none of.
_NOT_PACKAGED = frozenset({"servicelb", "traefik", "local-storage", "runtimes", "ccm"})
# Kubernetes' own labels that a kubelet may give its node (kubelet's --node-labels).
_OWN_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    }
)


def data_dir(settings: Settings, env: Mapping[str, str]) -> Path:
    """The folder of all state."""
    given = settings.text("data-dir")
    return Path(given).absolute() if given else default_data_dir(env, os.geteuid() == 0)


def node_name(settings: Settings, node_id: str = "") -> str:
    """The node's name: as given, else the host's, in lower case. Raises ConfigError for one that no object may have."""
    name = (settings.text("node-name") or socket.gethostname()).lower()
    if settings.switch("with-node-id"):
        name = f"{name}-{node_id}"
    problems = names.dns_subdomain(name)
    if problems:
        raise ConfigError(f"Wrong value {name!r} for --node-name: {problems[0]}")
    return name


def read_token(settings: Settings, kind: str = "token") -> str:
    """The token as given by flag, environment or file; empty when not given. Raises ConfigError."""
    text, file = settings.text(kind), settings.text(f"{kind}-file")
    if text or not file:
        return text
    try:
        found = Path(file).read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"Cannot read --{kind}-file={file}: {error.strerror}; name a file that holds a token"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"Cannot read --{kind}-file={file}: it is no text; name a file that holds a token") from error
    if not found:
        raise ConfigError(f"Cannot read --{kind}-file={file}: it is empty; write the token into it")
    return found


def server_config(settings: Settings, env: Mapping[str, str], address: str, node: str = "") -> ServerConfig:
    """The server process's configuration. Raises ConfigError.

    `address` is the machine's own, `node` the name of the node that the server's agent runs, empty without an agent.
    """
    from k3s.run.serverconfig import ServerConfig

    service = ipaddress.ip_network(settings.text("service-cidr"))
    if service.num_addresses < 2 * _DNS_POSITION:
        raise ConfigError(f"Wrong value {service} for --service-cidr: use a larger network such as 10.43.0.0/16")
    cluster = ipaddress.ip_network(settings.text("cluster-cidr"))
    if cluster.overlaps(service):
        raise ConfigError(f"Wrong value {cluster} for --cluster-cidr: it overlaps --service-cidr {service}")
    dns = settings.text("cluster-dns") or str(service[_DNS_POSITION])
    if ipaddress.ip_address(dns) not in service:
        raise ConfigError(f"Wrong value {dns} for --cluster-dns: use an address of --service-cidr {service}")
    _check_honoured(settings)
    domain = settings.text("cluster-domain")
    if problems := names.dns_subdomain(domain):
        raise ConfigError(f"Wrong value {domain!r} for --cluster-domain: {problems[0]}")
    low, _, high = settings.text("service-node-port-range").partition("-")
    folder = data_dir(settings, env)
    api, manager = _component_flags(settings, folder)
    return ServerConfig(
        data_dir=folder,
        bind_address=settings.text("bind-address"),
        port=settings.number("https-listen-port"),
        advertise_address=settings.text("advertise-address") or settings.text("node-external-ip") or address,
        advertise_port=settings.number("advertise-port") or settings.number("https-listen-port"),
        cluster_cidr=str(cluster),
        service_cidr=str(service),
        node_ports=(int(low), int(high)),
        cluster_dns=dns,
        cluster_domain=domain,
        flannel_backend=settings.text("flannel-backend"),
        service_ip=str(service[1]),
        token_auth_file=_existing(api.get("token-auth-file", "")),
        anonymous_auth=_switch(api, "anonymous-auth"),
        bootstrap_tokens=_switch({"enable-bootstrap-token-auth": "true", **api}, "enable-bootstrap-token-auth"),
        event_ttl_s=_duration(api, "event-ttl", "1h"),
        compaction_s=_duration(api, "etcd-compaction-interval", "5m"),
        request_s=_duration(api, "request-timeout", "1m"),
        reading_at_once=_count(api, "max-requests-inflight", 400),
        writing_at_once=_count(api, "max-mutating-requests-inflight", 200),
        watch_s=float(_count(api, "min-request-timeout", 1800)),
        origins=_origins(api),
        hsts=_hsts(api),
        linger_s=_duration(api, "shutdown-delay-duration", "0s"),
        turns_away=_switch(api, "shutdown-send-retry-after"),
        goaway_chance=_goaway_chance(api),
        api_audiences=_listed(api, "api-audiences"),
        tls=_listening(api),
        admission=_admission(api, settings.switch("hardened")),
        audit=_audit(api),
        tokens=_tokens(api, domain),
        account_tokens=_account_tokens(api),
        authorization=_authorization(api),
        encryption=_encryption(settings, api),
        encryption_file=api.get("encryption-provider-config", ""),
        encryption_follows=_follows_encryption(api),
        disabled=frozenset(settings.items("disable")),
        scheduler=not settings.switch("disable-scheduler"),
        controllers=not settings.switch("disable-controller-manager"),
        kube_proxy=not settings.switch("disable-kube-proxy"),
        node_name=node,
        host_name=socket.gethostname().lower(),
        most_ended_pods=_count(manager, "terminated-pod-gc-threshold", 12500, "kube-controller-manager-arg"),
        unused_tokens_s=_unused_tokens(manager),
    )


def without_effect(settings: Settings) -> list[str]:
    """What to tell a person of choices that are accepted and change nothing, because of what is not built yet."""
    given = [f"--{name}" for name in ABSENT if settings.switch(name)]
    given += [f"--disable={name}" for name in settings.items("disable") if name in _NOT_PACKAGED]
    return [f"{option} has no effect: there is no such part in this version, with or without it" for option in given]


def _component_flags(settings: Settings, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The flags of API server and controllers: what --hardened says, under what a person said. Raises ConfigError."""
    api = component_args(settings, "kube-apiserver-arg", API_SERVER_ARGS, accounttokens.REPEATED | REPEATED)
    manager = component_args(settings, "kube-controller-manager-arg", CONTROLLER_ARGS)
    if not settings.switch("hardened"):
        return api, manager
    return {**hardening.api_server(folder), **api}, {**hardening.CONTROLLERS, **manager}


def _check_honoured(settings: Settings) -> None:
    """Refuses values that no part can honour yet."""
    endpoint = settings.text("datastore-endpoint")
    if endpoint not in ("", "sqlite", "sqlite://"):
        raise ConfigError(
            f"Option --datastore-endpoint={endpoint.split('://')[0]}://… is refused: only the embedded SQLite "
            "datastore is built yet. Remove it to go on."
        )
    if settings.is_set("server"):
        raise ConfigError("Option --server is refused for k3s server: several servers are not built yet. Remove it.")
    if not settings.switch("tls-san-security"):
        raise ConfigError(
            "Option --tls-san-security=false is refused: the serving certificate never takes names that clients ask "
            "for. Remove it, and name further addresses with --tls-san."
        )
    component_args(settings, "kube-scheduler-arg", SCHEDULER_ARGS)
    component_args(settings, "kube-cloud-controller-manager-arg", {})


def _count(args: Mapping[str, str], name: str, default: int, option: str = "kube-apiserver-arg") -> int:
    value = args.get(name, str(default))
    if not value.isascii() or not value.isdecimal():
        raise ConfigError(f"Wrong value {value!r} for --{option}={name}: use a number; 0 means no limit")
    return int(value)


def _switch(args: Mapping[str, str], name: str, option: str = "kube-apiserver-arg") -> bool:
    value = args.get(name, "false")
    if value not in ("true", "false"):
        raise ConfigError(f"Wrong value {value!r} for --{option}={name}: use true or false")
    return value == "true"


def _listening(args: Mapping[str, str], option: str = "kube-apiserver-arg") -> tls.Listening:
    try:
        return tls.listening(args)
    except ValueError as error:
        raise ConfigError(f"Wrong value for --{option}: {error}") from error


def _duration(args: Mapping[str, str], name: str, otherwise: str, option: str = "kube-apiserver-arg") -> float:
    """Seconds of a duration such as 1h30m; 0 stands for never."""
    text = args.get(name, otherwise)
    try:
        seconds = times.duration(text)
    except times.TimeError as error:
        raise ConfigError(
            f"Wrong value {text!r} for --{option}={name}: use a duration such as 1h30m ({error})"
        ) from error
    if seconds < 0 or 0 < seconds < 1:
        raise ConfigError(f"Wrong value {text!r} for --{option}={name}: use 0, or at least 1s")
    return seconds


def _unused_tokens(args: Mapping[str, str]) -> float:
    name = "legacy-service-account-token-clean-up-period"
    seconds = _duration(args, name, "8760h", "kube-controller-manager-arg")
    if not seconds:
        raise ConfigError(f"Wrong value 0 for --kube-controller-manager-arg={name}: use a duration such as 8760h")
    return seconds


def _admission(args: Mapping[str, str], hardened: bool) -> AdmissionSettings:
    """Which admission plugins run and how. Raises ConfigError."""
    from k3s.apiserver.admission.settings import SettingsError, settings

    enable, disable = (_listed(args, f"{word}-admission-plugins") for word in ("enable", "disable"))
    if hardened:
        enable = (*enable, *(name for name in hardening.PLUGINS if name not in disable))
    file, base = args.get("admission-control-config-file", ""), str(hardening.ADMISSION) if hardened else ""
    try:
        return settings(enable, disable, file, base)
    except SettingsError as error:
        raise ConfigError(f"Cannot use what --kube-apiserver-arg says of admission: {error}") from error


def _goaway_chance(args: Mapping[str, str]) -> float:
    """How often a client is told to open another connection, which may lead to another server."""
    value = args.get("goaway-chance", "0")
    try:
        chance = float(value)
    except ValueError:
        chance = -1.0
    if not 0 <= chance <= 0.02:
        raise ConfigError(f"Wrong value {value!r} for --kube-apiserver-arg=goaway-chance: use a number from 0 to 0.02")
    return chance


def _origins(args: Mapping[str, str]) -> tuple[str, ...]:
    """Expressions for origins; each has to say where the host begins and ends, or it would let in too many."""
    name = "cors-allowed-origins"
    origins = _listed(args, name)
    if not origins:
        return ()
    from k3s.api import pattern

    for text in origins:
        where = f"Wrong value {text!r} for --kube-apiserver-arg={name}:"
        try:
            pattern.compiled(text)
        except pattern.BadPattern as error:
            raise ConfigError(f"{where} {error}") from None
        if not ("^" in text or "//" in text) or not ("$" in text or ":" in text.rpartition("//")[2]):
            raise ConfigError(f"{where} begin the host with // or ^ and end it with $ or a port, as //example\\.com$")
    return origins


def _hsts(args: Mapping[str, str]) -> tuple[str, ...]:
    name = "strict-transport-security-directives"
    directives = _listed(args, name)
    for text in directives:
        if text not in ("includeSubDomains", "preload") and not text.startswith("max-age="):
            raise ConfigError(
                f"Wrong value {text!r} for --kube-apiserver-arg={name}: use max-age=SECONDS, includeSubDomains, preload"
            )
    return directives


def _encryption(settings: Settings, api: Mapping[str, str]) -> str:
    """The cipher of Secrets at rest, empty for none. Raises ConfigError."""
    provider = settings.text("secrets-encryption-provider")
    if provider not in PROVIDERS:
        raise ConfigError(f"Wrong value {provider!r} for --secrets-encryption-provider: use {' or '.join(PROVIDERS)}")
    asked = settings.switch("secrets-encryption")
    if not asked:
        wanted = settings.switch("hardened") and not settings.is_set("secrets-encryption")
        return provider if wanted and "encryption-provider-config" not in api else ""
    if "encryption-provider-config" in api:
        raise ConfigError(
            "Option --secrets-encryption does not go with --kube-apiserver-arg=encryption-provider-config: "
            "k3s has a configuration of its own; leave one of them out"
        )
    return provider


def _follows_encryption(api: Mapping[str, str]) -> bool:
    name = "encryption-provider-config-automatic-reload"
    if name in api and "encryption-provider-config" not in api:
        raise ConfigError(f"Option --kube-apiserver-arg={name} needs --kube-apiserver-arg=encryption-provider-config")
    return _switch(api, name)


def _audit(args: Mapping[str, str]) -> AuditSettings | None:
    """What is recorded of requests, and where. Raises ConfigError."""
    try:
        return audit_settings(args)
    except AuditError as error:
        raise ConfigError(f"Cannot use what --kube-apiserver-arg says of the audit log: {error}") from error


def _tokens(args: Mapping[str, str], domain: str) -> SourceSettings:
    """Who else knows bearer tokens. Raises ConfigError."""
    if not TOKEN_FLAGS.keys() & args.keys():
        from k3s.apiserver.tokensources import NONE

        return NONE
    from k3s.apiserver.oidc.settings import SettingsError
    from k3s.apiserver.tokensources import settings

    try:
        return settings(args, accounttokens.settings(args).settings(domain, ()).issuers)
    except (SettingsError, accounttokens.AccountTokenError) as error:
        raise ConfigError(f"Cannot use what --kube-apiserver-arg says of authentication: {error}") from error


def _account_tokens(args: Mapping[str, str]) -> accounttokens.AccountTokens:
    """The keys, issuers and lifetimes of service-account tokens. Raises ConfigError."""
    try:
        return accounttokens.settings(args)
    except accounttokens.AccountTokenError as error:
        raise ConfigError(f"Cannot use what --kube-apiserver-arg says of service accounts: {error}") from error


def _authorization(args: Mapping[str, str]) -> AuthorizationSettings:
    """Who is asked what is allowed. Raises ConfigError."""
    given = {name: value for name, value in args.items() if name in AUTHORIZATION_FLAGS}
    if not given:
        return DEFAULT_AUTHORIZATION
    from k3s.apiserver.authorization.settings import SettingsError, settings

    try:
        return settings(given)
    except SettingsError as error:
        raise ConfigError(f"Cannot use what --kube-apiserver-arg says of authorization: {error}") from error


def _listed(args: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The items of a value that separates them by commas. Raises ConfigError for an empty one."""
    if name not in args:
        return ()
    items = tuple(item.strip() for item in args[name].split(","))
    if not all(items):
        raise ConfigError(f"Wrong value {args[name]!r} for --kube-apiserver-arg={name}: use items separated by commas")
    return items


def _existing(path: str) -> str:
    if path and not Path(path).is_file():
        raise ConfigError(f"Wrong value {path!r} for --kube-apiserver-arg=token-auth-file: the file does not exist")
    return path


def agent_config(settings: Settings, env: Mapping[str, str], name: str, token: str) -> AgentConfig:
    """The agent process's configuration. Raises ConfigError."""
    url = settings.text("server")
    if url and not url.startswith("https://"):
        raise ConfigError(f"Wrong value {url!r} for --server: use https://host:6443")
    if not url or not token:
        missing = "--server" if not url else "--token"
        raise ConfigError(f"Option {missing} is needed by k3s agent: --server https://host:6443 --token TOKEN")
    component_args(settings, "kube-proxy-arg", {})
    resolv_conf = settings.text("resolv-conf")
    if resolv_conf and not os.access(resolv_conf, os.R_OK):
        raise ConfigError(f"Wrong value {resolv_conf!r} for --resolv-conf: there is no such file that can be read")
    kubelet, hardened = component_args(settings, "kubelet-arg", KUBELET_ARGS), settings.switch("hardened")
    if hardened:
        kubelet = {**hardening.KUBELET, **kubelet}
    protects = settings.switch("protect-kernel-defaults")
    if not kubelet.get("max-pods", "110").isdecimal():
        raise ConfigError(f"Wrong value {kubelet['max-pods']!r} for --kubelet-arg=max-pods: use a number")
    return AgentConfig(
        data_dir=data_dir(settings, env),
        server=url,
        token=token,
        node_name=name,
        node_ip=settings.text("node-ip"),
        node_external_ip=settings.text("node-external-ip"),
        labels=tuple(_label(item) for item in settings.items("node-label")),
        taints=tuple(_taint(item) for item in settings.items("node-taint")),
        pause_image=settings.text("pause-image"),
        snapshotter=settings.text("snapshotter"),
        runtime_endpoint=settings.text("container-runtime-endpoint").removeprefix("unix://"),
        resolv_conf=resolv_conf,
        max_pods=int(kubelet.get("max-pods", "110")),
        stream_idle_s=_duration(kubelet, "streaming-connection-idle-timeout", "4h", "kubelet-arg"),
        seccomp_default=_switch(kubelet, "seccomp-default", option="kubelet-arg"),
        tls=_listening(kubelet, "kubelet-arg"),
        protects_kernel=protects if settings.is_set("protect-kernel-defaults") else hardened,
        node_args=settings.args,
    )


def _label(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    problems = names.label_key(key) + names.label_value(value)
    if not equals or problems:
        raise ConfigError(f"Wrong value {item!r} for --node-label: use key=value; {'; '.join(problems)}".rstrip("; "))
    domain = key.rpartition("/")[0]
    reserved = domain.endswith(("kubernetes.io", "k8s.io")) and key not in _OWN_LABELS
    if reserved and not domain.endswith(("kubelet.kubernetes.io", "node.kubernetes.io")):
        raise ConfigError(
            f"Wrong value {item!r} for --node-label: labels of {domain} are not the node's to give itself; "
            f"use another prefix, or kubectl label node once the node is there"
        )
    return key, value


def _taint(item: str) -> dict[str, str]:
    pair, colon, effect = item.rpartition(":")
    key, _, value = pair.partition("=")
    if not colon or effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute") or names.label_key(key):
        raise ConfigError(f"Wrong value {item!r} for --node-taint: use key=value:NoSchedule|PreferNoSchedule|NoExecute")
    return {"key": key, "effect": effect, **({"value": value} if value else {})}
