"""Rules for pods and pod templates.

Source: the Pod API documentation; order and wording as recorded from upstream 1.36.

What of a pod may change is in `podchanges`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation import (
    containers,
    environment,
    meta,
    podnotes,
    podresources,
    resources,
    scheduling,
    security,
    volumes,
)
from k3s.api.validation.causes import (
    Causes,
    each,
    forbidden,
    invalid,
    ip,
    labels,
    one_of,
    required,
    too_long,
    unsupported,
)

Spec = Mapping[str, Any]

_RESTARTS = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_TOKEN_ALONE = "must not be specified when serviceAccountName is not set"


def create(obj: Object) -> Causes:
    """A new pod."""
    inner = obj.get("spec") or {}
    yield from whole(obj)
    if inner.get("ephemeralContainers"):
        yield forbidden("spec.ephemeralContainers", "cannot be set on create")
    if inner.get("nodeName") and inner.get("schedulingGates"):
        yield forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")
    notes = (obj.get("metadata") or {}).get("annotations")
    if notes:
        yield from podnotes.match_fields("spec", notes, inner)


def whole(obj: Object) -> Causes:
    """What holds for a new and for a changed pod, and not for a template."""
    metadata, inner = obj.get("metadata") or {}, obj.get("spec") or {}
    if metadata.get("annotations"):
        yield from podnotes.check("metadata.annotations", metadata["annotations"], inner)
    yield from spec("spec", inner, metadata.get("name", ""))
    if not inner.get("serviceAccountName"):
        for i, volume in enumerate(inner.get("volumes") or ()):
            for j, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
                if "serviceAccountToken" in source:
                    yield forbidden(f"spec.volumes[{i}].projected.sources[{j}].serviceAccountToken", _TOKEN_ALONE)
    for part in ("containers", "initContainers"):
        for i, container in enumerate(inner.get(part) or ()):
            yield from containers.image_text(f"spec.{part}[{i}]", container)


def template(field: str, value: Spec, restart: Sequence[str] = (), owner: str = "") -> Causes:
    """A pod template; `restart` lists the restart policies that its owner, a kind of that name, allows."""
    metadata = value.get("metadata") or {}
    inner = value.get("spec") or {}
    notes = metadata.get("annotations")
    yield from labels(f"{field}.labels", metadata.get("labels"))
    if notes:
        yield from meta.annotation_keys(f"{field}.annotations", notes)
        yield from podnotes.check(f"{field}.annotations", notes, inner)
    yield from spec(f"{field}.spec", inner)
    if notes:
        yield from podnotes.match_fields(f"{field}.spec", notes, inner)
    if inner.get("ephemeralContainers"):
        yield forbidden(f"{field}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")
    if restart and inner.get("restartPolicy", "Always") not in restart:
        yield unsupported(f"{field}.spec.restartPolicy", inner.get("restartPolicy", ""), restart)
    if owner and "activeDeadlineSeconds" in inner:
        why = f"activeDeadlineSeconds in {owner} is not Supported"
        yield forbidden(f"{field}.spec.activeDeadlineSeconds", why)


def spec(field: str, value: Spec, pod: str = "") -> Causes:
    """A pod spec; `pod` is the pod's name, "" for a template."""
    known: Mapping[str, Spec] = {}
    if "volumes" in value:
        known, causes = volumes.all_of(f"{field}.volumes", value["volumes"] or (), pod)
        yield from causes
    if "resourceClaims" in value:
        yield from volumes.claims(f"{field}.resourceClaims", value["resourceClaims"] or ())
    yield from containers.of_pod(field, value, known)
    if value.get("resources") is not None:
        yield from podresources.check(f"{field}.resources", value)
    if value.get("hostNetwork"):
        yield from containers.on_host_network(field, value, template=not pod)
    restart, dns = value.get("restartPolicy", "Always"), value.get("dnsPolicy", "ClusterFirst")
    if restart not in _RESTARTS:
        yield unsupported(f"{field}.restartPolicy", restart, _RESTARTS)
    if dns not in _DNS_POLICIES:
        yield unsupported(f"{field}.dnsPolicy", dns, _DNS_POLICIES)
    if "nodeSelector" in value:
        yield from labels(f"{field}.nodeSelector", value["nodeSelector"])
    yield from security.of_pod(field, value)
    if "affinity" in value:
        yield from scheduling.affinity(f"{field}.affinity", value["affinity"] or {})
    if "dnsConfig" in value or dns == "None":
        yield from _dns(f"{field}.dnsConfig", value.get("dnsConfig"), dns)
    yield from scheduling.gates(field, value)
    if "topologySpreadConstraints" in value:
        yield from scheduling.spread(f"{field}.topologySpreadConstraints", value["topologySpreadConstraints"] or ())
    yield from security.host_process(field, value, containers.every)
    yield from security.host_users(field, value, containers.every)
    if "hostnameOverride" in value:
        yield from _hostname_override(f"{field}.hostnameOverride", value)
    yield from _names(field, value)
    yield from environment.files(field, value, containers.every)


def _names(field: str, value: Spec) -> Causes:
    """The rest of a spec: names, times and what runs beside the containers."""
    for name in ("serviceAccountName", "nodeName"):
        if value.get(name):
            yield from each(f"{field}.{name}", value[name], names.dns_subdomain(value[name]))
    deadline = value.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2147483647:
        yield invalid(f"{field}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    for name in ("hostname", "subdomain"):
        if value.get(name):
            yield from each(f"{field}.{name}", value[name], names.dns_label(value[name]))
    if value.get("tolerations"):
        yield from scheduling.tolerations(f"{field}.tolerations", value["tolerations"])
    for i, alias in enumerate(value.get("hostAliases") or ()):
        yield from ip(f"{field}.hostAliases[{i}].ip", alias.get("ip", ""))
        for j, host in enumerate(alias.get("hostnames") or ()):
            yield from each(f"{field}.hostAliases[{i}].hostnames[{j}]", host, names.dns_subdomain(host))
    if value.get("priorityClassName"):
        name = value["priorityClassName"]
        yield from each(f"{field}.priorityClassName", name, names.dns_subdomain(name))
    if "runtimeClassName" in value:
        name = value["runtimeClassName"]
        yield from each(f"{field}.runtimeClassName", name, names.dns_subdomain(name))
    if "preemptionPolicy" in value:
        policies = ("PreemptLowerPriority", "Never")
        yield from one_of(f"{field}.preemptionPolicy", value["preemptionPolicy"], policies)
    if value.get("overhead"):
        yield from resources.requirements(f"{field}.overhead", {"limits": value["overhead"]})
    if "os" in value:
        yield from security.of_os(field, value, containers.every)


def _hostname_override(field: str, value: Spec) -> Causes:
    name = value["hostnameOverride"]
    for other in ("setHostnameAsFQDN", "hostNetwork"):
        if value.get(other):
            yield forbidden(field, f"may not be specified when {other} is true")
    if len(name.encode()) > 64:
        yield too_long(field, 64)
    yield from each(field, name, names.dns_subdomain(name))


def _dns(at: str, config: Spec | None, policy: str) -> Causes:
    servers, searches = (config or {}).get("nameservers") or [], (config or {}).get("searches") or []
    if policy == "None" and config is None:
        yield required(at, "must provide `dnsConfig` when `dnsPolicy` is None")
        return
    if policy == "None" and not servers:
        yield required(f"{at}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
        return
    if len(servers) > 3:
        yield invalid(f"{at}.nameservers", servers, "must not have more than 3 nameservers")
    for i, server in enumerate(servers):
        yield from ip(f"{at}.nameservers[{i}]", server)
    if len(searches) > 32:
        yield invalid(f"{at}.searches", searches, "must not have more than 32 search paths")
    if len(" ".join(searches)) > 2048:
        why = "must not have more than 2048 characters (including spaces) in the search list"
        yield invalid(f"{at}.searches", searches, why)
    for i, search in enumerate(searches):
        if search != ".":
            search = search.removesuffix(".")
            yield from each(f"{at}.searches[{i}]", search, names.dns_subdomain_with_underscores(search))
    for i, option in enumerate((config or {}).get("options") or ()):
        if not option.get("name"):
            yield required(f"{at}.options[{i}]", "must not be empty")
