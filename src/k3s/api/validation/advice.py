"""What is allowed but deserves a warning: deprecated fields, values without effect, surprises.

    advise(kind, obj, old) -> list[str]      warnings for a write; `old` is None for a create

Source: the API documentation of each field and the warnings that upstream 1.36 was recorded with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from k3s.api import formats, names, quantity
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.validation.causes import address_of
from k3s.api.validation.meta import STANDARD_FINALIZERS

Spec = Mapping[str, Any]
Warnings = Iterator[str]

_NODE_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_POD_NOTES = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
# Volume plugins that are on their way out or gone, in the order in which they are looked for.
_PLUGINS = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
# Where the messages name a plugin otherwise than the field is called.
_SHOWN = {"storageos": "storageOS"}
# Without one of these in it, a quantity is whole.
_MAY_BE_FRACTIONS = frozenset("mnu.e")
_BYTES = ("memory", "ephemeral-storage")
_STORAGE_CLASS = "volume.beta.kubernetes.io/storage-class"
_LABEL_BETTER = "which can result in surprising behavior; a DNS label is recommended"


def _labels(at: str, keys: Iterable[str]) -> Warnings:
    for key in keys:
        if key in _NODE_LABELS:
            yield f"{at}[{key}]: {_NODE_LABELS[key]}"


def _node_term(at: str, term: Spec) -> Warnings:
    for i, rule in enumerate(term.get("matchExpressions") or ()):
        key = rule.get("key", "")
        if key in _NODE_LABELS:
            yield f"{at}.matchExpressions[{i}].key: {key} is {_NODE_LABELS[key]}"


def _node_affinity(at: str, affinity: Spec) -> Warnings:
    at = f"{at}.affinity.nodeAffinity"
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    for i, term in enumerate((affinity.get(required) or {}).get("nodeSelectorTerms") or ()):
        yield from _node_term(f"{at}.{required}.nodeSelectorTerms[{i}]", term)
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    for i, choice in enumerate(affinity.get(preferred) or ()):
        yield from _node_term(f"{at}.{preferred}[{i}].preference", choice.get("preference") or {})


def _spread(at: str, spec: Spec) -> Warnings:
    for i, rule in enumerate(spec.get("topologySpreadConstraints") or ()):
        here = f"{at}.topologySpreadConstraints[{i}]"
        key = rule.get("topologyKey", "")
        if key in _NODE_LABELS:
            yield f"{here}.topologyKey: {key} is {_NODE_LABELS[key]}"
        if rule.get("labelSelector") is None:
            yield f"{here}.labelSelector: a null labelSelector results in matching no pod"


def _plugins(at: str, holder: Spec, known: Mapping[str, str] = _PLUGINS) -> Warnings:
    for name, text in known.items():
        if holder.get(name) is not None:
            yield f"{at}.{_SHOWN.get(name, name)}: {text}"


def _repeated(at: str, entries: Iterable[Spec], field: str, word: str) -> Warnings:
    seen = set()
    for i, entry in enumerate(entries):
        value = entry.get(field, "")
        if value in seen:
            yield f'{at}[{i}].{field}: duplicate {word} "{value}"'
        seen.add(value)


def _fractions(at: str, amounts: Spec | None, resources: Iterable[str] = _BYTES) -> Warnings:
    """Bytes come whole."""
    for name in resources if amounts else ():
        text = str((amounts or {}).get(name, "0"))
        if not _MAY_BE_FRACTIONS.isdisjoint(text) and quantity.milli(text) % 1000:
            yield f'{at}[{name}]: fractional byte value "{text}" is invalid, must be an integer'


def _container(at: str, container: Spec) -> Warnings:
    seen: set[str] = set()
    variables = container.get("env") or ()
    for i, variable in enumerate(variables) if len(variables) > 1 else ():
        name = variable.get("name", "")
        value, reference = variable.get("value", ""), f"$({name})"
        if name in seen and (reference not in value or value == reference):
            yield f'{at}.env[{i}]: hides previous definition of "{name}", which may be dropped when using apply'
        seen.add(name)
    resources = container.get("resources") or {}
    for name in _BYTES if resources else ():
        for part in ("limits", "requests"):
            yield from _fractions(f"{at}.resources.{part}", resources.get(part), (name,))


def _ports(at: str, spec: Spec) -> Warnings:
    """Ports of the pod that are opened twice."""
    known: dict[tuple[Any, Any], list[tuple[str, Any, Any]]] = {}
    for part in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(part) or ()):
            for j, port in enumerate(container.get("ports") or ()):
                here = f"{at}.{part}[{i}].ports[{j}]"
                ip, number = port.get("hostIP", ""), port.get("hostPort", 0)
                if ip and not number:
                    yield f"{here}: hostIP set without hostPort: {_shown(port)}"
                others = known.setdefault((port.get("containerPort"), port.get("protocol", "TCP")), [])
                for other, other_ip, other_number in others:
                    found = _overlap(ip, number, other_ip, other_number)
                    if found:
                        yield f"{here}: {found} port definition with {other}"
                others.append((here, ip, number))


def _overlap(ip: str, number: int, other_ip: str, other_number: int) -> str:
    if (ip, number) == (other_ip, other_number):
        return "duplicate"
    if not number or not other_number:
        return "overlapping"
    return "dangerously ambiguous" if number == other_number and bool(ip) != bool(other_ip) else ""


def _shown(port: Spec) -> str:
    return (
        f"{{Name:{port.get('name', '')} HostPort:0 ContainerPort:{port.get('containerPort', 0)} "
        f"Protocol:{port.get('protocol', 'TCP')} HostIP:{port.get('hostIP', '')}}}"
    )


def _address(at: str, text: str) -> Warnings:
    """An address of the sixth version has one way to be written."""
    found = address_of(text) if ":" in text else None
    if found is not None and getattr(found, "ipv4_mapped", None) is None and str(found) != text:
        yield f'{at}: IPv6 address "{text}" should be in RFC 5952 canonical format ("{found}")'


def _range(at: str, text: str) -> Warnings:
    """A range of addresses says nothing about what is within it."""
    address, _, size = text.partition("/")
    found = address_of(address)
    if found is None or not size.isdecimal() or int(size) > found.max_prefixlen:
        return
    network = ip_network(f"{found}/{size}", strict=False)
    if network.network_address != found:
        whole = f"{found}/{found.max_prefixlen}"
        yield f'{at}: CIDR value "{text}" is ambiguous in this context (should be "{network}" or "{whole}"?)'
    if found.version == 6 and f"{found}/{size}" != text:
        yield f'{at}: IPv6 CIDR value "{text}" should be in RFC 5952 canonical format ("{found}/{size}")'


def _apparmor(prefix: str, notes: Spec) -> Warnings:
    text = 'deprecated since v1.30; use the "appArmorProfile" field instead'
    for key in sorted(notes):
        if key.startswith(_APPARMOR):
            yield f"{prefix}metadata.annotations[{key}]: {text}"


def pod_spec(prefix: str, meta: Spec, spec: Spec, *, template: bool) -> Warnings:
    """What to say about a pod, or about a template at the path `prefix` (with its dot; empty for a pod)."""
    at = f"{prefix}spec"
    notes = meta.get("annotations") or {}
    if spec.get("nodeSelector"):
        yield from _labels(f"{at}.nodeSelector", spec["nodeSelector"])
    affinity = spec.get("affinity")
    if affinity and affinity.get("nodeAffinity"):
        yield from _node_affinity(at, affinity["nodeAffinity"])
    if spec.get("topologySpreadConstraints"):
        yield from _spread(at, spec)
    for key, text in _POD_NOTES.items() if notes else ():
        if key in notes:
            yield f"{prefix}metadata.annotations[{key}]: {text}"
    for i, volume in enumerate(spec.get("volumes") or ()):
        if not _PLUGINS.keys().isdisjoint(volume):
            yield from _plugins(f"{at}.volumes[{i}]", volume)
    if spec.get("hostAliases"):
        yield from _repeated(f"{at}.hostAliases", spec["hostAliases"], "ip", "ip")
    secrets = spec.get("imagePullSecrets") or ()
    if secrets:
        yield from _repeated(f"{at}.imagePullSecrets", secrets, "name", "name")
    for i, secret in enumerate(secrets):
        if not secret.get("name"):
            yield f'{at}.imagePullSecrets[{i}].name: invalid empty name ""'
    if spec.get("overhead"):
        yield from _fractions(f"{at}.overhead", spec["overhead"])
    if notes and template and not (spec.get("securityContext") or {}).get("appArmorProfile"):
        yield from _apparmor(prefix, notes)
    for part in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(part) or ()):
            yield from _container(f"{at}.{part}[{i}]", container)
    yield from _ports(at, spec)
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        why = "must be >= 0; negative values are invalid and will be treated as 1"
        yield f"{at}.terminationGracePeriodSeconds: {why}"
    for i, server in enumerate((spec.get("dnsConfig") or {}).get("nameservers") or ()):
        yield from _address(f"{at}.dnsConfig.nameservers[{i}]", server)
    for i, alias in enumerate(spec.get("hostAliases") or ()):
        yield from _address(f"{at}.hostAliases[{i}].ip", alias.get("ip", ""))


def _pod(obj: Object, old: Object | None) -> Warnings:
    """A new pod as a whole; of a change nothing but the addresses of a status that was written."""
    if old is None:
        yield from _label_name(obj, "the Pod's hostname")
        yield from pod_spec("", obj["metadata"], obj.get("spec") or {}, template=False)
    elif obj.get("status") is not old.get("status"):
        for field in ("podIPs", "hostIPs"):
            for i, entry in enumerate((obj.get("status") or {}).get(field) or ()):
                yield from _address(f"status.{field}[{i}].ip", entry.get("ip", ""))


def _label_name(obj: Object, used: str) -> Warnings:
    """A name that is fine for the object but not for what is made from it."""
    problems = names.dns_label(obj["metadata"].get("name", ""))
    if problems:
        yield f"metadata.name: this is used in {used}, {_LABEL_BETTER}: [{' '.join(problems)}]"


def _template(path: str, *, named: bool, job: str = "") -> Callable[[Object, Object | None], Warnings]:
    """The rule of a kind with a pod template at `path`, of a job at `job`; `named`: pods are named after the object."""
    steps = path.split(".")

    def of(obj: Object) -> Object:
        for step in steps:
            obj = obj.get(step) or {}
        return obj

    def check(obj: Object, old: Object | None) -> Warnings:
        if named and old is None:
            yield from _label_name(obj, "Pod names and hostnames")
        if job:
            yield from _job(job, obj)
        template = of(obj)
        if old is None or of(old) != template:
            meta, spec = template.get("metadata") or {}, template.get("spec") or {}
            yield from pod_spec(f"{path}.", meta, spec, template=True)

    return check


def _service(obj: Object, old: Object | None) -> Warnings:
    spec = obj.get("spec") or {}
    for i, address in enumerate(spec.get("clusterIPs") or ()):
        yield from _address(f"spec.clusterIPs[{i}]", address)
    if spec.get("clusterIP") == "None":
        for field in ("loadBalancerIP", "externalIPs"):
            if spec.get(field):
                yield f"spec.{field} is ignored for headless services"
        if spec.get("sessionAffinity", "None") != "None":
            yield "spec.SessionAffinity is ignored for headless services"
    for i, address in enumerate(spec.get("externalIPs") or ()):
        yield from _address(f"spec.externalIPs[{i}]", address)
    yield from _address("spec.loadBalancerIP", spec.get("loadBalancerIP", ""))
    for i, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        yield from _range(f"spec.loadBalancerSourceRanges[{i}]", text)
    if spec.get("externalIPs") and spec.get("type") == "ExternalName":
        yield 'spec.externalIPs is ignored when spec.type is "ExternalName"'
    if spec.get("externalName") and spec.get("type") != "ExternalName":
        yield 'spec.externalName is ignored when spec.type is not "ExternalName"'


def _stateful_set(obj: Object, old: Object | None) -> Warnings:
    yield from _template("spec.template", named=False)(obj, old)
    if (obj.get("spec") or {}).get("revisionHistoryLimit", 0) < 0:
        why = "a negative value retains all historical revisions; a value >= 0 is recommended"
        yield f"spec.revisionHistoryLimit: {why}"


def _job(path: str, obj: Object) -> Warnings:
    """A job at `path`, without its template."""
    spec: Spec = obj
    for step in path.split("."):
        spec = spec.get(step) or {}
    many = spec.get("completions", 0) > 100_000 and spec.get("parallelism", 0) > 10_000
    if many and spec.get("completionMode") == "Indexed":
        yield f"{path}: {_TOO_MANY}"


_TOO_MANY = (
    "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
    "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
)


def _ingress(obj: Object, old: Object | None) -> Warnings:
    if old is None and "kubernetes.io/ingress.class" in (obj["metadata"].get("annotations") or {}):
        yield "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"


def _csi_driver(obj: Object, old: Object | None) -> Warnings:
    spec = obj.get("spec") or {}
    if old is not None and (old.get("spec") or {}).get("tokenRequests") == spec.get("tokenRequests"):
        return
    if spec.get("tokenRequests") and spec.get("serviceAccountTokenInSecrets") is None:
        yield (
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, "
            "set to true to prevent possible logging of tokens in volume attributes"
        )


def _beta_class(obj: Object) -> Warnings:
    if _STORAGE_CLASS in (obj["metadata"].get("annotations") or {}):
        yield f'metadata.annotations[{_STORAGE_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead'


def _volume(obj: Object, old: Object | None) -> Warnings:
    spec = obj.get("spec") or {}
    for i, term in enumerate(((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()):
        yield from _node_term(f"spec.nodeAffinity.required.nodeSelectorTerms[{i}]", term)
    yield from _beta_class(obj)
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        yield (
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. "
            "Instead, the recommended approach is to use dynamic provisioning."
        )
    yield from _plugins("spec", spec)


def _claim(obj: Object, old: Object | None) -> Warnings:
    yield from _beta_class(obj)
    resources = (obj.get("spec") or {}).get("resources") or {}
    for part in ("requests", "limits"):
        yield from _fractions(f"spec.resources.{part}", resources.get(part), ("storage",))


def _definition(definition: Object, old: Object | None) -> Warnings:
    """Formats that nobody knows: they are kept, and no text is held to them."""
    for version in (definition.get("spec") or {}).get("versions") or ():
        for form in dict.fromkeys(_formats((version.get("schema") or {}).get("openAPIV3Schema"))):
            if not formats.known(form):
                yield f'unrecognized format "{form}"'


def _formats(schema: Any) -> Iterator[str]:
    """The formats that a schema asks for, at any depth."""
    if not isinstance(schema, dict):
        return
    if schema.get("format"):
        yield schema["format"]
    for field in ("properties", "patternProperties", "definitions"):
        for inner in (schema.get(field) or {}).values():
            yield from _formats(inner)
    for field in ("items", "additionalProperties", "not"):
        yield from _formats(schema.get(field))
    for field in ("allOf", "anyOf", "oneOf"):
        for inner in schema.get(field) or ():
            yield from _formats(inner)


_RULES: dict[str, Callable[[Object, Object | None], Warnings]] = {
    "pods": _pod,
    "podtemplates": _template("template", named=False),
    "replicationcontrollers": _template("spec.template", named=True),
    "deployments.apps": _template("spec.template", named=True),
    "replicasets.apps": _template("spec.template", named=True),
    "statefulsets.apps": _stateful_set,
    "daemonsets.apps": _template("spec.template", named=False),
    "jobs.batch": _template("spec.template", named=True, job="spec"),
    "cronjobs.batch": _template("spec.jobTemplate.spec.template", named=True, job="spec.jobTemplate.spec"),
    "services": _service,
    "ingresses.networking.k8s.io": _ingress,
    "csidrivers.storage.k8s.io": _csi_driver,
    "persistentvolumes": _volume,
    "persistentvolumeclaims": _claim,
    "customresourcedefinitions.apiextensions.k8s.io": _definition,
}


def advise(kind: Kind, obj: Object, old: Object | None = None) -> list[str]:
    """Warnings for a write, in the order in which clients show them; `old` is None for a create."""
    if kind.custom:
        return list(_finalizers(obj, old))
    rule = _RULES.get(kind.qualified)
    return list(rule(obj, old)) if rule is not None else []


def _finalizers(obj: Object, old: Object | None) -> Warnings:
    """New finalizers of custom objects, whose names may be shorter than those of other kinds."""
    known = {*((old or {}).get("metadata", {}).get("finalizers") or ()), *STANDARD_FINALIZERS}
    for name in sorted({*(obj["metadata"].get("finalizers") or ())} - known):
        if "/" not in name:
            yield (
                f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name including a path (/) '
                "to avoid accidental conflicts with other finalizer writers"
            )
