"""What the flags say of service-account tokens: which keys count, which one signs, whose they are, how long they last.

Source: the kube-apiserver reference, flags service-account-*; the rules for what is refused are upstream's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from k3s.api import times
from k3s.apiserver.rsa import BadKey
from k3s.apiserver.tokenkeys import Key, Signer, keys
from k3s.apiserver.tokens import Settings
from k3s.apiserver.tokens import settings as token_settings

_KEYS, _SIGNING, _ISSUER = "service-account-key-file", "service-account-signing-key-file", "service-account-issuer"
_JWKS, _LONGEST = "service-account-jwks-uri", "service-account-max-token-expiration"
_EXTEND = "service-account-extend-token-expiration"
FLAGS = {
    _KEYS: "a file with keys whose tokens count; may be repeated",
    _SIGNING: "a file with the key that signs",
    _ISSUER: "an issuer; may be repeated, the first is that of new tokens",
    _JWKS: "a URL",
    _LONGEST: "a duration",
    _EXTEND: "true or false",
}
#: Those that may come several times: their values are joined by line feeds.
REPEATED = frozenset({_KEYS, _ISSUER})
_LEAST_LONGEST_S, _MOST_LONGEST_S = 3600, 1 << 32


class AccountTokenError(ValueError):
    """What cannot be used; the text names the flag and says what to do."""


@dataclass(frozen=True, slots=True)
class AccountTokens:
    """What the flags say; `key_files` and `signing_file` are empty where k3s' own service.key is to be used."""

    key_files: tuple[str, ...] = ()
    signing_file: str = ""
    issuers: tuple[str, ...] = ()
    jwks_uri: str = ""
    longest_s: int = 0
    extend: bool = True

    def settings(self, domain: str, audiences: tuple[str, ...]) -> Settings:
        """How tokens are made and checked in a cluster of `domain`, with the value of api-audiences."""
        made = token_settings(domain, audiences, self.issuers)
        return Settings(made.issuers, made.audiences, made.given, self.extend, self.longest_s, self.jwks_uri)


#: No flag is given.
UNSAID = AccountTokens()


def settings(flags: Mapping[str, str]) -> AccountTokens:
    """From the values of the flags; files are read to see whether they can be used. Raises AccountTokenError."""
    found = AccountTokens(
        tuple(flags[_KEYS].split("\n")) if _KEYS in flags else (),
        flags.get(_SIGNING, ""),
        _issuers(flags),
        _jwks_uri(flags.get(_JWKS, "")),
        _longest(flags.get(_LONGEST, "0")),
        flags.get(_EXTEND, "true") == "true",
    )
    if flags.get(_EXTEND, "true") not in ("true", "false"):
        raise AccountTokenError(f"{_EXTEND} {flags[_EXTEND]!r} is neither true nor false")
    for file in found.key_files:
        _keys_of(_KEYS, file)
    if found.signing_file:
        _signer(_SIGNING, found.signing_file)
    return found


def load(given: AccountTokens, service_key: Path) -> tuple[Signer, list[Key]]:
    """The key that signs and all whose tokens count; what no flag names is in `service_key`, whose first key signs.

    Raises AccountTokenError, also when tokens of the key that signs would not count.
    """
    own = str(service_key)
    signer = _signer(_SIGNING, given.signing_file or own)
    found = {key.kid: key for file in given.key_files or (own,) for key in _keys_of(_KEYS, file)}
    if signer.public.kid not in found:
        raise AccountTokenError(
            f"{_KEYS} has to name the key of {given.signing_file or own}, too, or tokens signed with it are not "
            f"accepted: give {_KEYS} once more with that file"
        )
    return signer, list(found.values())


def _read(flag: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise AccountTokenError(f"{flag} {file!r} cannot be read: {error.strerror}") from error


def _keys_of(flag: str, file: str) -> list[Key]:
    try:
        return keys(_read(flag, file))
    except BadKey as error:
        raise AccountTokenError(f"{flag} {file!r} cannot be used: {error}") from None


def _signer(flag: str, file: str) -> Signer:
    try:
        return Signer(_read(flag, file))
    except BadKey as error:
        raise AccountTokenError(f"{flag} {file!r} cannot be used: {error}") from None


def _issuers(flags: Mapping[str, str]) -> tuple[str, ...]:
    if _ISSUER not in flags:
        return ()
    issuers = tuple(flags[_ISSUER].split("\n"))
    for at, issuer in enumerate(issuers):
        if not issuer:
            raise AccountTokenError(f"{_ISSUER} should not be an empty string")
        if issuer in issuers[:at]:
            raise AccountTokenError(f"{_ISSUER} {issuer!r} is already specified")
        if ":" in issuer and not _is_url(issuer):
            raise AccountTokenError(f"{_ISSUER} {issuer!r} contained a ':' but was not a valid URL")
    return issuers


def _jwks_uri(text: str) -> str:
    if text and not (text.startswith("https://") and _is_url(text)):
        raise AccountTokenError(f"{_JWKS} requires https scheme, parsed as: {text}")
    return text


def _is_url(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) and text.isprintable() and " " not in text


def _longest(text: str) -> int:
    try:
        seconds = times.duration(text)
    except times.TimeError as error:
        raise AccountTokenError(f"{_LONGEST} {text!r} is no duration such as 24h: {error}") from error
    if seconds and not _LEAST_LONGEST_S <= seconds <= _MOST_LONGEST_S:
        raise AccountTokenError(f"the {_LONGEST} must be between 1 hour and 2^32 seconds")
    return int(seconds)
