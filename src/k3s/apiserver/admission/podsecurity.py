"""PodSecurity: the labels of a namespace say which of the pod security standards its pods must meet.

Source: "Pod Security Standards" and "Pod Security Admission" in the Kubernetes documentation. The checks are in
`podstandards`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from k3s.api.kinds import builtin
from k3s.api.object import Object, get
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admission.podstandards import LATEST_MINOR, SECCOMP_NOTES, violations
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

_EXEMPTIONS = ("usernames", "runtimeClasses", "namespaces")
_MODES = ("enforce", "audit", "warn")

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


_PRIVILEGED = Standard("privileged", "latest")


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
        why = self._exemption(request)
        if why:
            request.audit[f"{_LABEL}exempt"] = why
            return None
        space = self._reader.get(NAMESPACE, "", request.namespace)
        labels = (space or {}).get("metadata", {}).get("labels") or {}
        if self._defaults or any(label.startswith(_LABEL) for label in labels):
            self._evaluate(request, labels)
        elif not _TEMPLATES[request.kind.qualified]:
            request.audit[f"{_LABEL}enforce-policy"] = str(_PRIVILEGED)
        return None

    def _evaluate(self, request: AdmissionRequest, labels: dict[str, str]) -> None:
        path = _TEMPLATES[request.kind.qualified]
        template = get(request.obj, *path)
        if not template or not template.get("spec"):
            return
        is_pod = not path
        if is_pod and request.operation == UPDATE and not _is_significant(request.old or {}, request.obj or {}):
            return
        if self._is_exempt("runtimeClasses", template["spec"].get("runtimeClassName")):
            request.audit[f"{_LABEL}exempt"] = "runtimeClass"
            return
        wanted = standards({**self._defaults, **labels}, labels)
        errors = [f"metadata.labels[{label}]: {message}" for label, message in label_errors(labels)]
        if errors:
            text = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
            request.audit[f"{_LABEL}error"] = f"Failed to parse policy: {text}"
        audited, enforced = wanted["audit"], wanted["enforce"]
        found = violations(template, audited.level, audited.minor)
        if found:
            request.audit[f"{_LABEL}audit-violations"] = _would_violate(audited, found)
        if is_pod:
            request.audit[f"{_LABEL}enforce-policy"] = str(enforced)
            problems = violations(template, enforced.level, enforced.minor)
            if problems:
                raise refuse(request, f'violates PodSecurity "{enforced}": {", ".join(problems)}')
        found = violations(template, wanted["warn"].level, wanted["warn"].minor)
        if found:
            request.warnings.append(_would_violate(wanted["warn"], found))

    def _exemption(self, request: AdmissionRequest) -> str:
        """Why nothing is checked: the configuration exempts the namespace or the user."""
        if self._is_exempt("namespaces", request.namespace):
            return "namespace"
        return "user" if self._is_exempt("usernames", request.user.name) else ""

    def _is_exempt(self, key: str, value: str | None) -> bool:
        return bool(value) and value in self._exempt.get(key, ())

    def _warn_of_pods(self, request: AdmissionRequest) -> None:
        """Tells who makes a namespace stricter which of its pods would not be let in any more."""
        if request.operation != UPDATE or request.subresource or request.obj is None or request.old is None:
            return
        new, old = (
            standards({**self._defaults, **labels}, labels)["enforce"]
            for labels in (get(obj, "metadata", "labels") or {} for obj in (request.obj, request.old))
        )
        relaxed = new.version == old.version and _LEVELS.index(new.level) <= _LEVELS.index(old.level)
        if new == old or new.level == "privileged" or relaxed or self._is_exempt("namespaces", request.name):
            return
        pods = self._reader.list(POD, request.name)
        if len(pods) > _MOST_PODS:
            what = "new PodSecurity enforce level only checked against the first"
            request.warnings.append(f"{what} {_MOST_PODS} of {len(pods)} existing pods")
        found: dict[str, list[str]] = {}
        for pod in pods[:_MOST_PODS]:
            if self._is_exempt("runtimeClasses", pod["spec"].get("runtimeClassName")):
                continue
            why = ", ".join(problem.partition(" (")[0] for problem in violations(pod, new.level, new.minor))
            if why:
                found.setdefault(why, []).append(pod["metadata"]["name"])
        if found:
            start = f'existing pods in namespace "{request.name}" violate the new PodSecurity enforce level "{new}"'
            request.warnings.append(start)
            request.warnings.extend(sorted(f"{_counted(names)}: {why}" for why, names in found.items()))


def _counted(names: list[str]) -> str:
    """The first name, and how many others there are."""
    others = len(names) - 1
    more = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
    return f"{min(names)}{more}"


def _would_violate(standard: Standard, problems: list[str]) -> str:
    return f'would violate PodSecurity "{standard}": {", ".join(problems)}'


def standards(labels: dict[str, str], own: dict[str, str]) -> dict[str, Standard]:
    """The standard of each mode. An unknown level to enforce is restricted, the safe reading; others are not asked for.

    `labels` are those of a namespace over the defaults, `own` the namespace's alone: without a level to warn of, its
    own enforced one is what is warned of, when it is the stricter.
    """
    found = {mode: _standard(labels, mode) for mode in _MODES}
    enforced, warned = found["enforce"], found["warn"]
    stricter = _LEVELS.index(enforced.level) > _LEVELS.index(warned.level)
    if f"{_LABEL}warn" not in own and own.get(f"{_LABEL}enforce") in _LEVELS and stricter:
        version = warned.version if f"{_LABEL}warn-version" in own else enforced.version
        found["warn"] = Standard(enforced.level, version)
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
    if _seccomp_notes(old) != _seccomp_notes(new):
        return True
    before, after = old.get("spec") or {}, new.get("spec") or {}
    return any(_images(before.get(field)) != _images(after.get(field)) for field in fields)


def _seccomp_notes(pod: Object) -> dict[str, str]:
    notes = (pod.get("metadata") or {}).get("annotations") or {}
    return {key: value for key, value in notes.items() if key.startswith(SECCOMP_NOTES)}


def _images(containers: list[Object] | None) -> list[tuple[str, str]]:
    return [(str(c.get("name", "")), str(c.get("image", ""))) for c in containers or ()]


def _check_labels(request: AdmissionRequest) -> None:
    """A namespace whose labels name no known level or version is refused when they are new."""
    from k3s.api.errors import invalid

    new, old = (list(label_errors(get(obj, "metadata", "labels") or {})) for obj in (request.obj, request.old))
    if new and new != old:
        causes = [
            {"reason": "FieldValueInvalid", "message": message, "field": f"metadata.labels[{label}]"}
            for label, message in new
        ]
        raise invalid("", "Namespace", request.name, causes)


def label_errors(labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Labels of a namespace that name no known level or version, and what is wrong with each."""
    for mode in _MODES:
        for suffix, good, why in _RULES:
            value = labels.get(f"{_LABEL}{mode}{suffix}")
            if value is not None and not good(value):
                yield f"{_LABEL}{mode}{suffix}", f'Invalid value: "{value}": {why}'


def configuration_errors(given: Object) -> Iterator[str]:
    """What is wrong with a PodSecurityConfiguration (upstream's ValidatePodSecurityConfiguration)."""
    defaults, exemptions = given.get("defaults") or {}, given.get("exemptions") or {}
    known = [f"{mode}{suffix}" for mode in _MODES for suffix, _, _ in _RULES]
    for part, found, names in (("defaults", defaults, known), ("exemptions", exemptions, _EXEMPTIONS)):
        if not isinstance(found, dict):
            yield f"{part}: use fields {', '.join(names)}"
            return
        for name in set(found) - set(names):
            yield f"{part}.{name}: there is no such field; use {', '.join(names)}"
    for mode in _MODES:
        for suffix, good, why in _RULES:
            value = defaults.get(f"{mode}{suffix}")
            if value is not None and not good(value):
                yield f'defaults.{mode}{suffix}: Invalid value: "{value}": {why}'
    for name in _EXEMPTIONS:
        values = exemptions.get(name) or []
        for value in values:
            if not isinstance(value, str) or not value:
                yield f"exemptions.{name}: {value!r} is no name"
            elif values.count(value) > 1:
                yield f'exemptions.{name}: Duplicate value: "{value}"'


def _is_level(text: object) -> bool:
    return text in _LEVELS


def _is_version(text: object) -> bool:
    return text == "latest" or (isinstance(text, str) and _VERSION.fullmatch(text) is not None)


#: End of a label's name, whether a value will do, and what is said of one that will not.
_RULES: tuple[tuple[str, Callable[[object], bool], str], ...] = (
    ("", _is_level, "must be one of privileged, baseline, restricted"),
    ("-version", _is_version, 'must be "latest" or "v1.x"'),
)
