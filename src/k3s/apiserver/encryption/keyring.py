"""Seals what goes to the datastore and unseals what comes from it, by the configuration of the moment."""

from __future__ import annotations

from collections.abc import Sequence

from k3s.apiserver.encryption.ciphers import CIPHERS, Cipher, Fresh, Tampered
from k3s.apiserver.encryption.config import IDENTITY, Group, Key

_SEALED = b"k8s:enc:"


class Unreadable(Exception):
    """A stored value that the present keys cannot unseal; the text says what is missing."""


class Keyring:
    """The keys. They can be replaced while the server runs."""

    def __init__(self, groups: Sequence[Group], fresh: Fresh) -> None:
        self._fresh = fresh
        self.replace(groups)

    def replace(self, groups: Sequence[Group]) -> None:
        """Uses another configuration from now on."""
        self._groups = tuple(groups)
        self._ciphers: dict[Key, Cipher] = {}
        self._found: dict[str, Group | None] = {}

    def _group(self, key: str) -> Group | None:
        # /registry/<group>/<plural>/…
        end = key.index("/", key.index("/", 10) + 1)
        place = key[:end]
        if place not in self._found:
            _, _, group, plural = place.split("/")
            resource = plural if group == "core" else f"{plural}.{group}"
            self._found[place] = next((found for found in self._groups if found.covers(resource)), None)
        return self._found[place]

    def _cipher(self, key: Key) -> Cipher:
        found = self._ciphers.get(key)
        if found is None:
            found = self._ciphers[key] = CIPHERS[key.provider](key.secret, self._fresh)
        return found

    def seal(self, key: str, value: bytes) -> bytes:
        """The stored form of a value."""
        group = self._group(key)
        if group is None or group.keys[0].provider == IDENTITY:
            return value
        first = group.keys[0]
        return first.prefix + self._cipher(first).seal(value, key.encode())

    def unseal(self, key: str, stored: bytes) -> bytes:
        """The value of a stored form. Raises Unreadable."""
        if not stored.startswith(_SEALED):
            return stored
        group = self._group(key)
        for one in group.keys if group is not None else ():
            if one.prefix and stored.startswith(one.prefix):
                try:
                    return self._cipher(one).unseal(stored[len(one.prefix) :], key.encode())
                except Tampered as error:
                    raise Unreadable(
                        f"{key} cannot be unsealed with the key {one.name} of {one.provider}: {error}"
                    ) from None
        provider, name = _named(stored)
        raise Unreadable(
            f"{key} is encrypted with the key {name} of {provider}, which the encryption configuration does not have "
            "for its kind: put the key back"
        )

    def sealed_by(self, key: str, stored: bytes) -> bool:
        """Whether a stored form is what `seal` would make today: by the first key, or plain where there is none."""
        group = self._group(key)
        prefix = group.keys[0].prefix if group is not None else b""
        return stored.startswith(prefix) if prefix else not stored.startswith(_SEALED)


def _named(stored: bytes) -> tuple[str, str]:
    parts = stored.split(b":", 5)
    provider, name = (parts[2], parts[4]) if len(parts) == 6 else (b"?", b"?")
    return provider.decode(errors="replace"), name.decode(errors="replace")
