"""Who is asked whether a request is allowed, in which order: flags, or a file of the type AuthorizationConfiguration.

Source: "Authorization" and the apiserver.config.k8s.io/v1 types of the Kubernetes documentation; texts as upstream's.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k3s.api import names, times
from k3s.api.errors import BadRequest

_MODE, _CONFIG = "authorization-mode", "authorization-config"
_WEBHOOK = "authorization-webhook-"
FLAGS = {
    _MODE: "Node, RBAC, Webhook, AlwaysAllow or AlwaysDeny, in their order, separated by commas",
    f"{_WEBHOOK}config-file": "a file",
    f"{_WEBHOOK}version": "v1 or v1beta1",
    f"{_WEBHOOK}cache-authorized-ttl": "a duration",
    f"{_WEBHOOK}cache-unauthorized-ttl": "a duration",
    _CONFIG: "a file",
}
NODE, RBAC, WEBHOOK, ALWAYS_ALLOW, ALWAYS_DENY = "Node", "RBAC", "Webhook", "AlwaysAllow", "AlwaysDeny"
TYPES = (ALWAYS_ALLOW, ALWAYS_DENY, NODE, RBAC, WEBHOOK)
_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")
_LONGEST_S, _MOST_CONDITIONS = 30.0, 64
# Fields of a webhook; those with a default have it.
_FIELDS = (
    *("authorizedTTL", "cacheAuthorizedRequests", "unauthorizedTTL", "cacheUnauthorizedRequests", "timeout"),
    *("subjectAccessReviewVersion", "matchConditionSubjectAccessReviewVersion", "failurePolicy", "connectionInfo"),
    "matchConditions",
)


class SettingsError(ValueError):
    """What cannot be used; the text names the flag or the field."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """A webhook: the kubeconfig that says where it is, what it is asked, how long answers count (0: once).

    `refuses` says that a request is refused when the webhook fails; otherwise the next authorizer is asked.
    """

    file: str
    version: str = "v1beta1"
    timeout_s: float = _LONGEST_S
    authorized_s: float = 300.0
    unauthorized_s: float = 30.0
    refuses: bool = False
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthorizerSettings:
    """One authorizer; `name` is how metrics call it."""

    type: str
    name: str
    webhook: WebhookSettings | None = None


@dataclass(frozen=True, slots=True)
class AuthorizationSettings:
    """The authorizers in their order; `file` is the configuration that is read again when it changes."""

    authorizers: tuple[AuthorizerSettings, ...]
    file: str = ""


#: What k3s does when nobody says otherwise.
DEFAULT = AuthorizationSettings((AuthorizerSettings(NODE, "node"), AuthorizerSettings(RBAC, "rbac")))


def settings(flags: Mapping[str, str]) -> AuthorizationSettings:
    """From the values of the flags. Raises SettingsError."""
    given = sorted(name for name in flags if name in FLAGS and name != _CONFIG)
    file = flags.get(_CONFIG, "")
    if file:
        if given:
            raise SettingsError(f"{_CONFIG} can not be specified when {_MODE} or {_WEBHOOK}* flags are defined")
        return AuthorizationSettings(parse(read(file)), file)
    modes = [mode.strip() for mode in flags.get(_MODE, "Node,RBAC").split(",")]
    for at, mode in enumerate(modes):
        if mode not in TYPES:
            raise SettingsError(f"{_MODE} {mode!r} is not a valid mode: use some of {', '.join(TYPES)}")
        if mode in modes[:at]:
            raise SettingsError(f"{_MODE} {mode!r} has mode specified more than once")
    webhook = _of_flags(flags, WEBHOOK in modes)
    return AuthorizationSettings(
        tuple(AuthorizerSettings(mode, mode.lower(), webhook if mode == WEBHOOK else None) for mode in modes)
    )


def _of_flags(flags: Mapping[str, str], wanted: bool) -> WebhookSettings | None:
    file = flags.get(f"{_WEBHOOK}config-file", "")
    if not wanted:
        useless = sorted(name for name in flags if name.startswith(_WEBHOOK))
        if useless:
            raise SettingsError(f"cannot specify {useless[0]} without mode Webhook: add it to {_MODE}")
        return None
    if not file:
        raise SettingsError(f"{_MODE} Webhook needs {_WEBHOOK}config-file: name a kubeconfig file")
    version = flags.get(f"{_WEBHOOK}version", "v1beta1")
    if version not in ("v1", "v1beta1"):
        raise SettingsError(f"{_WEBHOOK}version {version!r} is not known: use v1 or v1beta1")
    found = WebhookSettings(
        file,
        version,
        authorized_s=_flag_duration(flags, "cache-authorized-ttl", "5m"),
        unauthorized_s=_flag_duration(flags, "cache-unauthorized-ttl", "30s"),
    )
    problem = _unusable(file)
    if problem:
        raise SettingsError(f"{_WEBHOOK}config-file {file!r} cannot be used: {problem}")
    return found


def _flag_duration(flags: Mapping[str, str], name: str, otherwise: str) -> float:
    text = flags.get(_WEBHOOK + name, otherwise)
    try:
        return max(times.duration(text), 0.0)
    except times.TimeError as error:
        raise SettingsError(f"{_WEBHOOK}{name} {text!r} is no duration such as 5m: {error}") from error


def read(file: str) -> bytes:
    """What is in the configuration file. Raises SettingsError."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(f"{_CONFIG} {file!r} cannot be read: {error}") from error


def parse(text: bytes) -> tuple[AuthorizerSettings, ...]:
    """The authorizers of an AuthorizationConfiguration. Raises SettingsError naming every field that is wrong."""
    from k3s.api import yamltext

    try:
        found = yamltext.load(text)
    except (BadRequest, ValueError) as error:
        raise SettingsError(f"the authorization configuration is no YAML: {error}") from error
    if not isinstance(found, dict) or found.get("kind") != "AuthorizationConfiguration":
        raise SettingsError("the authorization configuration has to be of kind AuthorizationConfiguration")
    if found.get("apiVersion") not in _VERSIONS:
        raise SettingsError(f"apiVersion {found.get('apiVersion')!r} is not known: use {_VERSIONS[0]}")
    return _Reader().authorizers(found)


class _Reader:
    """Reads the fields, and gathers what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def authorizers(self, document: dict[str, Any]) -> tuple[AuthorizerSettings, ...]:
        self._known(document, "", ("apiVersion", "kind", "authorizers"))
        given = self._list(document, "authorizers", "authorizers")
        if not given:
            self._required("authorizers", "at least one authorization mode must be defined")
        found: list[AuthorizerSettings] = []
        types: set[str] = set()
        seen: set[str] = set()
        for i, one in enumerate(given):
            at = f"authorizers[{i}]"
            if self._known(one, at, ("type", "name", "webhook")):
                made = self._authorizer(one, at, types, seen)
                found += [made] if made else []
        if self.problems:
            text = self.problems[0] if len(self.problems) == 1 else f"[{', '.join(self.problems)}]"
            raise SettingsError(text)
        return tuple(found)

    def _authorizer(self, one: dict[str, Any], at: str, types: set[str], seen: set[str]) -> AuthorizerSettings | None:
        type, name, webhook = str(one.get("type") or ""), str(one.get("name") or ""), one.get("webhook")
        if not self._choice(type, f"{at}.type", TYPES):
            return None
        if type in types and type != WEBHOOK:
            self._problem(f"{at}.type", f'Duplicate value: "{type}"')
            return None
        types.add(type)
        if not name:
            self._required(f"{at}.name")
        elif name in seen:
            self._problem(f"{at}.name", f'Duplicate value: "{name}"')
        elif problems := names.dns_subdomain(name):
            self._invalid(f"{at}.name", name, f"authorizer name is invalid: {', '.join(problems)}")
        seen.add(name)
        if type != WEBHOOK:
            if webhook is not None:
                self._invalid(f"{at}.webhook", "non-null", "may only be specified when type=Webhook")
            return AuthorizerSettings(type, name)
        if webhook is None:
            self._required(f"{at}.webhook", "required when type=Webhook")
            return None
        if not self._known(webhook, f"{at}.webhook", _FIELDS):
            return None
        return AuthorizerSettings(type, name, self._webhook(webhook, at))

    def _webhook(self, given: dict[str, Any], at: str) -> WebhookSettings:
        # Upstream tells fields of a webhook as if they were the authorizer's.
        timeout_s = self._duration(given, "timeout", at, "")
        if timeout_s is not None and not 0 < timeout_s <= _LONGEST_S:
            self._invalid(f"{at}.timeout", times.format_duration(timeout_s), "must be > 0s and <= 30s")
        authorized_s = self._ttl(given, "authorizedTTL", at, "5m")
        unauthorized_s = self._ttl(given, "unauthorizedTTL", at, "30s")
        version = str(given.get("subjectAccessReviewVersion") or "")
        self._choice(version, f"{at}.subjectAccessReviewVersion", ("v1", "v1beta1"))
        seen_version = str(given.get("matchConditionSubjectAccessReviewVersion") or "")
        conditions = self._list(given, "matchConditions", f"{at}.matchConditions")
        if seen_version:
            self._choice(seen_version, f"{at}.matchConditionSubjectAccessReviewVersion", ("v1",))
        elif conditions:
            why = "required if match conditions are specified"
            self._required(f"{at}.matchConditionSubjectAccessReviewVersion", why)
        policy = str(given.get("failurePolicy") or "")
        self._choice(policy, f"{at}.failurePolicy", ("Deny", "NoOpinion"))
        return WebhookSettings(
            self._connection(given.get("connectionInfo") or {}, f"{at}.connectionInfo"),
            version,
            timeout_s or _LONGEST_S,
            authorized_s if given.get("cacheAuthorizedRequests", True) is True else 0.0,
            unauthorized_s if given.get("cacheUnauthorizedRequests", True) is True else 0.0,
            policy == "Deny",
            self._conditions(conditions, f"{at}.matchConditions"),
        )

    def _connection(self, given: Any, at: str) -> str:
        if not self._known(given, at, ("type", "kubeConfigFile")):
            return ""
        type, file = str(given.get("type") or ""), given.get("kubeConfigFile")
        if type == "InClusterConfig":
            self._invalid(f"{at}.type", type, "this API server runs in no pod: use KubeConfigFile")
            return ""
        if not self._choice(type, f"{at}.type", ("InClusterConfig", "KubeConfigFile")):
            return ""
        at = f"{at}.kubeConfigFile"
        if not file:
            self._required(at)
            return ""
        path = Path(str(file))
        if not path.is_absolute():
            self._invalid(at, str(path), "must be an absolute path")
        elif not path.exists():
            self._invalid(at, str(path), f"error loading file: stat {path}: no such file or directory")
        elif not stat.S_ISREG(path.stat().st_mode):
            self._invalid(at, str(path), "must be a regular file")
        elif problem := _unusable(str(path)):
            self._invalid(at, str(path), problem)
        return str(path)

    def _conditions(self, given: Sequence[Any], at: str) -> tuple[str, ...]:
        if len(given) > _MOST_CONDITIONS:
            self._problem(at, f"Too many: {len(given)}: must have at most {_MOST_CONDITIONS} items")
            return ()
        found: list[str] = []
        for i, one in enumerate(given):
            where = f"{at}[{i}]"
            if not self._known(one, where, ("expression",)):
                continue
            expression = str(one.get("expression") or "")
            if not expression.strip():
                self._required(f"{where}.expression")
            elif expression in found:
                self._problem(f"{where}.expression", f'Duplicate value: "{expression}"')
            else:
                found.append(expression)
                self._compiles(expression, f"{where}.expression")
        return tuple(found)

    def _compiles(self, expression: str, at: str) -> None:
        from k3s.api.cel import CompileError
        from k3s.api.cel.authorization import condition

        try:
            condition(expression)
        except CompileError as error:
            self._invalid(at, expression, str(error))

    def _ttl(self, given: dict[str, Any], name: str, at: str, otherwise: str) -> float:
        seconds = self._duration(given, name, at, otherwise)
        if seconds is not None and seconds <= 0:
            self._invalid(f"{at}.{name}", times.format_duration(seconds), "must be > 0s")
        return seconds or 0.0

    def _duration(self, given: dict[str, Any], name: str, at: str, otherwise: str) -> float | None:
        text = str(given.get(name) or otherwise)
        try:
            seconds = times.duration(text) if text else 0.0
        except times.TimeError as error:
            self._invalid(f"{at}.{name}", text, str(error))
            return None
        if seconds == 0:
            if not otherwise or name in given:
                self._required(f"{at}.{name}")
            return None
        return seconds

    # -- problems, as upstream words them

    def _known(self, value: Any, at: str, known: Sequence[str]) -> bool:
        if not isinstance(value, dict):
            self._problem(at, "has to be an object")
            return False
        unknown = [name for name in value if name not in known]
        for name in unknown:
            self.problems.append(f'strict decoding error: unknown field "{at + "." if at else ""}{name}"')
        return not unknown

    def _list(self, value: dict[str, Any], name: str, at: str) -> list[Any]:
        found = value.get(name) or []
        if isinstance(found, list):
            return found
        self._problem(at, "has to be a list")
        return []

    def _choice(self, value: str, at: str, choices: Sequence[str]) -> bool:
        if value in choices:
            return True
        if not value:
            self._required(at)
        else:
            listed = ", ".join(f'"{choice}"' for choice in choices)
            self._problem(at, f'Unsupported value: "{value}": supported values: {listed}')
        return False

    def _required(self, at: str, why: str = "") -> None:
        self._problem(at, f"Required value: {why}" if why else "Required value")

    def _invalid(self, at: str, value: str, why: str) -> None:
        self._problem(at, f'Invalid value: "{value}": {why}')

    def _problem(self, at: str, text: str) -> None:
        self.problems.append(f"{at}: {text}")


def _unusable(file: str) -> str:
    """What is wrong with a kubeconfig; the empty string for nothing."""
    from k3s.client.kubeconfig import load

    try:
        load(Path(file).read_text())
    except (OSError, ValueError) as error:
        return str(error)
    return ""
