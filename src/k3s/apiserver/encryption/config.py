"""The EncryptionConfiguration of apiserver.config.k8s.io/v1: which kinds are sealed, with which keys.

Source: "Encrypting Confidential Data at Rest", Kubernetes documentation; what is wrong with a KMS provider or a list
of resources is told in upstream's words.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from k3s.api import times
from k3s.apiserver.encryption.ciphers import CIPHERS

_VERSION = "apiserver.config.k8s.io/v1"
IDENTITY, KMS = "identity", "kms"
_PROVIDERS = (KMS, *CIPHERS, IDENTITY)
_KMS_FIELDS = frozenset({"apiVersion", "name", "endpoint", "timeout", "cachesize"})
_ALL = "*.*"
_NOT_OBJECTS = ("apiserveripinfo", "serviceipallocations", "servicenodeportallocations")


class ConfigurationError(ValueError):
    """A configuration that cannot be used; the text names the field."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a provider, or a KMS plugin with its socket; `identity` stands for none at all."""

    provider: str
    name: str = ""
    secret: bytes = field(default=b"", repr=False)
    socket: str = ""
    timeout_s: float = 0.0

    @property
    def prefix(self) -> bytes:
        """How values begin that this key sealed."""
        version = "v2" if self.provider == KMS else "v1"
        return b"" if self.provider == IDENTITY else f"k8s:enc:{self.provider}:{version}:{self.name}:".encode()


#: Keys in order by what they are for: `secrets`, `deployments.apps`, `*.apps`, `*.`, `*.*`. The first one seals.
Rules = Mapping[str, tuple[Key, ...]]


def keys_for(rules: Rules, resource: str) -> tuple[Key, ...]:
    """The keys of a kind (`secrets`, `deployments.apps`): its own, else its group's, else everybody's; or none."""
    group = resource.partition(".")[2]
    return rules.get(resource) or rules.get(f"*.{group}") or rules.get(_ALL) or ()


def parse(document: Any) -> Rules:
    """The keys of a configuration. Raises ConfigurationError."""
    if not isinstance(document, dict):
        raise ConfigurationError("it is no object")
    if (document.get("apiVersion"), document.get("kind")) != (_VERSION, "EncryptionConfiguration"):
        raise ConfigurationError(f"it is no EncryptionConfiguration of {_VERSION}")
    given = document.get("resources")
    if not isinstance(given, list) or not given:
        raise ConfigurationError("resources: at least one is needed, such as secrets with a provider")
    rules: dict[str, tuple[Key, ...]] = {}
    plugins: set[str] = set()
    for i, group in enumerate(given):
        names, keys = _group(f"resources[{i}]", group, plugins)
        for name in names:
            _check_unmasked(f"resources[{i}].resources", name, rules)
        for name in names:
            rules[name] = tuple(dict.fromkeys((*rules.get(name, ()), *keys)))
            prefixes = [key.prefix for key in rules[name]]
            if len(set(prefixes)) != len(prefixes):
                raise ConfigurationError(f"resources[{i}].providers: two keys have the same provider and name")
    return rules


def _group(at: str, given: Any, plugins: set[str]) -> tuple[list[str], list[Key]]:
    if not isinstance(given, dict):
        raise ConfigurationError(f"{at}: it is no object")
    names = given.get("resources") or []
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"{at}.resources: names of kinds are needed, such as secrets")
    _check_names(f"{at}.resources", names)
    providers = given.get("providers") or []
    if not isinstance(providers, list) or not providers:
        raise ConfigurationError(f"{at}.providers: at least one is needed; identity stands for no encryption")
    keys = [key for i, one in enumerate(providers) for key in _provider(f"{at}.providers[{i}]", one, plugins)]
    prefixes = [key.prefix for key in keys]
    if len(set(prefixes)) != len(prefixes):
        raise ConfigurationError(f"{at}.providers: two keys have the same provider and name")
    return names, keys


# --- names of kinds


def _check_names(at: str, names: list[str]) -> None:
    for i, name in enumerate(names):
        if wrong := _wrong_name(name):
            raise ConfigurationError(f'{at}[{i}]: Invalid value: "{name}": {wrong}')
    listed = "[" + ", ".join(f'"{name}"' for name in names) + "]"
    if len(set(names)) != len(names):
        raise ConfigurationError(f"{at}: Invalid value: {listed}: the same resource cannot be specified multiple times")
    groups = [name.partition(".")[2] for name in names]
    if len(names) > 1 and any(
        name == _ALL or (name.startswith("*.") and groups.count(group) > 1)
        for name, group in zip(names, groups, strict=True)
    ):
        raise ConfigurationError(
            f"{at}: Invalid value: {listed}: using overlapping resources such as 'secrets' and '*.' in the same "
            "resource list is not allowed as they will be masked"
        )


def _wrong_name(name: str) -> str:
    plural, _, group = name.partition(".")
    if name != name.lower():
        return "resource name should not contain capital letters"
    if name == "*":
        return "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
    if name in _NOT_OBJECTS:
        return "resources which do not have REST API/s cannot be encrypted"
    if group == "events.k8s.io":
        return (
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. "
            "Use 'events' instead in the config file"
        )
    if group == "extensions":
        return "'extensions' group has been removed and cannot be used for encryption"
    if group == "*" and plural != "*":
        return "encrypting the same resource across groups is not supported"
    return ""


def _check_unmasked(at: str, name: str, rules: Rules) -> None:
    for wider in (f"*.{name.partition('.')[2]}", _ALL):
        if wider in rules and wider != name:
            raise ConfigurationError(f'{at}: resource "{name}" is masked by earlier rule "{wider}"')


# --- providers


def _provider(at: str, given: Any, plugins: set[str]) -> Iterator[Key]:
    if not isinstance(given, dict) or len(given) != 1:
        raise ConfigurationError(f"{at}: one provider is needed, of {', '.join(_PROVIDERS)}")
    ((name, body),) = given.items()
    if name == IDENTITY:
        yield Key(IDENTITY)
        return
    if name == KMS:
        yield _plugin(f"{at}.kms", body if isinstance(body, dict) else {}, plugins)
        return
    if name not in CIPHERS:
        raise ConfigurationError(f"{at}.{name}: there is no such provider; use one of {', '.join(_PROVIDERS)}")
    keys = (body or {}).get("keys") if isinstance(body or {}, dict) else None
    if not isinstance(keys, list) or not keys:
        raise ConfigurationError(f"{at}.{name}.keys: at least one is needed")
    for i, key in enumerate(keys):
        yield _key(f"{at}.{name}.keys[{i}]", name, key)


def _key(at: str, provider: str, given: Any) -> Key:
    given = given if isinstance(given, dict) else {}
    name, secret = given.get("name"), given.get("secret")
    if not isinstance(name, str) or not name or ":" in name:
        raise ConfigurationError(f"{at}.name: a name without colons is needed")
    try:
        raw = base64.b64decode(secret, validate=True) if isinstance(secret, str) else b""
    except binascii.Error as error:
        raise ConfigurationError(f"{at}.secret: it is no base64") from error
    sizes = CIPHERS[provider].sizes
    if len(raw) not in sizes:
        wanted = " or ".join(map(str, sizes))
        raise ConfigurationError(f"{at}.secret: {len(raw)} bytes where {provider} takes {wanted}")
    return Key(provider, name, raw)


def _plugin(at: str, given: Mapping[str, Any], plugins: set[str]) -> Key:
    """A plugin of the KMS API v2; v1 is off in upstream, too (feature gate KMSv1)."""
    if unknown := sorted(given.keys() - _KMS_FIELDS):
        raise ConfigurationError(f'{at}: unknown field "{unknown[0]}"')
    name, version = given.get("name") or "", given.get("apiVersion") or "v1"
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{at}.name: Required value: name is a mandatory field for a provider")
    if version not in ("v1", "v2"):
        raise ConfigurationError(
            f'{at}.apiVersion: Invalid value: "{version}": unsupported apiVersion apiVersion for KMS provider, '
            "only v1 and v2 are supported"
        )
    if version == "v1":
        raise ConfigurationError(
            f"{at}.apiVersion: KMSv1 is deprecated and switched off: say v2, use a plugin of KMSv2"
        )
    if ":" in name:
        raise ConfigurationError(
            f"{at}.name: Invalid value: \"{name}\": invalid KMS provider name {name}, must not contain ':'"
        )
    if name in plugins:
        raise ConfigurationError(
            f'{at}.name: Invalid value: "{name}": duplicate KMS provider name {name}, names must be unique'
        )
    plugins.add(name)
    if given.get("cachesize") is not None:
        raise ConfigurationError(
            f"{at}.cachesize: Invalid value: {given['cachesize']}: cachesize is not supported in v2"
        )
    return Key(KMS, name, socket=_socket(at, given.get("endpoint")), timeout_s=_timeout(at, given.get("timeout")))


def _timeout(at: str, given: Any) -> float:
    text = "3s" if given is None else str(given)
    try:
        seconds = times.duration(text)
    except times.TimeError as error:
        raise ConfigurationError(f"{at}.timeout: {error}") from error
    if seconds <= 0:
        raise ConfigurationError(f'{at}.timeout: Invalid value: "{text}": timeout should be a positive value')
    return seconds


def _socket(at: str, endpoint: Any) -> str:
    """The path of `unix:///path`."""
    if not isinstance(endpoint, str) or not endpoint:
        raise ConfigurationError(f'{at}.endpoint: Invalid value: "": endpoint is a mandatory field for a kms')
    try:
        parts = urlsplit(endpoint)
    except ValueError as error:
        text = f'Invalid value: "{endpoint}": invalid endpoint for kms provider, error: {error}'
        raise ConfigurationError(f"{at}.endpoint: {text}") from error
    if parts.scheme != "unix":
        raise ConfigurationError(
            f'{at}.endpoint: Invalid value: "{endpoint}": unsupported scheme "{parts.scheme}" for KMS provider, '
            "only unix is supported"
        )
    # What upstream takes for a name without a file (`/@name`) libuv cannot connect to.
    if parts.netloc or len(parts.path) < 2 or parts.path.startswith("/@"):
        raise ConfigurationError(f'{at}.endpoint: Invalid value: "{endpoint}": use unix:///path/of/the/socket')
    return parts.path
