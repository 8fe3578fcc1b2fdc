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

    @property
    def minor(self) -> int:
        """The minor version whose checks apply."""
        return LATEST_MINOR if self.version == "latest" else int(self.version.removeprefix("v1."))


class PodSecurity(Plugin):
    """Refuses pods that break the enforced standard; warns for pods and templates that break the one to warn of."""

    name = "PodSecurity"
    resources = frozenset(_TEMPLATES) | {"namespaces"}
    validates = frozenset({CREATE, UPDATE})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def validate(self, request: AdmissionRequest) -> None:
        if request.kind.plural == "namespaces":
            return _check_labels(request)
        if request.subresource not in ("", "ephemeralcontainers") or request.obj is None:
            return None
        space = self._reader.get(NAMESPACE, "", request.namespace)
        labels = (space or {}).get("metadata", {}).get("labels") or {}
        if any(label.startswith(_LABEL) for label in labels):
            self._evaluate(request, labels)
        return None

    @staticmethod
    def _evaluate(request: AdmissionRequest, labels: dict[str, str]) -> None:
        path = _TEMPLATES[request.kind.qualified]
        template = get(request.obj, *path)
        if not template or not template.get("spec"):
            return
        is_pod = not path
        if is_pod and request.operation == UPDATE and not _is_significant(request.old or {}, request.obj or {}):
            return
        enforced = standard(labels, "enforce")
        problems = violations(template, enforced.level, enforced.minor)
        if problems and is_pod:
            shown = f"{enforced.level}:{enforced.version}"
            raise refuse(request, f'violates PodSecurity "{shown}": {", ".join(problems)}')
        warned = standard(labels, "warn")
        found = violations(template, warned.level, warned.minor)
        if found:
            shown = f"{warned.level}:{warned.version}"
            request.warnings.append(f'would violate PodSecurity "{shown}": {", ".join(found)}')


def standard(labels: dict[str, str], mode: str) -> Standard:
    """The standard of one mode (enforce, warn, audit). A level that is not known is restricted: the safe reading.

    Without a warn label the enforced standard is what templates are warned about.
    """
    if mode == "warn" and f"{_LABEL}warn" not in labels:
        mode = "enforce"
    level = labels.get(f"{_LABEL}{mode}", "privileged")
    version = labels.get(f"{_LABEL}{mode}-version", "latest")
    if level not in _LEVELS:
        level = "restricted"
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
