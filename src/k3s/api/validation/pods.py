"""Rules for pods and pod templates: containers, probes, environment, and what of a running pod may change.

Source: the Pod API documentation; order and wording as recorded from upstream 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation import resources, scheduling, volumes
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    forbidden,
    internal,
    invalid,
    ip,
    name_of,
    not_negative,
    one_of,
    port,
    port_or_name,
    required,
    unsupported,
)

Spec = Mapping[str, Any]

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_FIELD_PATHS = {
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.annotations",
    "metadata.labels",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
}
_ENV_PATHS = sorted(_FIELD_PATHS - {"metadata.annotations", "metadata.labels", "spec.schedulerName", "status.phase"})
_RESOURCE_PATHS: tuple[str, ...] = ("limits.cpu", "limits.ephemeral-storage", "limits.memory")
_RESOURCE_PATHS += ("requests.cpu", "requests.ephemeral-storage", "requests.memory")
_CHANGEABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def create(obj: Object) -> Causes:
    """A new pod."""
    yield from spec("spec", obj.get("spec") or {})


def template(field: str, value: Spec, restart: Sequence[str] = ()) -> Causes:
    """A pod template; `restart` lists the restart policies that its owner allows."""
    from k3s.api.validation import meta
    from k3s.api.validation.causes import labels

    metadata = value.get("metadata") or {}
    yield from labels(f"{field}.labels", metadata.get("labels"))
    yield from meta.annotation_keys(f"{field}.annotations", metadata.get("annotations"))
    inner = value.get("spec") or {}
    yield from spec(f"{field}.spec", inner)
    if inner.get("ephemeralContainers"):
        yield forbidden(f"{field}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")
    if restart and inner.get("restartPolicy", "Always") not in restart and inner.get("containers"):
        yield unsupported(f"{field}.spec.restartPolicy", inner.get("restartPolicy", ""), restart)


def spec(field: str, value: Spec) -> Causes:
    """A pod spec."""
    known, causes = volumes.all_of(f"{field}.volumes", value.get("volumes") or ())
    yield from causes
    yield from _containers(field, value, known)
    yield from _lifetime(field, value)
    yield from scheduling.of_pod(field, value)
    for name in ("serviceAccountName", "nodeName", "runtimeClassName", "priorityClassName"):
        if value.get(name):
            yield from each(f"{field}.{name}", value[name], names.dns_subdomain(value[name]))
    for name in ("hostname", "subdomain"):
        if value.get(name):
            yield from each(f"{field}.{name}", value[name], names.dns_label(value[name]))
    for i, alias in enumerate(value.get("hostAliases") or ()):
        yield from ip(f"{field}.hostAliases[{i}].ip", alias.get("ip", ""))
        for j, host in enumerate(alias.get("hostnames") or ()):
            yield from each(f"{field}.hostAliases[{i}].hostnames[{j}]", host, names.dns_subdomain(host))
    yield from _dns(field, value)
    yield from _security(field, value)


def _lifetime(field: str, value: Spec) -> Causes:
    yield from one_of(f"{field}.restartPolicy", value.get("restartPolicy", "Always"), ("Always", "OnFailure", "Never"))
    policies = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
    yield from one_of(f"{field}.dnsPolicy", value.get("dnsPolicy", "ClusterFirst"), policies)
    grace = value.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        yield invalid(f"{field}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
    deadline = value.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2147483647:
        yield invalid(f"{field}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")


def _dns(field: str, value: Spec) -> Causes:
    config = value.get("dnsConfig")
    servers = (config or {}).get("nameservers") or ()
    at = f"{field}.dnsConfig"
    if value.get("dnsPolicy") == "None" and not servers:
        why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        yield required(f"{at}.nameservers" if config is not None else at, why)
    if len(servers) > 3:
        yield invalid(f"{at}.nameservers", list(servers), "must not have more than 3 nameservers")
    for i, server in enumerate(servers):
        yield from ip(f"{at}.nameservers[{i}]", server)
    searches = (config or {}).get("searches") or ()
    if len(searches) > 32:
        yield invalid(f"{at}.searches", list(searches), "must not have more than 32 search paths")
    for i, option in enumerate((config or {}).get("options") or ()):
        if not option.get("name"):
            yield required(f"{at}.options[{i}]", "must not be empty")


def _security(field: str, value: Spec) -> Causes:
    context = value.get("securityContext") or {}
    at = f"{field}.securityContext"
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        if name in context and not 0 <= context[name] <= 2147483647:
            yield invalid(f"{at}.{name}", context[name], "must be between 0 and 2147483647, inclusive")
    for i, group in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= group <= 2147483647:
            yield invalid(f"{at}.supplementalGroups[{i}]", group, "must be between 0 and 2147483647, inclusive")
    policy = context.get("fsGroupChangePolicy")
    if policy is not None:
        yield from one_of(f"{at}.fsGroupChangePolicy", policy, ("Always", "OnRootMismatch"))
    if context.get("hostUsers") is False and value.get("hostNetwork"):
        yield forbidden(f"{field}.hostNetwork", "when `hostUsers` is false")


def _containers(field: str, value: Spec, known: Mapping[str, str]) -> Causes:
    """Containers, init containers and ephemeral ones share one space of names."""
    seen: set[str] = set()
    listed = value.get("containers") or ()
    if not listed:
        yield required(f"{field}.containers")
    for part in ("containers", "initContainers", "ephemeralContainers"):
        for i, container in enumerate(value.get(part) or ()):
            at = f"{field}.{part}[{i}]"
            name = container.get("name", "")
            yield from name_of(f"{at}.name", name, names.dns_label)
            if name and name in seen:
                yield duplicate(f"{at}.name", name)
            seen.add(name)
            yield from _container(at, container, known, value, part)
    yield from _host_ports(field, listed)


def _container(at: str, container: Spec, known: Mapping[str, str], pod: Spec, part: str) -> Causes:
    image = container.get("image", "")
    if not image:
        yield required(f"{at}.image")
    elif image != image.strip():
        yield invalid(f"{at}.image", image, "must not have leading or trailing whitespace")
    yield from _lifecycle(f"{at}.lifecycle", container.get("lifecycle"))
    restart = container.get("restartPolicy")
    sidecar = part == "initContainers" and restart == "Always"
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe is None:
            continue
        if part == "initContainers" and not sidecar:
            yield forbidden(f"{at}.{name}", "may not be set for init containers without restartPolicy=Always")
        yield from _probe(f"{at}.{name}", probe, name, pod.get("terminationGracePeriodSeconds"))
    if restart is not None:
        yield from one_of(f"{at}.restartPolicy", restart, ("Always", "Never", "OnFailure"))
    yield from one_of(
        f"{at}.terminationMessagePolicy",
        container.get("terminationMessagePolicy", "File"),
        ("FallbackToLogsOnError", "File"),
    )
    yield from _ports(f"{at}.ports", container.get("ports") or (), bool(pod.get("hostNetwork")))
    yield from _env(at, container)
    devices = {d.get("name") for d in container.get("volumeDevices") or ()}
    yield from volumes.mounts(f"{at}.volumeMounts", container.get("volumeMounts") or (), known, devices)
    yield from volumes.devices(f"{at}.volumeDevices", container.get("volumeDevices") or (), known)
    yield from one_of(f"{at}.imagePullPolicy", container.get("imagePullPolicy", "Always"), _PULL_POLICIES)
    yield from resources.requirements(f"{at}.resources", container.get("resources"))
    yield from _container_security(f"{at}.securityContext", container.get("securityContext") or {})


def _container_security(at: str, context: Spec) -> Causes:
    for name in ("runAsUser", "runAsGroup"):
        if name in context and not 0 <= context[name] <= 2147483647:
            yield invalid(f"{at}.{name}", context[name], "must be between 0 and 2147483647, inclusive")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            yield invalid(at, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            yield invalid(at, context, why)


def _ports(field: str, ports: Sequence[Spec], host_network: bool) -> Causes:
    seen: set[str] = set()
    for i, value in enumerate(ports):
        at = f"{field}[{i}]"
        name = value.get("name", "")
        if name:
            problems = names.port_name(name)
            yield from each(f"{at}.name", name, problems)
            if name in seen:
                yield duplicate(f"{at}.name", name)
            seen.add(name)
        if not value.get("containerPort"):
            yield required(f"{at}.containerPort")
        else:
            yield from port(f"{at}.containerPort", value["containerPort"])
        if value.get("hostPort"):
            yield from port(f"{at}.hostPort", value["hostPort"])
            if host_network and value["hostPort"] != value.get("containerPort"):
                yield invalid(
                    f"{at}.hostPort", value["hostPort"], "must match `containerPort` when `hostNetwork` is true"
                )
        yield from one_of(f"{at}.protocol", value.get("protocol", "TCP"), _PROTOCOLS)


def _host_ports(field: str, containers: Sequence[Spec]) -> Causes:
    seen: set[tuple[Any, ...]] = set()
    for i, container in enumerate(containers):
        for j, value in enumerate(container.get("ports") or ()):
            number = value.get("hostPort")
            if not number:
                continue
            key = (value.get("protocol", "TCP"), value.get("hostIP", ""), number)
            if key in seen:
                yield duplicate(f"{field}.containers[{i}].ports[{j}].hostPort", "/".join(str(k) for k in key))
            seen.add(key)


def _env(at: str, container: Spec) -> Causes:
    for i, var in enumerate(container.get("env") or ()):
        here = f"{at}.env[{i}]"
        if not var.get("name"):
            yield required(f"{here}.name")
        else:
            yield from each(f"{here}.name", var["name"], names.env_var_name(var["name"]))
        source = var.get("valueFrom")
        if source is not None:
            yield from _env_source(f"{here}.valueFrom", source, var.get("value", ""))
    for i, source in enumerate(container.get("envFrom") or ()):
        here = f"{at}.envFrom[{i}]"
        if source.get("prefix"):
            yield from each(f"{here}.prefix", source["prefix"], names.env_var_name(source["prefix"]))
        given = [kind for kind in ("configMapRef", "secretRef") if kind in source]
        if not given:
            yield invalid(here, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            yield invalid(here, "", "may not have more than one field specified at a time")
        for kind in given:
            yield from name_of(f"{here}.{kind}.name", source[kind].get("name", ""))


def _env_source(at: str, source: Spec, value: str) -> Causes:
    given = [kind for kind in ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef") if kind in source]
    if "fieldRef" in source:
        yield from field_ref(f"{at}.fieldRef", source["fieldRef"], _ENV_PATHS)
    if "resourceFieldRef" in source:
        yield from resource_ref(f"{at}.resourceFieldRef", source["resourceFieldRef"], volume=False)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind in source:
            if not source[kind].get("name"):
                yield required(f"{at}.{kind}.name")
            key = source[kind].get("key", "")
            if not key:
                yield required(f"{at}.{kind}.key")
            else:
                yield from each(f"{at}.{kind}.key", key, names.config_map_key(key))
    if not given and "fileKeyRef" not in source:
        yield invalid(
            at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        )
    elif value:
        yield invalid(at, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        yield invalid(at, "", "may not have more than one field specified at a time")


def field_ref(at: str, ref: Spec, supported: Sequence[str]) -> Causes:
    """A reference to a field of the pod itself."""
    path = ref.get("fieldPath", "")
    if not path:
        yield required(f"{at}.fieldPath")
        return
    base, bracket, rest = path.partition("['")
    if bracket:
        if base not in ("metadata.labels", "metadata.annotations") or not rest.endswith("']"):
            yield invalid(f"{at}.fieldPath", path, f"error converting fieldPath: field label not supported: {path}")
        return
    if path not in _FIELD_PATHS:
        yield invalid(f"{at}.fieldPath", path, f"error converting fieldPath: field label not supported: {path}")
    else:
        yield from one_of(f"{at}.fieldPath", path, supported)


def resource_ref(at: str, ref: Spec, *, volume: bool) -> Causes:
    """A reference to an amount of resources of a container."""
    if volume and not ref.get("containerName"):
        yield required(f"{at}.containerName")
    path = ref.get("resource", "")
    if not path:
        yield required(f"{at}.resource")
    elif not path.startswith(("limits.hugepages-", "requests.hugepages-")):
        yield from one_of(f"{at}.resource", path, _RESOURCE_PATHS)


def _lifecycle(at: str, hooks: Spec | None) -> Causes:
    for name in ("postStart", "preStop"):
        if hooks and name in hooks:
            yield from _handler(f"{at}.{name}", hooks[name], ("exec", "httpGet", "tcpSocket", "sleep"))


def _probe(at: str, probe: Spec, kind: str, pod_grace: int | None) -> Causes:
    yield from _handler(at, probe, ("exec", "httpGet", "tcpSocket", "grpc"))
    numbers = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
    yield from not_negative(at, probe, *numbers)
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        yield invalid(f"{at}.terminationGracePeriodSeconds", grace, "must be greater than 0")
    if kind == "readinessProbe":
        if grace is not None:
            yield invalid(f"{at}.terminationGracePeriodSeconds", grace, "must not be set for readinessProbes")
    elif probe.get("successThreshold", 1) != 1:
        yield invalid(f"{at}.successThreshold", probe["successThreshold"], "must be 1")


def _handler(at: str, handler: Spec, kinds: Sequence[str]) -> Causes:
    found = 0
    for kind in kinds:
        action = handler.get(kind)
        if action is None:
            continue
        found += 1
        if found > 1:
            yield forbidden(f"{at}.{kind}", "may not specify more than 1 handler type")
        elif kind == "exec":
            if not action.get("command"):
                yield required(f"{at}.exec.command")
        elif kind == "httpGet":
            yield from _http(f"{at}.httpGet", action)
        elif kind == "tcpSocket":
            yield from port_or_name(f"{at}.tcpSocket.port", action.get("port"))
        elif kind == "grpc":
            yield from port(f"{at}.grpc.port", action.get("port"))
    if not found:
        yield required(at, "must specify a handler type")


def _http(at: str, action: Spec) -> Causes:
    if not action.get("path", "/"):
        yield required(f"{at}.path")
    yield from port_or_name(f"{at}.port", action.get("port"))
    yield from one_of(f"{at}.scheme", action.get("scheme", "HTTP"), ("HTTP", "HTTPS"))
    for header in action.get("httpHeaders") or ():
        yield from each(f"{at}.httpHeaders", header.get("name", ""), names.http_header_name(header.get("name", "")))


def update(old: Object, new: Object) -> Causes:
    """What may change of a pod: images, the deadline downwards, more tolerations, fewer gates."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if before == after:
        return
    yield from create(new)
    yield from _images(after)
    for part in ("containers", "initContainers"):
        if len(before.get(part) or ()) != len(after.get(part) or ()):
            yield forbidden(f"spec.{part}", "pod updates may not add or remove containers")
            return
    yield from _gates(before, after)
    deadline, was = after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if was is not None and (deadline is None or deadline > was):
        why = (
            "must be less than or equal to previous value"
            if deadline is not None
            else "must not update from a positive integer to nil value"
        )
        yield invalid("spec.activeDeadlineSeconds", deadline, why)
    kept = after.get("tolerations") or []
    if any(t not in kept for t in before.get("tolerations") or ()):
        yield forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    gated = bool(before.get("schedulingGates"))
    if _fixed(before, gated) != _fixed(after, gated):
        yield forbidden("spec", f"{_CHANGEABLE}\n{_difference(before, after)}")


def _images(spec_: Spec) -> Causes:
    """Images once more: they are looked at as part of the pod, and as what may change of it."""
    for part in ("containers", "initContainers"):
        for i, container in enumerate(spec_.get(part) or ()):
            if not container.get("image"):
                yield required(f"spec.{part}[{i}].image")


def _difference(before: Spec, after: Spec) -> str:
    """The fields of a spec that changed, so that the message tells what is not allowed."""
    names_ = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return "\n".join(f"changed: spec.{name}" for name in names_)


def _gates(before: Spec, after: Spec) -> Causes:
    known = {gate.get("name") for gate in before.get("schedulingGates") or ()}
    for i, gate in enumerate(after.get("schedulingGates") or ()):
        if gate.get("name") not in known:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            yield forbidden(f"spec.schedulingGates[{i}].name", why)


def _fixed(spec_: Spec, gated: bool) -> Object:
    """What of a pod spec has to stay as it is; a gated pod may still narrow where it can go."""
    skip = {"activeDeadlineSeconds", "tolerations", "schedulingGates"}
    if gated:
        skip |= {"nodeSelector", "affinity"}
    out = {key: value for key, value in spec_.items() if key not in skip}
    for part in ("containers", "initContainers"):
        if part in out:
            out[part] = [{**container, "image": ""} for container in out[part]]
    if out.get("terminationGracePeriodSeconds", 0) < 0:
        out["terminationGracePeriodSeconds"] = 1
    return out


def _addresses(at: str, entries: Sequence[Spec]) -> Causes:
    """At most one address of each family."""
    texts = [entry.get("ip", "") for entry in entries]
    for i, text in enumerate(texts):
        yield from ip(f"{at}[{i}]", text)
    if len(texts) > len({":" in text for text in texts}):
        yield invalid(at, [internal(entry) for entry in entries], "may specify no more than one IP for each IP family")
    for i, text in enumerate(texts):
        if text in texts[:i]:
            yield duplicate(f"{at}[{i}]", internal(entries[i]))


def status(obj: Object) -> Causes:
    """Addresses in the status of a pod."""
    found = obj.get("status") or {}
    for part in ("podIPs", "hostIPs"):
        yield from _addresses(f"status.{part}", found.get(part) or ())
    if found.get("hostIP"):
        yield from ip("status.hostIP", found["hostIP"])
