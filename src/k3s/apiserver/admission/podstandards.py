"""The pod security standards as a list of checks: pure functions from a pod to what is wrong with it.

Each check has a level, the minor version it exists from, and the check it replaces at the restricted level. Source:
"Pod Security Standards" in the Kubernetes documentation; wording as upstream's answers show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from k3s.api.object import Object, get

LATEST_MINOR = 36
Problem = str  # "what (details)"; empty when the pod is fine
Run = Callable[[Object, int], Problem]

_CAPABILITIES = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
_SYSCTLS = (
    (0, "kernel.shm_rmid_forced net.ipv4.ip_local_port_range net.ipv4.tcp_syncookies net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem net.ipv4.tcp_wmem"),
)
_VOLUMES = frozenset(
    {
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"),
        *("persistentVolumeClaim", "projected", "secret"),
    }
)
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})
#: Prefixes of the annotations that named seccomp profiles before there were fields.
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
SECCOMP_NOTES = (_SECCOMP_POD, _SECCOMP_CONTAINER)
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


class Check(NamedTuple):
    """One check; `replaces` names a baseline check that this one makes superfluous."""

    name: str
    level: str
    since: int
    run: Run
    replaces: str = ""


def violations(pod: Object, level: str, minor: int) -> list[str]:
    """What of a pod (or template) breaks a level at a minor version, in upstream's order; empty for privileged."""
    if level == "privileged":
        return []
    minor = min(minor, LATEST_MINOR)
    wanted = [c for c in _CHECKS if c.since <= minor and (level == "restricted" or c.level == "baseline")]
    replaced = {check.replaces for check in wanted}
    found = (check.run(pod, minor) for check in wanted if check.name not in replaced)
    return [problem for problem in found if problem]


def _settings(pod: Object, *path: str) -> Iterator[tuple[str, Any]]:
    """Name and setting (under securityContext) of every container."""
    for container in _containers(pod):
        yield str(container.get("name", "")), get(container, "securityContext", *path)


def _containers(pod: Object) -> Iterator[Object]:
    spec = pod["spec"]
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def _is_windows(pod: Object, minor: int) -> bool:
    return minor >= 25 and get(pod, "spec", "os", "name") == "windows"


def _relaxed_by_user_namespace(pod: Object, minor: int) -> bool:
    return minor >= 35 and pod["spec"].get("hostUsers") is False


def quoted(names: Iterable[str]) -> str:
    """`"a", "b"`"""
    return ", ".join(f'"{name}"' for name in names)


def plural(word: str, count: int) -> str:
    """`word`, or `words`."""
    return word if count == 1 else f"{word}s"


def _named(names: list[str], word: str = "container") -> str:
    return f"{plural(word, len(names))} {quoted(names)}"


def _where(field: str, test: Callable[[Any], bool], pod: Object) -> list[str]:
    return [name for name, value in _settings(pod, field) if test(value)]


def _app_armor(pod: Object, minor: int) -> Problem:
    def is_bad(kind: object) -> bool:
        return kind not in (None, "", "RuntimeDefault", "Localhost")

    parts, values = [], []
    own = get(pod, "spec", "securityContext", "appArmorProfile", "type")
    if is_bad(own):
        parts.append("pod")
        values.append(str(own))
    named = list(_settings(pod, "appArmorProfile", "type"))
    bad = [(name, kind) for name, kind in named if is_bad(kind)]
    if bad:
        parts.append(_named([name for name, _ in bad]))
        values += [str(kind) for _, kind in bad]
    notes = [
        f'{key}="{value}"'
        for key, value in sorted((get(pod, "metadata", "annotations") or {}).items())
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    ]
    texts = []
    if parts:
        shown = quoted(dict.fromkeys(values))
        texts.append(f"{' and '.join(parts)} must not set AppArmor profile type to {shown}")
    if notes:
        texts.append(f"{plural('annotation', len(notes))} {', '.join(notes)}")
    return f"forbidden AppArmor {plural('profile', len(values) + len(notes))} ({'; '.join(texts)})" if texts else ""


def _capabilities_baseline(pod: Object, minor: int) -> Problem:
    names, bad = [], set()
    for container in _containers(pod):
        added = set(get(container, "securityContext", "capabilities", "add") or ()) - _CAPABILITIES
        if added:
            names.append(container.get("name", ""))
            bad |= added
    if not names:
        return ""
    return (
        f"non-default capabilities ({_named(names)} must not include {quoted(sorted(bad))} "
        "in securityContext.capabilities.add)"
    )


def _host_namespaces(pod: Object, minor: int) -> Problem:
    used = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if pod["spec"].get(field)]
    return f"host namespaces ({', '.join(used)})" if used else ""


def _host_path(pod: Object, minor: int) -> Problem:
    names = [v.get("name", "") for v in pod["spec"].get("volumes") or () if "hostPath" in v]
    return f"hostPath volumes ({_named(names, 'volume')})" if names else ""


def _host_ports(pod: Object, minor: int) -> Problem:
    names, ports = [], set()
    for container in _containers(pod):
        used = {port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")}
        if used:
            names.append(container.get("name", ""))
            ports |= used
    if not names:
        return ""
    verb = "uses" if len(names) == 1 else "use"
    listed = ", ".join(sorted(str(port) for port in ports))
    return f"hostPort ({_named(names)} {verb} {plural('hostPort', len(ports))} {listed})"


def _probe_hosts(pod: Object, minor: int) -> Problem:
    names, hosts = [], set()
    for container in _containers(pod):
        handlers = [container.get(f) for f in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [get(container, "lifecycle", f) for f in ("postStart", "preStop")]
        used = {get(h, kind, "host") for h in handlers for kind in ("httpGet", "tcpSocket")} - {None, ""}
        if used:
            names.append(container.get("name", ""))
            hosts |= used
    if not names:
        return ""
    verb = "uses" if len(names) == 1 else "use"
    return (
        f"probe or lifecycle host ({_named(sorted(names))} {verb} "
        f"{plural('probe or lifecycle host', len(hosts))} {quoted(sorted(hosts))})"
    )


def _privileged(pod: Object, minor: int) -> Problem:
    names = _where("privileged", bool, pod)
    return f"privileged ({_named(names)} must not set securityContext.privileged=true)" if names else ""


def _proc_mount(pod: Object, minor: int) -> Problem:
    if _relaxed_by_user_namespace(pod, minor):
        return ""
    return _proc_mount_restricted(pod, minor)


def _proc_mount_restricted(pod: Object, minor: int) -> Problem:
    names = _where("procMount", lambda value: value not in (None, "", "Default"), pod)
    values = {value for _, value in _settings(pod, "procMount")} - {None, "", "Default"}
    if not names:
        return ""
    return f"procMount ({_named(names)} must not set securityContext.procMount to {quoted(sorted(values))})"


def _selinux(pod: Object, minor: int) -> Problem:
    allowed = _SELINUX_TYPES | ({"container_engine_t"} if minor >= 31 else set())
    holders = [("pod", get(pod, "spec", "securityContext", "seLinuxOptions") or {})]
    holders += [(name, options or {}) for name, options in _settings(pod, "seLinuxOptions")]

    def is_bad(options: Object) -> bool:
        return options.get("type", "") not in allowed or bool(options.get("user") or options.get("role"))

    parts = ["pod"] if is_bad(holders[0][1]) else []
    names = [name for name, options in holders[1:] if is_bad(options)]
    if names:
        parts.append(_named(names))
    if not parts:
        return ""
    every = [options for _, options in holders]
    details = []
    types = sorted({o.get("type", "") for o in every} - allowed)
    if types:
        details.append(f"type {quoted(types)}" if len(types) == 1 else f"types {quoted(types)}")
    for field in ("user", "role"):
        if any(options.get(field) for options in every):
            details.append(f"{field} may not be set")
    return f"seLinuxOptions ({' and '.join(parts)} set forbidden securityContext.seLinuxOptions: {'; '.join(details)})"


def _seccomp_notes(pod: Object) -> Problem:
    """Before 1.19 profiles were named by annotations."""
    keys = [_SECCOMP_POD, *(f"{_SECCOMP_CONTAINER}{c.get('name', '')}" for c in _containers(pod))]
    notes = get(pod, "metadata", "annotations") or {}

    def is_bad(value: str) -> bool:
        return value not in ("runtime/default", "docker/default") and not value.startswith("localhost/")

    bad = sorted(f'{key}="{notes[key]}"' for key in set(keys) if key in notes and is_bad(notes[key]))
    return f"seccompProfile (forbidden {plural('annotation', len(bad))} {', '.join(bad)})" if bad else ""


def _seccomp_baseline(pod: Object, minor: int) -> Problem:
    if minor < 19:
        return _seccomp_notes(pod)

    def is_bad(kind: object) -> bool:
        return kind not in (None, "", "RuntimeDefault", "Localhost")

    own = get(pod, "spec", "securityContext", "seccompProfile", "type")
    named = list(_settings(pod, "seccompProfile", "type"))
    bad = [(name, kind) for name, kind in named if is_bad(kind)]
    parts = ["pod"] if is_bad(own) else []
    if bad:
        parts.append(_named([name for name, _ in bad]))
    if not parts:
        return ""
    values = sorted({str(kind) for _, kind in bad} | ({str(own)} if is_bad(own) else set()))
    return (
        f"seccompProfile ({' and '.join(parts)} must not set securityContext.seccompProfile.type to {quoted(values)})"
    )


def _sysctls(pod: Object, minor: int) -> Problem:
    allowed = {name for since, names in _SYSCTLS if since <= minor for name in names.split()}
    used = [s.get("name", "") for s in get(pod, "spec", "securityContext", "sysctls") or ()]
    bad = [name for name in used if name not in allowed]
    return f"forbidden sysctls ({', '.join(bad)})" if bad else ""


def _windows_host_process(pod: Object, minor: int) -> Problem:
    own = get(pod, "spec", "securityContext", "windowsOptions", "hostProcess")
    names = [name for name, value in _settings(pod, "windowsOptions", "hostProcess") if value]
    parts = (["pod"] if own else []) + ([_named(names)] if names else [])
    if not parts:
        return ""
    return f"hostProcess ({' and '.join(parts)} must not set securityContext.windowsOptions.hostProcess=true)"


def _escalation(pod: Object, minor: int) -> Problem:
    if _is_windows(pod, minor):
        return ""
    names = _where("allowPrivilegeEscalation", lambda value: value is not False, pod)
    if not names:
        return ""
    return (
        f"allowPrivilegeEscalation != false ({_named(names)} must set securityContext.allowPrivilegeEscalation=false)"
    )


def _capabilities_restricted(pod: Object, minor: int) -> Problem:
    if _is_windows(pod, minor):
        return ""
    undropped, adding, added = [], [], set()
    for container in _containers(pod):
        capabilities = get(container, "securityContext", "capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            undropped.append(container.get("name", ""))
        extra = set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}
        if extra:
            adding.append(container.get("name", ""))
            added |= extra
    texts = []
    if undropped:
        texts.append(f'{_named(undropped)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        texts.append(f"{_named(adding)} must not include {quoted(sorted(added))} in securityContext.capabilities.add")
    return f"unrestricted capabilities ({'; '.join(texts)})" if texts else ""


def _restricted_volumes(pod: Object, minor: int) -> Problem:
    names, kinds = [], set()
    for volume in pod["spec"].get("volumes") or ():
        used = {key for key in volume if key != "name"} - _VOLUMES
        if used:
            names.append(volume.get("name", ""))
            kinds |= used
    if not names:
        return ""
    verb = "uses" if len(names) == 1 else "use"
    what = f"restricted volume {plural('type', len(kinds))} {quoted(sorted(kinds))}"
    return f"restricted volume types ({_named(names, 'volume')} {verb} {what})"


def _run_as_non_root(pod: Object, minor: int) -> Problem:
    if _relaxed_by_user_namespace(pod, minor):
        return ""
    own = get(pod, "spec", "securityContext", "runAsNonRoot")
    named = list(_settings(pod, "runAsNonRoot"))
    false = [name for name, value in named if value is False]
    unset = [name for name, value in named if value is None]
    texts = []
    if own is False or false:
        parts = (["pod"] if own is False else []) + ([_named(false)] if false else [])
        texts.append(f"{' and '.join(parts)} must not set securityContext.runAsNonRoot=false")
    elif own is not True and unset:
        texts.append(f"pod or {_named(unset)} must set securityContext.runAsNonRoot=true")
    return f"runAsNonRoot != true ({texts[0]})" if texts else ""


def _run_as_user(pod: Object, minor: int) -> Problem:
    if _relaxed_by_user_namespace(pod, minor):
        return ""
    names = _where("runAsUser", lambda value: value == 0, pod)
    parts = ["pod"] if get(pod, "spec", "securityContext", "runAsUser") == 0 else []
    parts += [_named(names)] if names else []
    return f"runAsUser=0 ({' and '.join(parts)} must not set runAsUser=0)" if parts else ""


def _seccomp_restricted(pod: Object, minor: int) -> Problem:
    if _is_windows(pod, minor):
        return ""
    bad = _seccomp_baseline(pod, minor)
    if bad:
        return bad
    if get(pod, "spec", "securityContext", "seccompProfile", "type"):
        return ""
    names = [name for name, kind in _settings(pod, "seccompProfile", "type") if not kind]
    if not names:
        return ""
    wanted = 'to "RuntimeDefault" or "Localhost"'
    return f"seccompProfile (pod or {_named(names)} must set securityContext.seccompProfile.type {wanted})"


_CHECKS: tuple[Check, ...] = (
    Check("appArmorProfile", "baseline", 0, _app_armor),
    Check("capabilities_baseline", "baseline", 0, _capabilities_baseline),
    Check("hostNamespaces", "baseline", 0, _host_namespaces),
    Check("hostPathVolumes", "baseline", 0, _host_path),
    Check("hostPorts", "baseline", 0, _host_ports),
    Check("hostProbesAndHostLifecycle", "baseline", 34, _probe_hosts),
    Check("privileged", "baseline", 0, _privileged),
    Check("procMount", "baseline", 0, _proc_mount),
    Check("seLinuxOptions", "baseline", 0, _selinux),
    Check("seccompProfile_baseline", "baseline", 0, _seccomp_baseline),
    Check("sysctls", "baseline", 0, _sysctls),
    Check("windowsHostProcess", "baseline", 0, _windows_host_process),
    Check("allowPrivilegeEscalation", "restricted", 8, _escalation),
    Check("capabilities_restricted", "restricted", 22, _capabilities_restricted, "capabilities_baseline"),
    Check("procMount_restricted", "restricted", 35, _proc_mount_restricted, "procMount"),
    Check("restrictedVolumes", "restricted", 0, _restricted_volumes, "hostPathVolumes"),
    Check("runAsNonRoot", "restricted", 0, _run_as_non_root),
    Check("runAsUser", "restricted", 23, _run_as_user),
    Check("seccompProfile_restricted", "restricted", 19, _seccomp_restricted, "seccompProfile_baseline"),
)
