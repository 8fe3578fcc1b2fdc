"""The one table of options: flag, environment name, config key, type, default, personalities, help.

From it come the command line, the config file, `--help`, the docs page and the shell completion; nothing else in the
program knows a flag's name (k3s docs: CLI reference). An option that no part honours yet carries the reason in
`refused` and is never swallowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SERVER, AGENT, BOTH = "S", "A", "SA"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `kind` is text, switch, list, number, port, address, cidr, ports, mode, path or duration."""

    name: str
    help: str
    kind: str = "text"
    default: str = ""
    env: str = ""
    short: str = ""
    on: str = BOTH
    group: str = ""
    aliases: tuple[str, ...] = ()
    refused: str = ""
    choices: tuple[str, ...] = ()
    hidden: bool = False

    @property
    def is_list(self) -> bool:
        """True when the option may be given more than once."""
        return self.kind == "list"


def _group(group: str, *options: Option) -> tuple[Option, ...]:
    return tuple(_with_group(option, group) for option in options)


def _with_group(option: Option, group: str) -> Option:
    return Option(**{f: getattr(option, f) for f in Option.__slots__ if f != "group"}, group=group)


_DISABLE = ("coredns", "servicelb", "traefik", "local-storage", "metrics-server", "runtimes", "ccm")
_ETCD = "the embedded etcd datastore is not built yet; leave it out to use SQLite"
_DATASTORE = "only the embedded SQLite datastore is built yet"
_VPN = "node networks beyond one machine are not built yet"

OPTIONS: tuple[Option, ...] = (
    *_group(
        "config",
        Option(
            "config", "File with options, key per flag", "path", "/etc/rancher/k3s/config.yaml", "K3S_CONFIG_FILE", "c"
        ),
    ),
    *_group(
        "logging",
        Option("debug", "Log what is of use to developers", "switch", env="K3S_DEBUG"),
        Option("v", "Log level as a number: 0 is normal, 4 and above the same as --debug", "number", "0"),
        Option("vmodule", "Log level by file", refused="levels by file are not built; use --debug"),
        Option("log", "Log to this file, rotated at 50 MB, 3 backups", "path", short="l"),
        Option("alsologtostderr", "With --log: log to standard error, too", "switch"),
        Option("log-format", "Form of the log", default="text", choices=("text", "json"), env="K3S_LOG_FORMAT"),
    ),
    *_group(
        "listener",
        Option("bind-address", "Address to listen on", "address", "0.0.0.0", on=SERVER),
        Option("https-listen-port", "Port of the API and the supervisor", "port", "6443", on=SERVER),
        Option(
            "advertise-address",
            "Address in the endpoints of the kubernetes service (default: the node's)",
            "address",
            on=SERVER,
        ),
        Option(
            "advertise-port",
            "Port in the endpoints of the kubernetes service (default: the listen port)",
            "port",
            on=SERVER,
        ),
        Option("tls-san", "Further name or address in the serving certificate", "list", on=SERVER),
        Option(
            "tls-san-security", "Keep the serving certificate to the names it was given", "switch", "true", on=SERVER
        ),
    ),
    *_group(
        "data",
        Option(
            "data-dir",
            "Folder of all state (default: /var/lib/rancher/k3s, or ~/.rancher/k3s without root)",
            "path",
            "",
            "K3S_DATA_DIR",
            "d",
        ),
    ),
    *_group(
        "networking",
        Option("cluster-cidr", "Network of pods", "cidr", "10.42.0.0/16", on=SERVER),
        Option("service-cidr", "Network of services", "cidr", "10.43.0.0/16", on=SERVER),
        Option("service-node-port-range", "Ports of services of type NodePort", "ports", "30000-32767", on=SERVER),
        Option(
            "cluster-dns",
            "Address of the cluster DNS (default: the tenth of the service network)",
            "address",
            on=SERVER,
        ),
        Option("cluster-domain", "Domain of the cluster", default="cluster.local", on=SERVER),
        Option(
            "flannel-backend",
            "Network between nodes; none: bring your own CNI",
            default="vxlan",
            on=SERVER,
            choices=("vxlan", "host-gw", "none"),
        ),
        Option("flannel-ipv6-masq", "Masquerade IPv6", "switch", on=SERVER, refused=_VPN),
        Option("flannel-external-ip", "Use external addresses between nodes", "switch", on=SERVER, refused=_VPN),
        Option("egress-selector-mode", "How the API server reaches nodes", on=SERVER, refused=_VPN),
        Option(
            "servicelb-namespace",
            "Namespace of load balancer pods",
            on=SERVER,
            refused="the service load balancer is not built yet",
        ),
    ),
    *_group(
        "cluster",
        Option(
            "token", "Secret that servers and agents join with", env="K3S_TOKEN", short="t", aliases=("cluster-secret",)
        ),
        Option("token-file", "File that holds the token", "path", env="K3S_TOKEN_FILE"),
        Option("agent-token", "Secret that only agents join with", env="K3S_AGENT_TOKEN", on=SERVER),
        Option("agent-token-file", "File that holds the agent token", "path", env="K3S_AGENT_TOKEN_FILE", on=SERVER),
        Option("server", "Server to join, as https://host:6443", env="K3S_URL", short="s"),
        Option(
            "cluster-init", "Start an embedded etcd cluster", "switch", env="K3S_CLUSTER_INIT", on=SERVER, refused=_ETCD
        ),
        Option(
            "cluster-reset", "Make this the only member", "switch", env="K3S_CLUSTER_RESET", on=SERVER, refused=_ETCD
        ),
        Option("cluster-reset-restore-path", "Snapshot to restore", "path", on=SERVER, refused=_ETCD),
    ),
    *_group(
        "client",
        Option("write-kubeconfig", "Where the admin kubeconfig goes", "path", "", "K3S_KUBECONFIG_OUTPUT", "o", SERVER),
        Option(
            "write-kubeconfig-mode", "File mode of the kubeconfig", "mode", "0600", "K3S_KUBECONFIG_MODE", on=SERVER
        ),
        Option("write-kubeconfig-group", "Group of the kubeconfig", env="K3S_KUBECONFIG_GROUP", on=SERVER),
    ),
    *_group(
        "flags of components",
        Option("kube-apiserver-arg", "name=value for the API server", "list", on=SERVER),
        Option("kube-scheduler-arg", "name=value for the scheduler", "list", on=SERVER),
        Option(
            "kube-controller-manager-arg",
            "name=value for the controllers",
            "list",
            on=SERVER,
            aliases=("kube-controller-arg",),
        ),
        Option(
            "kube-cloud-controller-manager-arg",
            "name=value for the cloud controller",
            "list",
            on=SERVER,
            aliases=("kube-cloud-controller-arg",),
        ),
        Option("kubelet-arg", "name=value for the kubelet", "list"),
        Option("kube-proxy-arg", "name=value for the service proxy", "list"),
    ),
    *_group(
        "datastore",
        Option(
            "datastore-endpoint",
            "Datastore: empty or sqlite:// for the embedded one",
            env="K3S_DATASTORE_ENDPOINT",
            on=SERVER,
        ),
        Option(
            "datastore-cafile", "CA of the datastore", "path", env="K3S_DATASTORE_CAFILE", on=SERVER, refused=_DATASTORE
        ),
        Option(
            "datastore-certfile",
            "Certificate for the datastore",
            "path",
            env="K3S_DATASTORE_CERTFILE",
            on=SERVER,
            refused=_DATASTORE,
        ),
        Option(
            "datastore-keyfile",
            "Key for the datastore",
            "path",
            env="K3S_DATASTORE_KEYFILE",
            on=SERVER,
            refused=_DATASTORE,
        ),
        *(
            Option(name, "Embedded etcd", "switch" if switch else "text", on=SERVER, refused=_ETCD)
            for name, switch in (
                ("etcd-expose-metrics", True),
                ("etcd-disable-snapshots", True),
                ("etcd-snapshot-name", False),
                ("etcd-snapshot-schedule-cron", False),
                ("etcd-snapshot-retention", False),
                ("etcd-snapshot-dir", False),
                ("etcd-snapshot-compress", True),
                ("etcd-s3", True),
                ("etcd-s3-endpoint", False),
                ("etcd-s3-endpoint-ca", False),
                ("etcd-s3-skip-ssl-verify", True),
                ("etcd-s3-access-key", False),
                ("etcd-s3-secret-key", False),
                ("etcd-s3-bucket", False),
                ("etcd-s3-region", False),
                ("etcd-s3-folder", False),
                ("etcd-arg", False),
            )
        ),
    ),
    *_group(
        "storage",
        Option(
            "default-local-storage-path",
            "Folder of local-path volumes",
            "path",
            on=SERVER,
            refused="local-path volumes are not built yet",
        ),
    ),
    *_group(
        "components",
        Option(
            "disable",
            "Leave out a packaged component: " + ", ".join(_DISABLE),
            "list",
            on=SERVER,
            choices=_DISABLE,
            aliases=("no-deploy",),
        ),
        Option("disable-scheduler", "Run without a scheduler", "switch", on=SERVER),
        Option("disable-cloud-controller", "Run without the cloud controller (none is built yet)", "switch", on=SERVER),
        Option("disable-kube-proxy", "Run without the service proxy", "switch", on=SERVER),
        Option("disable-network-policy", "Run without network policies (none are enforced yet)", "switch", on=SERVER),
        Option("disable-helm-controller", "Run without the Helm controller (none is built yet)", "switch", on=SERVER),
        Option(
            "disable-apiserver",
            "Run without an API server",
            "switch",
            on=SERVER,
            hidden=True,
            aliases=("disable-api-server",),
            refused=_ETCD,
        ),
        Option("disable-controller-manager", "Run without controllers", "switch", on=SERVER, hidden=True),
        Option("disable-etcd", "Run without etcd", "switch", on=SERVER, hidden=True, refused=_ETCD),
        Option("disable-agent", "Run the control plane only, no node", "switch", on=SERVER),
    ),
    *_group(
        "node",
        Option("node-name", "Name of the node (default: the host's name)", env="K3S_NODE_NAME"),
        Option("with-node-id", "Append an id to the node's name", "switch"),
        Option("node-label", "key=value label of the node at registration", "list"),
        Option("node-taint", "key=value:effect taint of the node at registration", "list"),
    ),
    *_group(
        "runtime",
        Option("container-runtime-endpoint", "Socket of a container runtime that already runs", "path"),
        Option("pause-image", "Image of the pod sandbox", default="docker.io/rancher/mirrored-pause:3.6"),
        Option(
            "snapshotter",
            "containerd's snapshotter",
            default="overlayfs",
            choices=("overlayfs", "native", "btrfs", "zfs"),
        ),
        Option(
            "docker",
            "Use Docker",
            "switch",
            refused="Docker is not supported; use containerd or --container-runtime-endpoint",
        ),
        Option("private-registry", "File with registries", "path", refused="registries.yaml is not built yet"),
        Option(
            "system-default-registry",
            "Registry of packaged images",
            env="K3S_SYSTEM_DEFAULT_REGISTRY",
            refused="packaged images are local",
        ),
        Option("default-runtime", "containerd's default runtime", refused="only runc is built yet"),
    ),
    *_group(
        "agent networking",
        Option("node-ip", "Address of the node", "address", short="i"),
        Option("node-external-ip", "Address of the node as seen from outside", "address"),
        Option("resolv-conf", "resolv.conf that pods and the cluster DNS forward to", "path", env="K3S_RESOLV_CONF"),
        Option("flannel-iface", "Interface between nodes", refused=_VPN),
        Option("flannel-conf", "Flannel's configuration", "path", refused=_VPN),
        Option(
            "lb-server-port",
            "Port of the agent's load balancer",
            "port",
            "6444",
            "K3S_LB_SERVER_PORT",
            refused="the load balancer is not built yet",
        ),
    ),
    *_group(
        "hardening",
        Option(
            "hardened",
            "Set what the CIS benchmark asks for, where nothing else is said (docs/security.md)",
            "switch",
            env="K3S_HARDENED",
        ),
        Option(
            "protect-kernel-defaults",
            "Run no node where the kernel's settings are not those that a kubelet wants",
            "switch",
        ),
        Option("selinux", "Use SELinux", "switch", env="K3S_SELINUX", refused="SELinux labels are not built yet"),
        Option("secrets-encryption", "Encrypt Secrets at rest", "switch", on=SERVER),
        Option(
            "secrets-encryption-provider",
            "Cipher of Secrets at rest: aescbc, or secretbox",
            on=SERVER,
            default="aescbc",
        ),
        Option("rootless", "Run nodes without root", "switch", refused="nodes need root; use --disable-agent"),
        Option("prefer-bundled-bin", "Prefer bundled programs", "switch", refused="programs come from the system"),
    ),
)


def options_for(personality: str) -> tuple[Option, ...]:
    """The options of `server` or `agent`."""
    letter = SERVER if personality == "server" else AGENT
    return tuple(option for option in OPTIONS if letter in option.on)


def help_text(personality: str) -> str:
    """What `k3s <personality> --help` prints."""
    lines = [f"usage: k3s {personality} [options]", ""]
    group = ""
    for option in options_for(personality):
        if option.hidden or option.refused:
            continue
        if option.group != group:
            group = option.group
            lines.append(f"{group}:")
        flag = f"--{option.name}" if len(option.name) > 1 else f"-{option.name}"
        if option.short:
            flag += f", -{option.short}"
        notes = [option.help]
        if option.is_list:
            notes.append("(repeatable)")
        if option.env:
            notes.append(f"[{option.env}]")
        if option.default and option.kind != "switch":
            notes.append(f"(default: {option.default})")
        lines.append(f"  {flag:<34} {' '.join(notes)}")
    lines += ["", "A config file may hold the same options, a key per flag: see --config."]
    return "\n".join(lines) + "\n"


def markdown(passed: Mapping[str, Mapping[str, str]]) -> str:
    """The options page of the documentation; `passed`: what options that pass flags on take, and in which form."""
    lines = [
        "# Options",
        "",
        "Made from the table in `src/k3s/run/options.py`. S: `k3s server`, A: `k3s agent`. Each option is also",
        "a key of the config file (`--config`, `config.yaml.d/*.yaml`). Precedence: command line, environment, file,",
        "default.",
        "",
        "| option | for | environment | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for option in OPTIONS:
        flag = f"`--{option.name}`" if len(option.name) > 1 else f"`-{option.name}`"
        flag += f", `-{option.short}`" if option.short else ""
        env = f"`{option.env}`" if option.env else ""
        default = f"`{option.default}`" if option.default else ""
        meaning = f"refused: {option.refused}" if option.refused else option.help
        lines.append(
            f"| {flag} | {option.on} | {env} | {default} | {meaning}{' (repeatable)' if option.is_list else ''} |"
        )
    for name, flags in passed.items():
        lines += ["", f"## Flags for `--{name}`", "", "| flag | takes |", "|---|---|"]
        lines += [f"| `{flag}` | {form} |" for flag, form in flags.items()]
    return "\n".join(lines) + "\n"
