"""Who else knows bearer tokens, as the flags say: issuers of JSON web tokens, and a webhook."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k3s.api import times
from k3s.apiserver.oidc import settings as oidc
from k3s.apiserver.oidc.settings import IssuerSettings, SettingsError, TokenSettings
from k3s.base.clock import Clock

if TYPE_CHECKING:
    from k3s.apiserver.authn import TokenSource
    from k3s.apiserver.oidc.provider import Provider

_FILE = "authentication-token-webhook-config-file"
_VERSION = "authentication-token-webhook-version"
_TTL = "authentication-token-webhook-cache-ttl"
#: Those that may come several times: their values are joined by line feeds.
REPEATED = frozenset({"oidc-required-claim"})
FLAGS = {**oidc.FLAGS, _FILE: "a file", _VERSION: "v1 or v1beta1", _TTL: "a duration"}


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """The issuers; the kubeconfig of a webhook, the version of what it is asked, how long its answers count.

    `issuers_file` is where the issuers come from, if from a file, and `disallowed` are those that it must not name.
    """

    tokens: TokenSettings = oidc.NONE
    webhook_file: str = ""
    webhook_version: str = "v1beta1"
    webhook_ttl_s: float = 120.0
    issuers_file: str = ""
    disallowed: tuple[str, ...] = ()


#: No other sources.
NONE = SourceSettings()


def settings(flags: Mapping[str, str], disallowed: Collection[str] = ()) -> SourceSettings:
    """From the values of the flags; `disallowed` are the issuers of service accounts, whose tokens nobody else makes.

    Raises SettingsError naming the flag, or the field of a file.
    """
    names = (*oidc.FLAGS, "anonymous-auth")
    tokens = oidc.settings({name: value for name, value in flags.items() if name in names}, disallowed)
    check(tokens)
    file, version = flags.get(_FILE, ""), flags.get(_VERSION, "v1beta1")
    if version not in ("v1", "v1beta1"):
        raise SettingsError(f"{_VERSION} {version!r} is not known: use v1 or v1beta1")
    try:
        ttl_s = times.duration(flags.get(_TTL, "2m"))
    except times.TimeError as error:
        raise SettingsError(f"{_TTL} is no duration such as 2m: {error}") from error
    if file:
        _check_kubeconfig(file)
    return SourceSettings(tokens, file, version, ttl_s, flags.get(oidc.FILE, ""), tuple(disallowed))


def check(tokens: TokenSettings) -> None:
    """Raises SettingsError for an expression that does not compile."""
    if tokens.issuers:
        from k3s.apiserver.oidc.claims import Mapper

        for issuer in tokens.issuers:
            Mapper(issuer)


def _check_kubeconfig(file: str) -> None:
    from k3s.client.kubeconfig import load

    try:
        load(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{_FILE} {file!r} cannot be used: {error}") from error


class Sources:
    """The sources, in the order in which they are asked; the issuers may be exchanged. Raises ValueError, OSError."""

    def __init__(self, given: SourceSettings, clock: Clock) -> None:
        self._clock = clock
        self._providers: dict[IssuerSettings, Provider] = {}
        self._others: list[TokenSource] = []
        if given.webhook_file:
            from k3s.apiserver import tokenwebhook

            self._others.append(tokenwebhook.from_file(given.webhook_file, given.webhook_version, given.webhook_ttl_s))
        self._providers = self._made(given.tokens)

    def all(self) -> tuple[TokenSource, ...]:
        """Every source."""
        return (*self._providers.values(), *self._others)

    async def exchange(self, tokens: TokenSettings) -> None:
        """Believes these issuers from now on, once the keys of new ones are there. Raises Refused when they are not.

        Those that stay keep their keys.
        """
        made = self._made(tokens)
        new = [provider for issuer, provider in made.items() if issuer not in self._providers]
        await asyncio.gather(*(provider.prepare() for provider in new))
        self._providers = made

    def _made(self, tokens: TokenSettings) -> dict[IssuerSettings, Provider]:
        if not tokens.issuers:
            return {}
        from k3s.apiserver.oidc.provider import Provider, fetch

        known = self._providers
        return {one: known.get(one) or Provider(one, fetch, self._clock) for one in tokens.issuers}
