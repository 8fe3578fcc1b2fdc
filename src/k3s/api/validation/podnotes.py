"""Rules for the annotations of pods that once were fields, or still steer something.

Source: the documentation of well-known annotations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from k3s.api.object import Object
from k3s.api.validation import containers
from k3s.api.validation.causes import Causes, forbidden, invalid
from k3s.api.validation.volumesources import relative

Spec = Mapping[str, Any]
Notes = Mapping[str, str]

MIRROR = "kubernetes.io/config.mirror"
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_COST = "controller.kubernetes.io/pod-deletion-cost"
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP = "container.seccomp.security.alpha.kubernetes.io/"
_APPARMOR_WORDS = ("", "runtime/default", "unconfined")
_SECCOMP_WORDS = ("runtime/default", "docker/default", "unconfined")


def check(field: str, notes: Notes, spec: Spec) -> Causes:
    """The annotations of a pod or a template."""
    if MIRROR in notes and not spec.get("nodeName"):
        yield invalid(f"{field}[{MIRROR}]", notes[MIRROR], "must set spec.nodeName if mirror pod annotation is set")
    cost = notes.get(_COST)
    if cost is not None and not _is_cost(cost):
        yield invalid(f"{field}[{_COST}]", cost, "must be a 32bit integer")
    for key, text in notes.items():
        if key == _SECCOMP_POD or key.startswith(_SECCOMP):
            yield from _seccomp(f"{field}.{key}", text)
    for key, text in notes.items():
        if not key.startswith(APPARMOR):
            continue
        name = key.removeprefix(APPARMOR)
        if all(container.get("name") != name for _, container in containers.every("", spec)):
            yield invalid(f"{field}[{key}]", name, "container not found")
        if text not in _APPARMOR_WORDS and not text.startswith("localhost/"):
            yield invalid(f"{field}[{key}]", text, f'invalid AppArmor profile name: "{text}"')


def _is_cost(text: str) -> bool:
    return bool(re.fullmatch(r"-[0-9]+|0|[1-9][0-9]*", text)) and -(1 << 31) <= int(text) < 1 << 31


def _seccomp(field: str, text: str) -> Causes:
    if text.startswith("localhost/"):
        yield from relative(field, text.removeprefix("localhost/"))
    elif text not in _SECCOMP_WORDS:
        yield invalid(field, text, "must be a valid seccomp profile")


def match_fields(field: str, notes: Notes, spec: Spec) -> Causes:
    """Where a profile is said by an annotation and by a field, both say the same."""
    seccomp = (spec.get("securityContext") or {}).get("seccompProfile")
    if seccomp and _SECCOMP_POD in notes:
        at = f"{field}.securityContext.seccompProfile"
        yield from _same(at, "seccomp", seccomp, notes[_SECCOMP_POD], ("runtime/default", "docker/default"))
    for at, container in containers.every(field, spec):
        own = (container.get("securityContext") or {}).get("seccompProfile")
        text = notes.get(_SECCOMP + container.get("name", ""))
        if own and text is not None:
            here = f"{at}.securityContext.seccompProfile"
            yield from _same(here, "seccomp", own, text, ("runtime/default", "docker/default"))
    if (spec.get("os") or {}).get("name") == "windows":
        return
    overall = (spec.get("securityContext") or {}).get("appArmorProfile")
    for at, container in containers.every(field, spec):
        profile = (container.get("securityContext") or {}).get("appArmorProfile") or overall
        text = notes.get(APPARMOR + container.get("name", ""))
        if profile and text is not None:
            here = f"{at}.securityContext.appArmorProfile"
            yield from _same(here, "apparmor", profile, text, ("runtime/default",))


def _same(at: str, what: str, profile: Spec, text: str, default: Iterable[str]) -> Causes:
    kind, local = profile.get("type", ""), text.startswith("localhost/")
    fits: dict[str, Callable[[], bool]] = {
        "Unconfined": lambda: text == "unconfined",
        "RuntimeDefault": lambda: text in default,
        "Localhost": lambda: local,
    }
    if kind in fits and not fits[kind]():
        yield forbidden(f"{at}.type", f"{what} type in annotation and field must match")
    elif kind == "Localhost" and text.removeprefix("localhost/") != profile.get("localhostProfile"):
        yield forbidden(f"{at}.localhostProfile", f"{what} profile in annotation and field must match")


def changes(field: str, old: Object, new: Object) -> Causes:
    """Of the annotations of a running pod some stay as they are."""
    before, after = ((pod.get("metadata") or {}).get("annotations") or {} for pod in (old, new))
    if before == after:
        return
    for key, text in before.items():
        if after.get(key) == text:
            continue
        if key.startswith(APPARMOR):
            yield forbidden(f"{field}[{key}]", "may not remove or update AppArmor annotations")
        if key == MIRROR:
            yield forbidden(f"{field}[{key}]", "may not remove or update mirror pod annotation")
    for key in after:
        if key in before:
            continue
        if key.startswith(APPARMOR):
            yield forbidden(f"{field}[{key}]", "may not add AppArmor annotations")
        if key == MIRROR:
            yield forbidden(f"{field}[{key}]", "may not add mirror pod annotation")
