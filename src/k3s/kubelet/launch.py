"""What the runtime is told to make: a pod and its containers in the terms of the Container Runtime Interface.

Pure: the objects, the node's facts and the mounts go in, the messages PodSandboxConfig and ContainerConfig (as dicts)
come out. Source of labels, annotations, paths and defaults: the kubelet's use of runtime.v1 and the security context of
the Pod API.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k3s.api.object import Object, encode, get, labels, name, namespace, uid
from k3s.kubelet import resources
from k3s.kubelet.environment import expand
from k3s.kubelet.runtime import interface as cri

# What a container may not see of /proc and /sys unless it is privileged or asks for it (procMount).
_MASKED = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
_READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_HOSTNAME_LIMIT = 63
TERMINATION_LOG = "/dev/termination-log"


class ConfigError(Exception):
    """The container cannot be configured as it is; the pod waits with this text (CreateContainerConfigError)."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What of the node goes into a pod's configuration."""

    name: str
    addresses: tuple[str, ...]
    memory_bytes: int
    allocatable: Mapping[str, int]
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    resolv_servers: tuple[str, ...] = ()
    resolv_searches: tuple[str, ...] = ()
    resolv_options: tuple[str, ...] = ()
    seccomp_default: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """One bind mount of a container."""

    container_path: str
    host_path: str
    readonly: bool = False
    propagation: str = "PROPAGATION_PRIVATE"


def log_directory(pod: Object, root: str = "/var/log/pods") -> str:
    """The folder of a pod's logs."""
    return f"{root}/{namespace(pod)}_{name(pod)}_{uid(pod)}"


def log_path(container: str, attempt: int) -> str:
    """The log file of one run of a container, below the pod's folder."""
    return f"{container}/{attempt}.log"


def container_hash(container: Object) -> str:
    """Changes when a container has to be made anew: with its name or image."""
    parts = {"image": container.get("image", ""), "name": container["name"]}
    return f"{zlib.crc32(encode(parts)):x}"


def hostname(pod: Object, facts: NodeFacts) -> str:
    """The host name inside the pod."""
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        return facts.name
    chosen = spec.get("hostnameOverride") or spec.get("hostname") or name(pod)
    chosen = str(chosen)[:_HOSTNAME_LIMIT].rstrip("-.")
    if spec.get("setHostnameAsFQDN") and spec.get("subdomain"):
        return f"{chosen}.{spec['subdomain']}.{namespace(pod)}.svc.{facts.cluster_domain}"
    return chosen


def dns(pod: Object, facts: NodeFacts) -> dict[str, list[str]]:
    """servers, searches and options of the pod's resolv.conf, by dnsPolicy and dnsConfig."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    made: dict[str, list[str]]
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and facts.cluster_dns:
        domain = facts.cluster_domain
        searches = [f"{namespace(pod)}.svc.{domain}", f"svc.{domain}", domain, *facts.resolv_searches]
        made = {"servers": list(facts.cluster_dns), "searches": searches, "options": ["ndots:5"]}
    elif policy == "None":
        made = {"servers": [], "searches": [], "options": []}
    else:
        made = {
            "servers": list(facts.resolv_servers),
            "searches": list(facts.resolv_searches),
            "options": list(facts.resolv_options),
        }
    extra = spec.get("dnsConfig") or {}
    made["servers"] = list(dict.fromkeys([*made["servers"], *(extra.get("nameservers") or ())]))
    made["searches"] = list(dict.fromkeys([*made["searches"], *(extra.get("searches") or ())]))
    options = {text.partition(":")[0]: text for text in made["options"]}
    for option in extra.get("options") or ():
        text = option["name"] + (f":{option['value']}" if option.get("value") else "")
        options[option["name"]] = text
    made["options"] = list(options.values())
    return made


def hosts_file(pod: Object, addresses: Sequence[str], facts: NodeFacts, node_hosts: str = "") -> str:
    """The text of /etc/hosts; a pod on the host's network gets the node's own and its aliases."""
    aliases = "".join(
        f"{alias['ip']}\t{chr(9).join(alias.get('hostnames') or ())}\n"
        for alias in pod["spec"].get("hostAliases") or ()
    )
    if aliases:
        aliases = "\n# Entries added by HostAliases.\n" + aliases
    if pod["spec"].get("hostNetwork"):
        return f"# Kubernetes-managed hosts file (host network).\n{node_hosts}{aliases}"
    own = hostname(pod, facts)
    subdomain = pod["spec"].get("subdomain")
    full = f"{own}.{subdomain}.{namespace(pod)}.svc.{facts.cluster_domain}\t{own}" if subdomain else own
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        *(f"{address}\t{full}" for address in addresses),
    ]
    return "\n".join(lines) + "\n" + aliases


def _namespaces(pod: Object, target: str = "") -> dict[str, Any]:
    spec = pod["spec"]
    pid = "NODE" if spec.get("hostPID") else "POD" if spec.get("shareProcessNamespace") else "CONTAINER"
    made: dict[str, Any] = {
        "network": "NODE" if spec.get("hostNetwork") else "POD",
        "ipc": "NODE" if spec.get("hostIPC") else "POD",
        "pid": "TARGET" if target else pid,
    }
    if target:
        made["target_id"] = target
    return made


def _seccomp(profile: Object | None, facts: NodeFacts) -> dict[str, Any]:
    kind = (profile or {}).get("type") or ("RuntimeDefault" if facts.seccomp_default else "Unconfined")
    if kind == "Localhost":
        return {"profile_type": "Localhost", "localhost_ref": f"/var/lib/kubelet/seccomp/{profile['localhostProfile']}"}  # type: ignore[index]
    return {"profile_type": kind}


def _int(value: Any) -> dict[str, int] | None:
    return None if value is None else {"value": int(value)}


def _is_privileged(container: Object) -> bool:
    return bool(get(container, "securityContext", "privileged"))


def sandbox_config(pod: Object, facts: NodeFacts, attempt: int, *, log_root: str = "/var/log/pods") -> dict[str, Any]:
    """PodSandboxConfig of a pod."""
    spec, context = pod["spec"], pod["spec"].get("securityContext") or {}
    security: dict[str, Any] = {
        "namespace_options": _namespaces(pod),
        "seccomp": {"profile_type": "RuntimeDefault"},
        "privileged": any(_is_privileged(c) for c in resources.containers(pod)),
        "supplemental_groups": _groups(context),
        "run_as_user": _int(context.get("runAsUser")),
        "run_as_group": _int(context.get("runAsGroup")) if context.get("runAsUser") is not None else None,
    }
    made: dict[str, Any] = {
        "metadata": {"name": name(pod), "namespace": namespace(pod), "uid": uid(pod), "attempt": attempt},
        "log_directory": log_directory(pod, log_root),
        "dns_config": dns(pod, facts),
        "labels": {
            **labels(pod),
            cri.POD_NAME: name(pod),
            cri.POD_NAMESPACE: namespace(pod),
            cri.POD_UID: uid(pod),
        },
        "annotations": _annotations(pod),
        "linux": {
            "cgroup_parent": resources.cgroup_parent(pod),
            "security_context": security,
            "sysctls": {s["name"]: s["value"] for s in context.get("sysctls") or ()},
        },
    }
    if not spec.get("hostNetwork"):
        made["hostname"] = hostname(pod, facts)
        made["port_mappings"] = _port_mappings(spec)
    return made


def _port_mappings(spec: Object) -> list[dict[str, Any]]:
    return [
        {
            "protocol": port.get("protocol", "TCP"),
            "container_port": port["containerPort"],
            "host_port": port.get("hostPort", 0),
            "host_ip": port.get("hostIP", ""),
        }
        for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
        for port in container.get("ports") or ()
        if port.get("hostPort")
    ]


def _groups(context: Object) -> list[int]:
    groups = list(context.get("supplementalGroups") or ())
    if context.get("fsGroup") is not None:
        groups.append(context["fsGroup"])
    return groups


def security_context(
    pod: Object, container: Object, facts: NodeFacts, image: cri.Image | None, target: str = ""
) -> dict[str, Any]:
    """LinuxContainerSecurityContext: the container's own settings before the pod's. Raises ConfigError."""
    outer = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    chosen = {**outer, **{key: value for key, value in own.items() if value is not None}}
    privileged = _is_privileged(container)
    user = chosen.get("runAsUser")
    if chosen.get("runAsNonRoot"):
        _check_non_root(container, user, image)
    made: dict[str, Any] = {
        "namespace_options": _namespaces(pod, target),
        "privileged": privileged,
        "supplemental_groups": _groups(outer),
        "readonly_rootfs": bool(own.get("readOnlyRootFilesystem")),
        "no_new_privs": own.get("allowPrivilegeEscalation") is False and not privileged,
        "capabilities": _capabilities(own.get("capabilities") or {}),
        "run_as_group": _int(chosen.get("runAsGroup")),
        "seccomp": {"profile_type": "Unconfined"} if privileged else _seccomp(chosen.get("seccompProfile"), facts),
    }
    if user is not None:
        made["run_as_user"] = _int(user)
    elif image is not None and image.uid is not None:
        made["run_as_user"] = _int(image.uid)
    elif image is not None and image.username:
        made["run_as_username"] = image.username
    if not privileged and own.get("procMount") != "Unmasked":
        made |= {"masked_paths": _MASKED, "readonly_paths": _READONLY}
    return made


def _capabilities(wanted: Object) -> dict[str, list[str]]:
    def plain(names: Sequence[str]) -> list[str]:
        return [text.upper().removeprefix("CAP_") for text in names]

    return {"add_capabilities": plain(wanted.get("add") or ()), "drop_capabilities": plain(wanted.get("drop") or ())}


def _check_non_root(container: Object, user: int | None, image: cri.Image | None) -> None:
    who = f'container "{container["name"]}"'
    if user is not None:
        if user == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy ({who})")
        return
    if image is None or image.uid == 0 or (image.uid is None and not image.username):
        raise ConfigError(f"container has runAsNonRoot and image will run as root ({who})")
    if image.username:
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({image.username}), "
            f"cannot verify user is non-root ({who})"
        )


def container_config(
    pod: Object,
    container: Object,
    *,
    attempt: int,
    image: cri.Image | None,
    environment: Mapping[str, str],
    mounts: Sequence[Mount],
    facts: NodeFacts,
    target: str = "",
) -> dict[str, Any]:
    """ContainerConfig of one run of a container. Raises ConfigError."""
    own_name = container["name"]
    variables = dict(environment)
    return {
        "metadata": {"name": own_name, "attempt": attempt},
        "image": {"image": image.id if image else container["image"], "user_specified_image": container["image"]},
        "command": [expand(text, variables) for text in container.get("command") or ()],
        "args": [expand(text, variables) for text in container.get("args") or ()],
        "working_dir": container.get("workingDir", ""),
        # Secrets may hold bytes that are no text: they reach the container as they are.
        "envs": [{"key": k, "value": v.encode(errors="surrogateescape")} for k, v in variables.items()],
        "mounts": [
            {
                "container_path": mount.container_path,
                "host_path": mount.host_path,
                "readonly": mount.readonly,
                "propagation": mount.propagation,
            }
            for mount in mounts
        ],
        "devices": [],
        "labels": {
            cri.POD_NAME: name(pod),
            cri.POD_NAMESPACE: namespace(pod),
            cri.POD_UID: uid(pod),
            cri.CONTAINER_NAME: own_name,
        },
        "annotations": {
            cri.CONTAINER_HASH: container_hash(container),
            cri.RESTART_COUNT: str(attempt),
            cri.MESSAGE_PATH: container.get("terminationMessagePath") or TERMINATION_LOG,
            cri.MESSAGE_POLICY: container.get("terminationMessagePolicy") or "File",
        },
        "log_path": log_path(own_name, attempt),
        "stdin": bool(container.get("stdin")),
        "stdin_once": bool(container.get("stdinOnce")),
        "tty": bool(container.get("tty")),
        "linux": {
            "resources": resources.container_resources(pod, container, facts.memory_bytes),
            "security_context": security_context(pod, container, facts, image, target),
        },
    }


def _annotations(pod: Object) -> dict[str, str]:
    return pod["metadata"].get("annotations") or {}
