"""The file of the type AuthenticationConfiguration, and every rule for it. Pure.

Source: the apiserver.config.k8s.io types of the Kubernetes documentation (KEP-3331); the rules and their words are
upstream's. The first fault is told.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

from k3s.api import names
from k3s.api.errors import BadRequest
from k3s.api.object import encode
from k3s.apiserver.oidc.settings import IssuerSettings, Part, Rule, SettingsError, TokenSettings

_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")
_MOST_ISSUERS = 64
_MATCH_ANY = "MatchAny"
_NOT_BOTH = "claim and expression can't both be set"


def parse(text: str, disallowed: Collection[str] = ()) -> TokenSettings:
    """From the text of a file; `disallowed` are issuers it must not name. Raises SettingsError naming the field."""
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
    listed = _list(found, "jwt", "jwt")
    if len(listed) > _MOST_ISSUERS:
        raise SettingsError(f"jwt: Too many: {len(listed)}: must have at most {_MOST_ISSUERS} items")
    issuers = tuple(_issuer(one, f"jwt[{i}]", disallowed) for i, one in enumerate(listed))
    _unique([issuer.url for issuer in issuers], "issuer.url")
    _unique([issuer.discovery_url for issuer in issuers], "issuer.discoveryURL")
    anonymous = found.get("anonymous")
    if anonymous is None:
        return TokenSettings(issuers)
    _known(anonymous, "anonymous", ("enabled", "conditions"))
    conditions = _list(anonymous, "conditions", "anonymous.conditions")
    for i, one in enumerate(conditions):
        _known(one, f"anonymous.conditions[{i}]", ("path",))
    paths = frozenset(_text(one, "path", f"anonymous.conditions[{i}]") for i, one in enumerate(conditions))
    enabled = anonymous.get("enabled", False)
    if not isinstance(enabled, bool):
        raise SettingsError("anonymous.enabled: has to be true or false")
    if conditions and not enabled:
        raise _invalid("anonymous.conditions", conditions, "enabled should be set to true when conditions are defined")
    return TokenSettings(issuers, enabled, paths)


def _unique(values: Sequence[str], at: str) -> None:
    for i, value in enumerate(values):
        if value and value in values[:i]:
            raise SettingsError(f"jwt[{i}].{at}: Duplicate value: {_quoted(value)}")


def _issuer(one: Any, at: str, disallowed: Collection[str]) -> IssuerSettings:
    _known(one, at, ("issuer", "claimMappings", "claimValidationRules", "userValidationRules"))
    issuer, mappings = one.get("issuer") or {}, one.get("claimMappings") or {}
    where = f"{at}.issuer"
    _known(
        issuer,
        where,
        ("url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy", "egressSelectorType"),
    )
    _known(mappings, f"{at}.claimMappings", ("username", "groups", "uid", "extra"))
    url, discovery = _text(issuer, "url", where), _text(issuer, "discoveryURL", where)
    if not url:
        raise SettingsError(f"{where}.url: Required value")
    check_url(f"{where}.url", url, disallowed)
    if discovery:
        if discovery.rstrip("/") == url.rstrip("/"):
            raise _invalid(f"{where}.discoveryURL", discovery, "discoveryURL must be different from URL")
        check_url(f"{where}.discoveryURL", discovery)
    if issuer.get("egressSelectorType"):
        raise SettingsError(f"{where}.egressSelectorType: there are no egress selectors here: leave it out")
    return IssuerSettings(
        url,
        _audiences(issuer, where),
        _part(mappings, "username", at, required=True),
        _part(mappings, "groups", at),
        _uid(mappings, at),
        _extra(mappings, f"{at}.claimMappings.extra"),
        discovery,
        _authority(issuer, where),
        claim_rules=_claim_rules(one, f"{at}.claimValidationRules"),
        user_rules=_user_rules(one, f"{at}.userValidationRules"),
        at=at,
    )


def _audiences(issuer: Any, at: str) -> tuple[str, ...]:
    audiences = _list(issuer, "audiences", f"{at}.audiences")
    policy = _text(issuer, "audienceMatchPolicy", at)
    if not audiences:
        raise SettingsError(f"{at}.audiences: Required value: at least one {at}.audiences is required")
    for i, audience in enumerate(audiences):
        if not isinstance(audience, str) or not audience:
            raise SettingsError(f"{at}.audiences[{i}]: Required value")
        if audience in audiences[:i]:
            raise SettingsError(f"{at}.audiences[{i}]: Duplicate value: {_quoted(audience)}")
    if len(audiences) > 1 and policy != _MATCH_ANY:
        why = "audienceMatchPolicy must be MatchAny for multiple audiences"
        raise _invalid(f"{at}.audienceMatchPolicy", policy, why)
    if policy not in ("", _MATCH_ANY):
        why = "audienceMatchPolicy must be empty or MatchAny for single audience"
        raise _invalid(f"{at}.audienceMatchPolicy", policy, why)
    return tuple(audiences)


def _authority(issuer: Any, at: str) -> str:
    pem = _text(issuer, "certificateAuthority", at)
    if pem:
        try:
            ssl.create_default_context(cadata=pem)
        except (ssl.SSLError, ValueError) as error:
            raise SettingsError(f'{at}.certificateAuthority: Invalid value: "<omitted>": {error}') from None
    return pem


def _part(mappings: Any, name: str, at: str, required: bool = False) -> Part:
    where = f"{at}.claimMappings.{name}"
    value = mappings.get(name) or {}
    _known(value, where, ("claim", "prefix", "expression"))
    claim, expression, prefix = (_text(value, key, where) for key in ("claim", "expression", "prefix"))
    said = value.get("prefix") is not None
    if claim and expression:
        raise _invalid(where, "", _NOT_BOTH)
    if required and not claim and not expression:
        raise SettingsError(f"{where}: Required value: claim or expression is required")
    if expression and said:
        raise _invalid(f"{where}.prefix", prefix, "may not be specified when expression is set")
    if claim and not said:
        raise SettingsError(
            f"{where}.prefix: Required value: prefix is required when claim is set. "
            "It can be set to an empty string to disable prefixing"
        )
    return Part(claim, prefix, expression)


def _uid(mappings: Any, at: str) -> Part:
    where, value = f"{at}.claimMappings.uid", mappings.get("uid") or {}
    _known(value, where, ("claim", "expression"))
    claim, expression = _text(value, "claim", where), _text(value, "expression", where)
    if claim and expression:
        raise _invalid(where, "", _NOT_BOTH)
    return Part(claim, "", expression)


def _extra(mappings: Any, at: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for i, one in enumerate(_list(mappings, "extra", at)):
        where = f"{at}[{i}]"
        _known(one, where, ("key", "valueExpression"))
        key, expression = _text(one, "key", where), _text(one, "valueExpression", where)
        if not key:
            raise SettingsError(f"{where}.key: Required value")
        for problem in names.domain_prefixed_path(key):
            raise _invalid(f"{where}.key", key, problem)
        if key != key.lower():
            raise _invalid(f"{where}.key", key, "must be lowercase")
        if f".{key.partition('/')[0]}".endswith((".kubernetes.io", ".k8s.io")):
            why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"
            raise _invalid(f"{where}.key", key, why)
        if key in found:
            raise SettingsError(f"{where}.key: Duplicate value: {_quoted(key)}")
        if not expression:
            raise SettingsError(f"{where}.valueExpression: Required value")
        found[key] = expression
    return tuple(found.items())


def _claim_rules(one: Any, at: str) -> tuple[Rule, ...]:
    found: list[Rule] = []
    for i, value in enumerate(_list(one, at.rpartition(".")[2], at)):
        where = f"{at}[{i}]"
        _known(value, where, ("claim", "requiredValue", "expression", "message"))
        rule = Rule(*(_text(value, key, where) for key in ("claim", "requiredValue", "expression", "message")))
        if rule.claim and rule.expression:
            raise _invalid(where, rule.claim, _NOT_BOTH)
        if not rule.claim and not rule.expression:
            raise SettingsError(f"{where}: Required value: claim or expression is required")
        if rule.claim and rule.message:
            raise _invalid(f"{where}.message", rule.message, "may not be specified when claim is set")
        if rule.expression and rule.value:
            raise _invalid(f"{where}.requiredValue", rule.value, "may not be specified when expression is set")
        for kind, text in (("claim", rule.claim), ("expression", rule.expression)):
            if text and any(getattr(other, kind) == text for other in found):
                raise SettingsError(f"{where}.{kind}: Duplicate value: {_quoted(text)}")
        found.append(rule)
    return tuple(found)


def _user_rules(one: Any, at: str) -> tuple[Rule, ...]:
    found: list[Rule] = []
    for i, value in enumerate(_list(one, at.rpartition(".")[2], at)):
        where = f"{at}[{i}]"
        _known(value, where, ("expression", "message"))
        expression = _text(value, "expression", where)
        if not expression:
            raise SettingsError(f"{where}.expression: Required value")
        if any(other.expression == expression for other in found):
            raise SettingsError(f"{where}.expression: Duplicate value: {_quoted(expression)}")
        found.append(Rule(expression=expression, message=_text(value, "message", where)))
    return tuple(found)


def check_url(at: str, url: str, disallowed: Collection[str] = ()) -> None:
    """Raises SettingsError unless an issuer, or its documents, may be at this URL."""
    if url in disallowed:
        listed = " ".join(sorted(disallowed))
        raise _invalid(at, url, f"URL must not overlap with disallowed issuers: [{listed}]")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _invalid(at, url, str(error)) from None
    if parts.scheme != "https" or not parts.hostname:
        raise _invalid(at, url, "URL scheme must be https")
    if "@" in parts.netloc:
        raise _invalid(at, url, "URL must not contain a username or password")
    if parts.query:
        raise _invalid(at, url, "URL must not contain a query")
    if parts.fragment:
        raise _invalid(at, url, "URL must not contain a fragment")


def _quoted(value: Any) -> str:
    return encode(value).decode()


def _invalid(at: str, value: Any, why: str) -> SettingsError:
    return SettingsError(f"{at}: Invalid value: {_quoted(value)}: {why}")


def _text(value: Any, name: str, at: str) -> str:
    found = value.get(name)
    if found is not None and not isinstance(found, str):
        raise SettingsError(f"{at}.{name}: has to be a text")
    return found or ""


def _known(value: Any, at: str, fields: Sequence[str]) -> None:
    if not isinstance(value, dict):
        raise SettingsError(f"{at}: has to be an object")
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise SettingsError(f"{at + '.' if at else ''}{unknown[0]}: unknown field; known are {', '.join(fields)}")


def _list(value: Any, name: str, at: str) -> list[Any]:
    found = value.get(name) or []
    if not isinstance(found, list):
        raise SettingsError(f"{at}: has to be a list")
    return found
