"""PodSecurity: the labels of a namespace say which of the pod security standards its pods must meet.

Source: "Pod Security Standards" and "Pod Security Admission" in the Kubernetes documentation. The checks are in
`podstandards`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from k3s.api.kinds import builtin
from k3s.api.object import Object, get
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admission.podstandards import LATEST_MINOR, violations
from k3s.apiserver.admits import AdmissionRequest

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

NAMESPACE = builtin("v1", "Namespace")
POD = builtin("v1", "Pod")
# More pods of one namespace than these are not looked at.
_MOST_PODS = 3000
_LABEL = "pod-security.kubernetes.io/"
_LEVELS = ("privileged", "baseline", "restricted")
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)")

# Where the pod template is in what makes pods.
_TEMPLATES: dict[str, tuple[str, ...]] = {
    "pods": (),
    "podtemplates": ("template",),
    "replicationcontrollers": ("spec", "template"),
    "deployments.apps": ("spec", "template"),
    "replicasets.apps": ("spec", "template"),
    "statefulsets.apps": ("spec", "template"),
    "daemonsets.apps": ("spec", "template"),
    "jobs.batch": ("spec", "template"),
    "cronjobs.batch": ("spec", "jobTemplate", "spec", "template"),
}


class Standard(NamedTuple):
    """A level at the version that its label names; `latest` is kept as a word because messages show it."""

    level: str
    version: str

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"

    @property
    def minor(self) -> int:
        """The minor version whose checks apply."""
        return LATEST_MINOR if self.version == "latest" else int(self.version.removeprefix("v1."))


class PodSecurity(Plugin):
    """Refuses pods that break the enforced standard; warns for pods and templates that break the one to warn of."""

    name = "PodSecurity"
    resources = frozenset(_TEMPLATES) | {"namespaces"}
    validates = frozenset({CREATE, UPDATE})

    def __init__(self, reader: Reader, configuration: Object | None = None) -> None:
        given = configuration or {}
        self._reader = reader
        #: The labels that a namespace has by default.
        self._defaults = {f"{_LABEL}{key}": str(value) for key, value in (given.get("defaults") or {}).items()}
        self._exempt = {key: frozenset(values or ()) for key, values in (given.get("exemptions") or {}).items()}

    def validate(self, request: AdmissionRequest) -> None:
        if request.kind.plural == "namespaces":
            _check_labels(request)
            return self._warn_of_pods(request)
        if request.subresource not in ("", "ephemeralcontainers") or request.obj is None:
            return None
        space = self._reader.get(NAMESPACE, "", request.namespace)
        labels = (space or {}).get("metadata", {}).get("labels") or {}
        if self._defaults or any(label.startswith(_LABEL) for label in labels):
            self._evaluate(request, labels)
        return None

    def _evaluate(self, request: AdmissionRequest, labels: dict[str, str]) -> None:
        path = _TEMPLATES[request.kind.qualified]
        template = get(request.obj, *path)
        if not template or not template.get("spec"):
            return
        is_pod = not path
        if is_pod and request.operation == UPDATE and not _is_significant(request.old or {}, request.obj or {}):
            return
        why = self._exemption(request, template)
        if why:
            request.audit[f"{_LABEL}exempt"] = why
            return
        wanted = standards({**self._defaults, **labels}, labels)
        if is_pod:
            enforced = wanted["enforce"]
            request.audit[f"{_LABEL}enforce-policy"] = str(enforced)
            problems = violations(template, enforced.level, enforced.minor)
            if problems:
                raise refuse(request, f'violates PodSecurity "{enforced}": {", ".join(problems)}')
        for mode in ("audit", "warn"):
            found = violations(template, wanted[mode].level, wanted[mode].minor)
            text = f'would violate PodSecurity "{wanted[mode]}": {", ".join(found)}'
            if found and mode == "audit":
                request.audit[f"{_LABEL}audit-violations"] = text
            elif found:
                request.warnings.append(text)

    def _exemption(self, request: AdmissionRequest, template: Object) -> str:
        """Why nothing is checked: the configuration exempts the namespace, the user or the runtime class."""
        runtime = template["spec"].get("runtimeClassName") or ""
        for what, value, key in (
            ("namespace", request.namespace, "namespaces"),
            ("user", request.user.name, "usernames"),
            ("runtimeClass", runtime, "runtimeClasses"),
        ):
            if value and value in self._exempt.get(key, ()):
                return what
        return ""

    def _warn_of_pods(self, request: AdmissionRequest) -> None:
        """Tells who makes a namespace stricter which of its pods would not be let in any more."""
        if request.operation != UPDATE or request.subresource or request.obj is None or request.old is None:
            return
        new, old = (
            standards({**self._defaults, **labels}, labels)["enforce"]
            for labels in (get(obj, "metadata", "labels") or {} for obj in (request.obj, request.old))
        )
        if new == old or new.level == "privileged" or request.name in self._exempt.get("namespaces", ()):
            return
        found: dict[str, list[str]] = {}
        for pod in self._reader.list(POD, request.name)[:_MOST_PODS]:
            problems = violations(pod, new.level, new.minor)
            if problems:
                found.setdefault(", ".join(problems), []).append(pod["metadata"]["name"])
        if found:
            start = f'existing pods in namespace "{request.name}" violate the new PodSecurity enforce level "{new}"'
            request.warnings.append(start)
        for what, names in sorted(found.items(), key=lambda item: item[1][0]):
            others = len(names) - 1
            more = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
            request.warnings.append(f"{names[0]}{more}: {what}")


def standards(labels: dict[str, str], own: dict[str, str]) -> dict[str, Standard]:
    """The standard of each mode. An unknown level to enforce is restricted, the safe reading; others are not asked for.

    `labels` are those of a namespace over the defaults, `own` the namespace's alone: without a level to warn of, its
    own enforced one is what is warned of, when it is the stricter.
    """
    found = {mode: _standard(labels, mode) for mode in ("enforce", "audit", "warn")}
    stricter = _LEVELS.index(found["enforce"].level) > _LEVELS.index(found["warn"].level)
    if f"{_LABEL}warn" not in own and f"{_LABEL}enforce" in own and stricter:
        found["warn"] = found["enforce"]
    return found


def _standard(labels: dict[str, str], mode: str) -> Standard:
    level = labels.get(f"{_LABEL}{mode}", "privileged")
    version = labels.get(f"{_LABEL}{mode}-version", "latest")
    if level not in _LEVELS:
        level = "restricted" if mode == "enforce" else "privileged"
    return Standard(level, version if version == "latest" or _VERSION.fullmatch(version) else "latest")


def _is_significant(old: Object, new: Object) -> bool:
    """Whether an update of a pod can change how it is judged: its images and ephemeral containers can."""
    fields = ("containers", "initContainers", "ephemeralContainers")
    before, after = old.get("spec") or {}, new.get("spec") or {}
    return any(_images(before.get(field)) != _images(after.get(field)) for field in fields)


def _images(containers: list[Object] | None) -> list[tuple[str, str]]:
    return [(str(c.get("name", "")), str(c.get("image", ""))) for c in containers or ()]


def _check_labels(request: AdmissionRequest) -> None:
    """A namespace whose labels name no known level or version is refused when they are new."""
    from k3s.api.errors import invalid

    new = get(request.obj, "metadata", "labels") or {}
    old = get(request.old, "metadata", "labels") or {}
    causes = []
    for mode in ("enforce", "audit", "warn"):
        for suffix, good, why in (
            ("", lambda value: value in _LEVELS, "must be one of privileged, baseline, restricted"),
            ("-version", _is_version, 'must be "latest" or "v1.x"'),
        ):
            label = f"{_LABEL}{mode}{suffix}"
            value = new.get(label)
            if value is not None and value != old.get(label) and not good(value):
                field = f"metadata.labels[{label}]"
                message = f'Invalid value: "{value}": {why}'
                causes.append({"reason": "FieldValueInvalid", "message": message, "field": field})
    if causes:
        raise invalid("", "Namespace", request.name, causes)


def _is_version(text: str) -> bool:
    return text == "latest" or _VERSION.fullmatch(text) is not None
