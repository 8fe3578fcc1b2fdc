"""Rules for the containers of a pod: all of them, and those of each kind. Source: the Pod API documentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.validation import environment, handlers, resources, security, volumes
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    forbidden,
    invalid,
    name_of,
    not_found,
    one_of,
    port,
    required,
    too_many,
)

Spec = Mapping[str, Any]
PARTS = ("initContainers", "containers", "ephemeralContainers")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_RESTARTS = ("Always", "Never", "OnFailure")
_NOT_HERE = "may not be set for init containers without restartPolicy=Always"
#: Resizing what runs once cannot start it again; who said so before 1.36 may go on.
NO_RESTART = "must not be set to 'RestartContainer' for non-sidecar initContainers"
_NOT_EPHEMERAL = "cannot be set for an Ephemeral Container"
# In the order of the API's own struct.
_FORBIDDEN_EPHEMERAL = (
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    *handlers.PROBES,
    "lifecycle",
)


def every(field: str, spec: Spec) -> Iterator[tuple[str, Spec]]:
    """All containers of a pod with their paths, in the order in which they start."""
    for part in PARTS:
        for i, container in enumerate(spec.get(part) or ()):
            yield f"{field}.{part}[{i}]", container


def of_pod(field: str, spec: Spec, known: Mapping[str, Spec]) -> Causes:
    """The containers of a pod: `known` are its sound volumes."""
    listed = spec.get("containers") or ()
    grace = spec.get("terminationGracePeriodSeconds")
    seen: set[str] = set()
    if not listed:
        yield required(f"{field}.containers")
    for i, container in enumerate(listed):
        at = f"{field}.containers[{i}]"
        yield from _common(at, container, spec, known)
        yield from _unique(at, container, seen)
        yield from handlers.of_container(at, container, grace)
        if "restartPolicy" in container or "restartPolicyRules" in container:
            yield from _restart(at, container)
    yield from _host_ports(f"{field}.containers", listed)
    if spec.get("initContainers"):
        yield from _init(f"{field}.initContainers", spec, known, seen)
    if spec.get("ephemeralContainers"):
        yield from _ephemeral(f"{field}.ephemeralContainers", spec, known, seen)


def _unique(at: str, container: Spec, seen: set[str]) -> Causes:
    name = container.get("name", "")
    if name in seen:
        yield duplicate(f"{at}.name", name)
    seen.add(name)


def _init(field: str, spec: Spec, known: Mapping[str, Spec], seen: set[str]) -> Causes:
    for i, container in enumerate(spec["initContainers"]):
        at = f"{field}[{i}]"
        yield from _common(at, container, spec, known)
        if "restartPolicy" in container or "restartPolicyRules" in container:
            yield from _restart(at, container)
        name = container.get("name", "")
        if name in seen:
            yield duplicate(f"{at}.name", name)
        elif name:
            seen.add(name)
        yield from _host_ports(field, (container,))
        if container.get("restartPolicy") == "Always":
            yield from handlers.of_container(at, container, spec.get("terminationGracePeriodSeconds"))
            continue
        for part in ("lifecycle", *handlers.PROBES):
            if part in container:
                yield forbidden(f"{at}.{part}", _NOT_HERE)
        for j, policy in enumerate(container.get("resizePolicy") or ()):
            if policy.get("restartPolicy") == "RestartContainer":
                yield invalid(f"{at}.resizePolicy[{j}].restartPolicy", "RestartContainer", NO_RESTART)


def _ephemeral(field: str, spec: Spec, known: Mapping[str, Spec], seen: set[str]) -> Causes:
    others = set(seen)
    for i, container in enumerate(spec["ephemeralContainers"]):
        at = f"{field}[{i}]"
        yield from _common(at, container, spec, known)
        yield from image_text(at, container)
        yield from _unique(at, container, seen)
        target = container.get("targetContainerName")
        if target and target not in others:
            yield not_found(f"{at}.targetContainerName", target)
        for part in _FORBIDDEN_EPHEMERAL:
            if container.get(part):
                yield forbidden(f"{at}.{part}", _NOT_EPHEMERAL)
        for j, mount in enumerate(container.get("volumeMounts") or ()):
            for part in ("subPath", "subPathExpr"):
                if mount.get(part):
                    yield forbidden(f"{at}.volumeMounts[{j}].{part}", _NOT_EPHEMERAL)


def image_text(at: str, container: Spec) -> Causes:
    """What holds for the image of a pod and not of a template."""
    image = container.get("image", "")
    if image != image.strip():
        yield invalid(f"{at}.image", image, "must not have leading or trailing whitespace")


def _restart(at: str, container: Spec) -> Causes:
    """When a single container is started again."""
    rules = container.get("restartPolicyRules") or ()
    policy = container.get("restartPolicy")
    if policy is not None:
        yield from one_of(f"{at}.restartPolicy", policy, _RESTARTS)
    elif rules:
        yield required(f"{at}.restartPolicy", "must specify restartPolicy when restart rules are used")
    if len(rules) > 20:
        yield too_many(f"{at}.restartPolicyRules", len(rules), 20)
    for i, rule in enumerate(rules):
        here = f"{at}.restartPolicyRules[{i}]"
        yield from one_of(f"{here}.action", rule.get("action", ""), ("Restart", "RestartAllContainers"))
        codes = rule.get("exitCodes")
        if codes is None:
            yield required(f"{here}.exitCodes", "must be specified")
            continue
        yield from one_of(f"{here}.exitCodes.operator", codes.get("operator", ""), ("In", "NotIn"))
        if len(codes.get("values") or ()) > 255:
            yield too_many(f"{here}.exitCodes.values", len(codes["values"]), 255)


def _common(at: str, container: Spec, pod: Spec, known: Mapping[str, Spec]) -> Causes:
    """What holds for every container."""
    yield from name_of(f"{at}.name", container.get("name", ""), names.dns_label)
    if not container.get("image"):
        yield required(f"{at}.image")
    message = container.get("terminationMessagePolicy", "File")
    if message not in ("File", "FallbackToLogsOnError"):
        yield from one_of(f"{at}.terminationMessagePolicy", message, ("File", "FallbackToLogsOnError"))
    if "ports" in container:
        yield from _ports(f"{at}.ports", container["ports"] or ())
    if "env" in container or "envFrom" in container:
        yield from environment.of_container(at, container)
    if "volumeMounts" in container:
        yield from volumes.mounts(f"{at}.volumeMounts", container, known)
    if "volumeDevices" in container:
        yield from volumes.devices(f"{at}.volumeDevices", container, known)
    policy = container.get("imagePullPolicy", "Always")
    if policy not in _PULL_POLICIES:
        yield from one_of(f"{at}.imagePullPolicy", policy, _PULL_POLICIES)
    if container.get("resources"):
        yield from resources.requirements(f"{at}.resources", container["resources"], pod.get("resourceClaims") or ())
    if "resizePolicy" in container:
        yield from _resize(f"{at}.resizePolicy", container["resizePolicy"] or (), pod.get("restartPolicy", "Always"))
    if container.get("securityContext"):
        shared = (pod.get("hostUsers", True)) is not False
        yield from security.of_container(f"{at}.securityContext", container["securityContext"], shared)


def _resize(field: str, policies: Sequence[Spec], restart: str) -> Causes:
    """What happens to a container whose resources change."""
    seen: set[str] = set()
    for i, policy in enumerate(policies):
        name, then = policy.get("resourceName", ""), policy.get("restartPolicy", "")
        if name in seen:
            yield duplicate(f"{field}[{i}]", name)
        seen.add(name)
        for text, supported in ((name, ("cpu", "memory")), (then, ("NotRequired", "RestartContainer"))):
            if not text:
                yield required(field)
            else:
                yield from one_of(field, text, supported)
        if restart == "Never" and then != "NotRequired":
            yield invalid(field, then, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")


def _ports(field: str, ports: Sequence[Spec]) -> Causes:
    seen: set[str] = set()
    for i, value in enumerate(ports):
        at = f"{field}[{i}]"
        name = value.get("name", "")
        if name:
            problems = names.port_name(name)
            yield from each(f"{at}.name", name, problems)
            if not problems and name in seen:
                yield duplicate(f"{at}.name", name)
            elif not problems:
                seen.add(name)
        if not value.get("containerPort"):
            yield required(f"{at}.containerPort")
        else:
            yield from port(f"{at}.containerPort", value["containerPort"])
        if value.get("hostPort"):
            yield from port(f"{at}.hostPort", value["hostPort"])
        yield from one_of(f"{at}.protocol", value.get("protocol", "TCP"), _PROTOCOLS)


def _host_ports(field: str, containers: Sequence[Spec]) -> Causes:
    """No port of the node twice."""
    seen: set[str] = set()
    for i, container in enumerate(containers):
        for j, value in enumerate(container.get("ports") or ()):
            if not value.get("hostPort"):
                continue
            key = f"{value.get('protocol', 'TCP')}/{value.get('hostIP', '')}/{value['hostPort']}"
            if key in seen:
                yield duplicate(f"{field}[{i}].ports[{j}].hostPort", key)
            seen.add(key)


def on_host_network(field: str, spec: Spec, *, template: bool) -> Causes:
    """On the node's own network a port of the node is the port of the container; a template may leave it out."""
    for i, container in enumerate(spec.get("containers") or ()):
        for j, value in enumerate(container.get("ports") or ()):
            number = value.get("hostPort", 0)
            if (not template or number) and number != value.get("containerPort", 0):
                why = "must match `containerPort` when `hostNetwork` is true"
                yield invalid(f"{field}.containers[{i}].ports[{j}].hostPort", number, why)
