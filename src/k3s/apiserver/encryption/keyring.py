"""Seals what goes to the datastore and unseals what comes from it, by the configuration of the moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from k3s.apiserver.encryption.ciphers import CIPHERS, Cipher, Fresh, Tampered
from k3s.apiserver.encryption.config import IDENTITY, KMS, Key, Rules, keys_for

_SEALED = b"k8s:enc:"


class Unreadable(Exception):
    """A stored value that the present keys cannot unseal; the text says what is missing."""


class Unreachable(Exception):
    """The keeper of a key does not answer now; the text says who and why."""


class Locked(Exception):
    """The keeper of a key has to be asked first: await `ask()`, which raises Unreachable, then try again."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        super().__init__("a key is with somebody else")
        self.ask = ask


def _no_plugins(key: Key) -> Cipher:
    raise ValueError(f"there is nobody to ask for keys of the KMS plugin {key.name}")


class Keyring:
    """The keys. They can be replaced while the server runs; `plugin` makes the cipher of a KMS plugin."""

    def __init__(self, rules: Rules, fresh: Fresh, plugin: Callable[[Key], Cipher] = _no_plugins) -> None:
        self._fresh = fresh
        self._plugin = plugin
        #: How often the configuration has been replaced.
        self.changes = 0
        self.replace(rules)

    def replace(self, rules: Rules) -> None:
        """Uses another configuration from now on."""
        self.changes += 1
        self._rules = rules
        self._ciphers: dict[Key, Cipher] = {}
        self._found: dict[str, tuple[Key, ...]] = {}

    def _keys(self, key: str) -> tuple[Key, ...]:
        # /registry/<group>/<plural>/…
        end = key.index("/", key.index("/", 10) + 1)
        place = key[:end]
        if place not in self._found:
            _, _, group, plural = place.split("/")
            self._found[place] = keys_for(self._rules, plural if group == "core" else f"{plural}.{group}")
        return self._found[place]

    def _cipher(self, key: Key) -> Cipher:
        found = self._ciphers.get(key)
        if found is None:
            made = self._plugin(key) if key.provider == KMS else CIPHERS[key.provider](key.secret, self._fresh)
            found = self._ciphers[key] = made
        return found

    def seal(self, key: str, value: bytes) -> bytes:
        """The stored form of a value. Raises Locked."""
        keys = self._keys(key)
        if not keys or keys[0].provider == IDENTITY:
            return value
        first = keys[0]
        return first.prefix + self._cipher(first).seal(value, key.encode())

    def unseal(self, key: str, stored: bytes) -> bytes:
        """The value of a stored form. Raises Unreadable, Locked."""
        if not stored.startswith(_SEALED):
            return stored
        for one in self._keys(key):
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

    def has_rules(self, key: str) -> bool:
        """Whether the configuration says anything of a value's kind."""
        return bool(self._keys(key))

    def sealed_by(self, key: str, stored: bytes) -> bool:
        """Whether a stored form is what `seal` would make today: by the first key, or plain where there is none.

        Raises Locked.
        """
        keys = self._keys(key)
        prefix = keys[0].prefix if keys else b""
        if not prefix:
            return not stored.startswith(_SEALED)
        try:
            return stored.startswith(prefix) and self._cipher(keys[0]).is_current(stored[len(prefix) :])
        except Tampered:
            return False


def _named(stored: bytes) -> tuple[str, str]:
    parts = stored.split(b":", 5)
    provider, name = (parts[2], parts[4]) if len(parts) == 6 else (b"?", b"?")
    return provider.decode(errors="replace"), name.decode(errors="replace")
