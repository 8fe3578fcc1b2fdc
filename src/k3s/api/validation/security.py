"""Rules for the security contexts of pods and containers, and for what an operating system knows of them.

Source: the Pod API documentation and "Configure a Security Context".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    forbidden,
    internal,
    invalid,
    one_of,
    required,
    too_long,
)
from k3s.api.validation.volumesources import relative

Spec = Mapping[str, Any]
Walk = Callable[[str, Spec], Iterator[tuple[str, Spec]]]

_ID = "must be between 0 and 2147483647, inclusive"
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_SYSCTL = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
_is_sysctl = re.compile(_SYSCTL.removesuffix("$") + r"\Z").match
# Beginnings of the parameters that a network or an IPC namespace has for itself.
_NET_SYSCTLS = ("net.",)
_IPC_SYSCTLS = ("kernel.sem", "kernel.msg", "kernel.shm", "fs.mqueue.")
_ESCALATION = "cannot set `allowPrivilegeEscalation` to false and "
_FOR_WINDOWS = "cannot be set for a windows pod"
# What a Windows pod has not: fields of its spec and of its security context, in the order of the messages.
_POD_WINDOWS = (
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "shareProcessNamespace",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.seLinuxChangePolicy",
)
_CONTAINER_WINDOWS = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
)


def _ids(at: str, context: Spec, fields: Sequence[str]) -> Causes:
    for field in fields:
        if field in context and not 0 <= context[field] <= 2147483647:
            yield invalid(f"{at}.{field}", context[field], _ID)


def of_pod(field: str, spec: Spec) -> Causes:
    """The security context of a whole pod."""
    context = spec.get("securityContext")
    at = f"{field}.securityContext"
    if context:
        yield from _ids(at, context, ("fsGroup", "runAsUser", "runAsGroup"))
        for i, group in enumerate(context.get("supplementalGroups") or ()):
            if not 0 <= group <= 2147483647:
                yield invalid(f"{at}.supplementalGroups[{i}]", group, _ID)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        why = "ShareProcessNamespace and HostPID cannot both be enabled"
        yield invalid(f"{at}.shareProcessNamespace", True, why)
    if not context:
        return
    yield from _sysctls(f"{at}.sysctls", context.get("sysctls") or (), spec)
    if "fsGroupChangePolicy" in context:
        yield from one_of(f"{at}.fsGroupChangePolicy", context["fsGroupChangePolicy"], ("Always", "OnRootMismatch"))
    yield from _profiles(at, context)
    if "supplementalGroupsPolicy" in context:
        yield from one_of(f"{at}.supplementalGroupsPolicy", context["supplementalGroupsPolicy"], ("Merge", "Strict"))
    if "seLinuxChangePolicy" in context:
        yield from one_of(f"{at}.seLinuxChangePolicy", context["seLinuxChangePolicy"], ("MountOption", "Recursive"))


def _profiles(at: str, context: Spec) -> Causes:
    if "seccompProfile" in context:
        yield from _seccomp(f"{at}.seccompProfile", context["seccompProfile"])
    if "windowsOptions" in context:
        yield from _windows(f"{at}.windowsOptions", context["windowsOptions"])
    if "appArmorProfile" in context:
        yield from app_armor(f"{at}.appArmorProfile", context["appArmorProfile"])


def _sysctls(field: str, values: Sequence[Spec], pod: Spec) -> Causes:
    seen: set[str] = set()
    for i, value in enumerate(values):
        at, name = f"{field}[{i}].name", value.get("name", "")
        if not name:
            yield required(at)
        elif len(name) > 253 or not _is_sysctl(name):
            yield invalid(at, name, f"must have at most 253 characters and match regex {_SYSCTL}")
        elif name in seen:
            yield duplicate(at, name)
        seen.add(name)
        dotted = _dotted(name)
        if pod.get("hostNetwork") and dotted.startswith(_NET_SYSCTLS):
            yield invalid(at, name, "may not be specified when 'hostNetwork' is true")
        elif pod.get("hostIPC") and dotted.startswith(_IPC_SYSCTLS):
            yield invalid(at, name, "may not be specified when 'hostIPC' is true")


def _dotted(name: str) -> str:
    """A kernel parameter in the form with dots: slashes may stand for them, and dots then for slashes."""
    first = re.search(r"[./]", name)
    if first is None or first.group() == ".":
        return name
    return name.translate(str.maketrans("./", "/."))


def _seccomp(at: str, profile: Spec) -> Causes:
    kind, local = profile.get("type", ""), profile.get("localhostProfile")
    if not kind:
        yield required(f"{at}.type", "type is required when seccompProfile is set")
    else:
        yield from one_of(f"{at}.type", kind, _PROFILES)
    if kind == "Localhost":
        if local is None:
            yield required(f"{at}.localhostProfile", "must be set when seccomp type is Localhost")
        else:
            yield from relative(f"{at}.localhostProfile", local)
    elif local is not None:
        shown = internal({"type": kind, "localhostProfile": local})
        yield invalid(f"{at}.localhostProfile", shown, "can only be set when seccomp type is Localhost")


def app_armor(at: str, profile: Spec) -> Causes:
    """An AppArmor profile: of a known type, with the name of one of the node's own where the type asks for it."""
    kind, local, field = profile.get("type", ""), profile.get("localhostProfile"), f"{at}.localhostProfile"
    if kind == "Localhost":
        if local is None or not local:
            yield required(field, "must be set when AppArmor type is Localhost")
        elif local != local.strip():
            yield invalid(field, local, "must not be padded with whitespace")
        if local is not None and len(local) > 4095:
            yield too_long(field, 4095)
    elif not kind:
        yield required(f"{at}.type", "type is required when appArmorProfile is set")
    elif kind not in _PROFILES:
        yield from one_of(f"{at}.type", kind, _PROFILES)
    elif local is not None:
        yield invalid(field, local, "can only be set when AppArmor type is Localhost")


_NETBIOS = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}\Z')
_DNS = re.compile(
    r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*\Z"
)


def _windows(at: str, options: Spec) -> Causes:
    name, text, user = (options.get(k) for k in ("gmsaCredentialSpecName", "gmsaCredentialSpec", "runAsUserName"))
    if name is not None:
        yield from each(f"{at}.gmsaCredentialSpecName", name, names.dns_subdomain(name))
    if text == "":
        yield invalid(f"{at}.gmsaCredentialSpec", text, "gmsaCredentialSpec cannot be an empty string")
    elif text is not None and len(text) > 64 * 1024:
        yield invalid(f"{at}.gmsaCredentialSpec", text, "gmsaCredentialSpec size must be under 64 KiB")
    if user is not None:
        yield from each(f"{at}.runAsUserName", user, _user_problems(user))


def _user_problems(text: str) -> list[str]:
    """What is wrong with the name of a Windows user, which may have a domain before a backslash."""
    parts = text.split("\\")
    if not text:
        return ["runAsUserName cannot be an empty string"]
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        return ["runAsUserName cannot contain control characters"]
    if len(parts) > 2:
        return ["runAsUserName cannot contain more than one backslash"]
    user, problems = parts[-1], []
    if len(parts) == 2:
        if len(parts[0]) >= 256:
            problems.append("runAsUserName's Domain length must be under 256 characters")
        if not (_NETBIOS.match(parts[0]) or _DNS.match(parts[0])):
            problems.append("runAsUserName's Domain doesn't match the NetBios nor the DNS format")
    if not user:
        problems.append("runAsUserName's User cannot be empty")
    elif len(user) > 104:
        problems.append("runAsUserName's User length must not be longer than 104 characters")
    if user and not user.strip(". "):
        problems.append("runAsUserName's User cannot contain only periods or spaces")
    if any(c in '"/\\:;|=,+*?<>@[]' for c in user):
        problems.append("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")
    return problems


_CONTEXT = (
    "capabilities",
    "privileged",
    "seLinuxOptions",
    "windowsOptions",
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "readOnlyRootFilesystem",
    "allowPrivilegeEscalation",
    "procMount",
    "seccompProfile",
    "appArmorProfile",
)


def of_container(at: str, context: Spec, host_users: bool) -> Causes:
    """The security context of a container; `host_users`: its users are those of the node."""
    yield from _ids(at, context, ("runAsUser", "runAsGroup"))
    mount = context.get("procMount")
    if mount is not None:
        yield from one_of(f"{at}.procMount", mount, ("Default", "Unmasked"))
        if host_users and mount == "Unmasked":
            yield invalid(f"{at}.procMount", mount, "`hostUsers` must be false to use `Unmasked`")
    if "seccompProfile" in context:
        yield from _seccomp(f"{at}.seccompProfile", context["seccompProfile"])
    if context.get("allowPrivilegeEscalation") is False:
        shown = internal({field: context.get(field) for field in _CONTEXT})
        if context.get("privileged"):
            yield invalid(at, shown, f"{_ESCALATION}`privileged` to true")
        for name in (context.get("capabilities") or {}).get("add") or ():
            if name == "CAP_SYS_ADMIN":
                yield invalid(at, shown, f"{_ESCALATION}`capabilities.Add` CAP_SYS_ADMIN")
    yield from _profiles(at, {key: value for key, value in context.items() if key != "seccompProfile"})


_OWN_USERS = "when `hostUsers` is false"


def host_users(field: str, spec: Spec, walk: Walk) -> Causes:
    """A pod with users of its own shares no other namespace with its node, and no raw devices."""
    if spec.get("hostUsers") is not False:
        return
    for name, shown in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
        if spec.get(name):
            yield forbidden(f"{field}.{shown}", _OWN_USERS)
    for at, container in walk(field, spec):
        if container.get("volumeDevices"):
            yield forbidden(f"{at}.volumeDevices", _OWN_USERS)


def host_process(field: str, spec: Spec, walk: Walk) -> Causes:
    """Windows containers that are processes of the node: all of a pod, or none."""
    overall = ((spec.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    count = total = 0
    for at, container in walk(field, spec):
        own = ((container.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
        total += 1
        if overall is not None and own is not None and own != overall:
            why = "pod hostProcess value must be identical if both are specified, was " + str(overall).lower()
            yield invalid(f"{at}.securityContext.windowsOptions.hostProcess", own, why)
        count += bool(overall if own is None else own)
    if not count:
        return
    if count != total:
        why = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        yield invalid(field, "", why)
    if not spec.get("hostNetwork"):
        why = "hostNetwork must be true if pod contains any hostProcess containers"
        yield invalid(f"{field}.hostNetwork", False, why)


def of_os(field: str, spec: Spec, walk: Walk) -> Causes:
    """What the operating system that a pod names has not."""
    name = (spec.get("os") or {}).get("name", "")
    if not name:
        yield required(f"{field}.os.name", "cannot be empty")
    elif name == "linux":
        why = "windows options cannot be set for a linux pod"
        for at, holder in ((field, spec), *walk(field, spec)):
            if "windowsOptions" in (holder.get("securityContext") or {}):
                yield forbidden(f"{at}.securityContext.windowsOptions", why)
    elif name == "windows":
        for path in _POD_WINDOWS:
            part, dot, inner = path.partition(".")
            value = (spec.get(part) or {}).get(inner) if dot else spec.get(part)
            said = part in ("hostUsers", "shareProcessNamespace") or not (value is False or value == [])
            if value is not None and said:
                yield forbidden(f"{field}.{path}", _FOR_WINDOWS)
        for at, container in walk(field, spec):
            for part in _CONTAINER_WINDOWS:
                if part in (container.get("securityContext") or {}):
                    yield forbidden(f"{at}.securityContext.{part}", _FOR_WINDOWS)
    else:
        yield from one_of(f"{field}.os", name, ("linux", "windows"))
