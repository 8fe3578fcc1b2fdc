"""Which issuers are believed: the flags oidc-*, or a file of the type AuthenticationConfiguration.

Source: "Authenticating", OpenID Connect tokens and the apiserver.config.k8s.io types of the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from k3s.api.errors import BadRequest

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
    "authentication-config": "a file",
}
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")


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


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """The issuers, and the paths that anonymous users may ask (None: the file does not say)."""

    issuers: tuple[IssuerSettings, ...] = ()
    anonymous: bool | None = None
    anonymous_paths: frozenset[str] = field(default_factory=frozenset)


#: Nobody else is believed.
NONE = TokenSettings()


def settings(flags: Mapping[str, str]) -> TokenSettings:
    """From the values of the flags. Raises SettingsError."""
    file = flags.get("authentication-config", "")
    if file:
        mixed = sorted(name for name in flags if name.startswith("oidc-"))
        if mixed:
            raise SettingsError(f"authentication-config and {mixed[0]} cannot be used together: use one of them")
        return parse(_read("authentication-config", file))
    url = flags.get("oidc-issuer-url", "")
    if not url:
        given = sorted(name for name in flags if name.startswith("oidc-"))
        if given:
            raise SettingsError(f"{given[0]} is of no use without oidc-issuer-url: give both")
        return NONE
    return TokenSettings((_of_flags(url, flags),))


def _of_flags(url: str, flags: Mapping[str, str]) -> IssuerSettings:
    client = flags.get("oidc-client-id", "")
    if not client:
        raise SettingsError("oidc-issuer-url needs oidc-client-id: name the audience that tokens have to be for")
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
    found = IssuerSettings(
        url,
        (client,),
        Part(claim, "" if prefix == "-" else prefix),
        Part(flags.get("oidc-groups-claim", ""), flags.get("oidc-groups-prefix", "")),
        ca_pem=_read("oidc-ca-file", ca_file) if ca_file else "",
        algorithms=algorithms,
        claim_rules=tuple(rules),
    )
    _check_url("oidc-issuer-url", url)
    return found


def _read(flag: str, path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{flag} {path!r} cannot be read: {error}") from error


def parse(text: str) -> TokenSettings:
    """From the text of an AuthenticationConfiguration. Raises SettingsError naming the field."""
    from k3s.api import yamltext

    try:
        found = yamltext.load(text.encode())
    except (BadRequest, ValueError) as error:
        raise SettingsError(f"the authentication configuration is no YAML: {error}") from error
    if not isinstance(found, dict) or found.get("kind") != "AuthenticationConfiguration":
        raise SettingsError("the authentication configuration has to be of kind AuthenticationConfiguration")
    if found.get("apiVersion") not in _VERSIONS:
        raise SettingsError(f"apiVersion {found.get('apiVersion')!r} is not known: use {_VERSIONS[0]}")
    _known(found, "", ("kind", "apiVersion", "jwt", "anonymous"))
    issuers = tuple(_issuer(one, f"jwt[{i}]") for i, one in enumerate(_list(found, "jwt", "jwt")))
    urls = [issuer.url for issuer in issuers]
    for i, url in enumerate(urls):
        if url in urls[:i]:
            raise SettingsError(f"jwt[{i}].issuer.url: Duplicate value: {url!r}")
    anonymous = found.get("anonymous")
    if anonymous is None:
        return TokenSettings(issuers)
    _known(anonymous, "anonymous", ("enabled", "conditions"))
    paths = frozenset(str(one.get("path", "")) for one in _list(anonymous, "conditions", "anonymous.conditions"))
    if paths and not anonymous.get("enabled"):
        raise SettingsError("anonymous.conditions: enabled should be set to true when conditions are defined")
    return TokenSettings(issuers, bool(anonymous.get("enabled")), paths)


def _issuer(one: Any, at: str) -> IssuerSettings:
    names = ("issuer", "claimMappings", "claimValidationRules", "userValidationRules")
    _known(one, at, names)
    issuer, mappings = one.get("issuer") or {}, one.get("claimMappings") or {}
    _known(issuer, f"{at}.issuer", ("url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy"))
    _known(mappings, f"{at}.claimMappings", ("username", "groups", "uid", "extra"))
    url, audiences = str(issuer.get("url") or ""), tuple(_list(issuer, "audiences", f"{at}.issuer.audiences"))
    _check_url(f"{at}.issuer.url", url)
    if issuer.get("discoveryURL"):
        _check_url(f"{at}.issuer.discoveryURL", issuer["discoveryURL"])
        if issuer["discoveryURL"] == url:
            raise SettingsError(f"{at}.issuer.discoveryURL: discoveryURL must be different from URL")
    if not audiences:
        raise SettingsError(f"{at}.issuer.audiences: Required value: at least one jwt[*].issuer.audiences is required")
    if len(audiences) > 1 and issuer.get("audienceMatchPolicy") != "MatchAny":
        raise SettingsError(f"{at}.issuer.audienceMatchPolicy: must be MatchAny for multiple audiences")
    username = _part(mappings.get("username"), f"{at}.claimMappings.username")
    if not username.claim and not username.expression:
        raise SettingsError(f"{at}.claimMappings.username: Required value: claim or expression is required")
    extra = tuple(
        (str(e.get("key", "")), str(e.get("valueExpression", "")))
        for e in _list(mappings, "extra", f"{at}.claimMappings.extra")
    )
    for i, (key, expression) in enumerate(extra):
        if not key or "/" not in key or key != key.lower() or not expression:
            where = f"{at}.claimMappings.extra[{i}]"
            raise SettingsError(f"{where}: needs a lower case domain-prefixed key and a valueExpression")
    return IssuerSettings(
        url,
        audiences,
        username,
        _part(mappings.get("groups"), f"{at}.claimMappings.groups"),
        _part(mappings.get("uid"), f"{at}.claimMappings.uid"),
        extra,
        str(issuer.get("discoveryURL") or ""),
        str(issuer.get("certificateAuthority") or ""),
        claim_rules=_rules(one, "claimValidationRules", at),
        user_rules=_rules(one, "userValidationRules", at),
    )


def _part(value: Any, at: str) -> Part:
    value = value or {}
    _known(value, at, ("claim", "prefix", "expression"))
    claim, expression = str(value.get("claim") or ""), str(value.get("expression") or "")
    if claim and expression:
        raise SettingsError(f"{at}: claim and expression can't both be set")
    if claim and value.get("prefix") is None and not at.endswith("uid"):
        raise SettingsError(
            f"{at}.prefix: Required value: prefix is required when claim is set. "
            "It can be set to an empty string to disable prefixing"
        )
    return Part(claim, str(value.get("prefix") or ""), expression)


def _rules(one: Any, name: str, at: str) -> tuple[Rule, ...]:
    found = []
    for i, rule in enumerate(_list(one, name, f"{at}.{name}")):
        where = f"{at}.{name}[{i}]"
        _known(rule, where, ("claim", "requiredValue", "expression", "message"))
        claim, expression = str(rule.get("claim") or ""), str(rule.get("expression") or "")
        if bool(claim) == bool(expression):
            raise SettingsError(f"{where}: exactly one of claim and expression is required")
        found.append(Rule(claim, str(rule.get("requiredValue") or ""), expression, str(rule.get("message") or "")))
    return tuple(found)


def _known(value: Any, at: str, names: Sequence[str]) -> None:
    if not isinstance(value, dict):
        raise SettingsError(f"{at}: has to be an object")
    unknown = sorted(set(value) - set(names))
    if unknown:
        raise SettingsError(f"{at + '.' if at else ''}{unknown[0]}: unknown field; known are {', '.join(names)}")


def _list(value: Any, name: str, at: str) -> list[Any]:
    found = value.get(name) or []
    if not isinstance(found, list):
        raise SettingsError(f"{at}: has to be a list")
    return found


def _check_url(at: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise SettingsError(f"{at}: Invalid value: {url!r}: URL scheme must be https")
    if parts.username or parts.query or parts.fragment:
        raise SettingsError(f"{at}: Invalid value: {url!r}: must have no user, query or fragment")
