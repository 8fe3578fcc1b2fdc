"""Which issuers are believed: the flags oidc-*, or a file of the type AuthenticationConfiguration.

Source: "Authenticating", OpenID Connect tokens and the apiserver.config.k8s.io types of the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FILE = "authentication-config"
FLAGS = {
    "oidc-issuer-url": "a URL",
    "oidc-client-id": "an audience",
    "oidc-username-claim": "a claim",
    "oidc-username-prefix": "a prefix, or - for none",
    "oidc-groups-claim": "a claim",
    "oidc-groups-prefix": "a prefix",
    "oidc-required-claim": "claim=value, separated by commas; may be repeated",
    "oidc-signing-algs": "algorithms, separated by commas",
    "oidc-ca-file": "a file",
    FILE: "a file; its changes are followed",
}
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")


class SettingsError(ValueError):
    """What cannot be used; the text names the flag or the field."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where something about the user comes from: a claim, with a prefix, or an expression."""

    claim: str = ""
    prefix: str = ""
    expression: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What has to hold: a claim with a value, or an expression; `message` is told when it does not."""

    claim: str = ""
    value: str = ""
    expression: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """One issuer, and how its claims become a user."""

    url: str
    audiences: tuple[str, ...]
    username: Part
    groups: Part = Part()
    uid: Part = Part()
    extra: tuple[tuple[str, str], ...] = ()
    discovery_url: str = ""
    ca_pem: str = ""
    algorithms: frozenset[str] = frozenset(ALGORITHMS)
    claim_rules: tuple[Rule, ...] = ()
    user_rules: tuple[Rule, ...] = ()
    at: str = field(default="jwt[0]", compare=False)  # its place in the configuration


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """The issuers, and the paths that anonymous users may ask (None: the file does not say)."""

    issuers: tuple[IssuerSettings, ...] = ()
    anonymous: bool | None = None
    anonymous_paths: frozenset[str] = field(default_factory=frozenset)


#: Nobody else is believed.
NONE = TokenSettings()


def settings(flags: Mapping[str, str], disallowed: Collection[str] = ()) -> TokenSettings:
    """From the values of the flags; `disallowed` are the issuers of service accounts. Raises SettingsError."""
    file = flags.get(FILE, "")
    given = any(name.startswith("oidc-") for name in flags)
    if file:
        if given:
            raise SettingsError("authentication-config file and oidc-* flags are mutually exclusive")
        return of_file(Path(file), disallowed, "anonymous-auth" in flags)
    if not given:
        return NONE
    url, client = flags.get("oidc-issuer-url", ""), flags.get("oidc-client-id", "")
    if not url or not client:
        raise SettingsError(
            "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
        )
    return TokenSettings((_of_flags(url, client, flags, disallowed),))


def of_file(path: Path, disallowed: Collection[str] = (), anonymous: bool = False) -> TokenSettings:
    """From an AuthenticationConfiguration; `anonymous` tells that anonymous-auth is given. Raises SettingsError."""
    from k3s.apiserver.oidc.configuration import parse

    found = parse(read(FILE, str(path)), disallowed)
    if found.anonymous is not None and anonymous:
        raise SettingsError(
            "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in "
            "authentication configuration file"
        )
    return found


def _of_flags(url: str, client: str, flags: Mapping[str, str], disallowed: Collection[str]) -> IssuerSettings:
    from k3s.apiserver.oidc.configuration import check_url

    check_url("jwt[0].issuer.url", url, disallowed)
    claim = flags.get("oidc-username-claim", "sub")
    prefix = flags.get("oidc-username-prefix", "" if claim == "email" else f"{url}#")
    rules = []
    for item in filter(None, flags.get("oidc-required-claim", "").replace("\n", ",").split(",")):
        name, mark, value = item.partition("=")
        if not mark:
            raise SettingsError(f"oidc-required-claim {item!r} is no claim=value")
        rules.append(Rule(name.strip(), value.strip()))
    algorithms = frozenset(filter(None, flags.get("oidc-signing-algs", "RS256").split(",")))
    unknown = sorted(algorithms - set(ALGORITHMS))
    if unknown:
        raise SettingsError(f"oidc-signing-algs {unknown[0]!r} is not known: use some of {', '.join(ALGORITHMS)}")
    ca_file = flags.get("oidc-ca-file", "")
    return IssuerSettings(
        url,
        (client,),
        Part(claim, "" if prefix == "-" else prefix),
        Part(flags.get("oidc-groups-claim", ""), flags.get("oidc-groups-prefix", "")),
        ca_pem=read("oidc-ca-file", ca_file) if ca_file else "",
        algorithms=algorithms,
        claim_rules=tuple(rules),
    )


def read(flag: str, path: str) -> str:
    """The text of the file that a flag names. Raises SettingsError."""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{flag} {path!r} cannot be read: {error}") from error
