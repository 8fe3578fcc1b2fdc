"""The EncryptionConfiguration of apiserver.config.k8s.io/v1: which kinds are sealed, with which keys."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from k3s.apiserver.encryption.ciphers import CIPHERS

_VERSION = "apiserver.config.k8s.io/v1"
IDENTITY = "identity"


class ConfigurationError(ValueError):
    """A configuration that cannot be used; the text names the field."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a provider; `identity` stands for none at all."""

    provider: str
    name: str = ""
    secret: bytes = field(default=b"", repr=False)

    @property
    def prefix(self) -> bytes:
        """How values begin that this key sealed."""
        return b"" if self.provider == IDENTITY else f"k8s:enc:{self.provider}:v1:{self.name}:".encode()


@dataclass(frozen=True, slots=True)
class Group:
    """Some kinds, and the keys for them in order: the first one seals, all of them unseal."""

    resources: tuple[str, ...]
    keys: tuple[Key, ...]

    def covers(self, resource: str) -> bool:
        """Whether a kind (`secrets`, `deployments.apps`) is one of them."""
        group = resource.partition(".")[2]
        return any(name in (resource, "*.*", f"*.{group}") for name in self.resources)


def parse(document: Any) -> tuple[Group, ...]:
    """The groups of a configuration, first match wins. Raises ConfigurationError."""
    if not isinstance(document, dict):
        raise ConfigurationError("it is no object")
    if (document.get("apiVersion"), document.get("kind")) != (_VERSION, "EncryptionConfiguration"):
        raise ConfigurationError(f"it is no EncryptionConfiguration of {_VERSION}")
    given = document.get("resources")
    if not isinstance(given, list) or not given:
        raise ConfigurationError("resources: at least one is needed, such as secrets with a provider")
    groups = tuple(_group(f"resources[{i}]", group) for i, group in enumerate(given))
    seen: set[str] = set()
    for i, group in enumerate(groups):
        for name in group.resources:
            if name in seen:
                raise ConfigurationError(f"resources[{i}].resources: {name} stands in a group before")
            seen.add(name)
    return groups


def _group(at: str, given: Any) -> Group:
    if not isinstance(given, dict):
        raise ConfigurationError(f"{at}: it is no object")
    names = given.get("resources") or []
    if not names or not all(isinstance(name, str) and name and name == name.lower() for name in names):
        raise ConfigurationError(f"{at}.resources: names of kinds are needed, in lower case, such as secrets")
    providers = given.get("providers") or []
    if not providers:
        raise ConfigurationError(f"{at}.providers: at least one is needed; identity stands for no encryption")
    keys = [key for i, one in enumerate(providers) for key in _provider(f"{at}.providers[{i}]", one)]
    prefixes = [key.prefix for key in keys]
    if len(set(prefixes)) != len(prefixes):
        raise ConfigurationError(f"{at}.providers: two keys have the same provider and name")
    return Group(tuple(names), tuple(keys))


def _provider(at: str, given: Any) -> Iterator[Key]:
    if not isinstance(given, dict) or len(given) != 1:
        raise ConfigurationError(f"{at}: one provider is needed, of {', '.join((*CIPHERS, IDENTITY))}")
    ((name, body),) = given.items()
    if name == IDENTITY:
        yield Key(IDENTITY)
        return
    if name not in CIPHERS:
        hint = "a KMS plugin cannot be used yet" if name == "kms" else "there is no such provider"
        raise ConfigurationError(f"{at}.{name}: {hint}; use one of {', '.join((*CIPHERS, IDENTITY))}")
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
