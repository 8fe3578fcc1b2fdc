"""Who else knows bearer tokens, as the flags say: issuers of JSON web tokens, and a webhook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k3s.api import times
from k3s.apiserver.oidc import settings as oidc
from k3s.apiserver.oidc.settings import SettingsError, TokenSettings
from k3s.base.clock import Clock

if TYPE_CHECKING:
    from k3s.apiserver.authn import TokenSource

_FILE = "authentication-token-webhook-config-file"
_VERSION = "authentication-token-webhook-version"
_TTL = "authentication-token-webhook-cache-ttl"
#: Those that may come several times: their values are joined by line feeds.
REPEATED = frozenset({"oidc-required-claim"})
FLAGS = {**oidc.FLAGS, _FILE: "a file", _VERSION: "v1 or v1beta1", _TTL: "a duration"}


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """The issuers; and the kubeconfig of a webhook, the version of what it is asked, how long its answers count."""

    tokens: TokenSettings = oidc.NONE
    webhook_file: str = ""
    webhook_version: str = "v1beta1"
    webhook_ttl_s: float = 120.0


#: No other sources.
NONE = SourceSettings()


def settings(flags: Mapping[str, str]) -> SourceSettings:
    """From the values of the flags. Raises SettingsError naming the flag, or the field of a file."""
    tokens = oidc.settings({name: value for name, value in flags.items() if name in oidc.FLAGS})
    if tokens.issuers:
        from k3s.apiserver.oidc.claims import Mapper

        for issuer in tokens.issuers:
            Mapper(issuer)  # what does not compile is told now
    file, version = flags.get(_FILE, ""), flags.get(_VERSION, "v1beta1")
    if version not in ("v1", "v1beta1"):
        raise SettingsError(f"{_VERSION} {version!r} is not known: use v1 or v1beta1")
    try:
        ttl_s = times.duration(flags.get(_TTL, "2m"))
    except times.TimeError as error:
        raise SettingsError(f"{_TTL} is no duration such as 2m: {error}") from error
    if file:
        _check_kubeconfig(file)
    return SourceSettings(tokens, file, version, ttl_s)


def _check_kubeconfig(file: str) -> None:
    from k3s.client.kubeconfig import load

    try:
        load(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{_FILE} {file!r} cannot be used: {error}") from error


def sources(given: SourceSettings, clock: Clock) -> list[TokenSource]:
    """The sources, in the order in which they are asked. Raises SettingsError, ValueError, OSError."""
    found: list[TokenSource] = []
    if given.tokens.issuers:
        from k3s.apiserver.oidc.provider import Provider, fetch

        found += [Provider(issuer, fetch, clock) for issuer in given.tokens.issuers]
    if given.webhook_file:
        from k3s.apiserver import tokenwebhook

        found.append(tokenwebhook.from_file(given.webhook_file, given.webhook_version, given.webhook_ttl_s))
    return found
