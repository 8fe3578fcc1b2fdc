"""From the claims of a token to a user: mappings, rules and expressions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from k3s.apiserver import identity
from k3s.apiserver.identity import CREDENTIAL_ID, User
from k3s.apiserver.oidc.settings import IssuerSettings, Part, SettingsError

if TYPE_CHECKING:
    from k3s.api.cel import Program

Claims = Mapping[str, Any]


class Refused(Exception):
    """Claims that make no user; the text says why."""


class Mapper:
    """Makes users of the claims of one issuer. Raises SettingsError for an expression that does not compile."""

    def __init__(self, issuer: IssuerSettings) -> None:
        self._issuer = issuer
        parts = (("username", issuer.username), ("groups", issuer.groups), ("uid", issuer.uid))
        self._parts = {name: self._program(part.expression, "claims") for name, part in parts}
        self._extra = [(key, self._program(expression, "claims")) for key, expression in issuer.extra]
        self._claim_rules = [(rule, self._program(rule.expression, "claims")) for rule in issuer.claim_rules]
        self._user_rules = [(rule, self._program(rule.expression, "user")) for rule in issuer.user_rules]

    def _program(self, source: str, variable: str) -> Program | None:
        if not source:
            return None
        from k3s.api.cel import CompileError, Environment, compile
        from k3s.api.cel.types import DYN

        try:
            return compile(source, Environment({variable: DYN}))
        except CompileError as error:
            raise SettingsError(
                f"expression {source!r} of issuer {self._issuer.url} does not compile: {error}"
            ) from error

    def user(self, claims: Claims) -> User:
        """The user of claims whose signature, issuer, audience and times are right. Raises Refused."""
        for rule, program in self._claim_rules:
            if program is None:
                if claims.get(rule.claim) != rule.value:
                    raise Refused(f"oidc: claim {rule.claim} is not {rule.value!r}")
            elif _value(program, "claims", claims) is not True:
                raise Refused(rule.message or f"validation expression {rule.expression!r} failed")
        name = self._text("username", self._issuer.username, claims)
        if not name:
            raise Refused("oidc: the token names no user")
        if self._issuer.username.claim == "email" and claims.get("email_verified", True) is not True:
            raise Refused("oidc: email not verified")
        groups = self._groups(claims)
        uid = self._text("uid", self._issuer.uid, claims)
        extra = {key: _texts(_value(program, "claims", claims)) for key, program in self._extra if program is not None}
        extra = {key: values for key, values in extra.items() if values}
        if isinstance(claims.get("jti"), str) and claims["jti"]:
            extra[CREDENTIAL_ID] = (f"JTI={claims['jti']}",)
        self._check(name, groups, uid, extra)
        return User(name, identity.with_authenticated(groups), uid, extra)

    def _text(self, name: str, part: Part, claims: Claims) -> str:
        program = self._parts[name]
        if program is not None:
            value = _value(program, "claims", claims)
        elif not part.claim:
            return ""
        else:
            value = claims.get(part.claim)
            if name == "uid" and value is None:
                return ""
        if not isinstance(value, str):
            raise Refused(f"oidc: {name} is no text")
        return part.prefix + value if value else ""

    def _groups(self, claims: Claims) -> tuple[str, ...]:
        part, program = self._issuer.groups, self._parts["groups"]
        if program is not None:
            return _texts(_value(program, "claims", claims))
        if not part.claim or claims.get(part.claim) is None:
            return ()
        return tuple(part.prefix + group for group in _texts(claims[part.claim]))

    def _check(self, name: str, groups: Sequence[str], uid: str, extra: Mapping[str, tuple[str, ...]]) -> None:
        listed = {key: list(values) for key, values in extra.items()}
        user = {"username": name, "groups": list(groups), "uid": uid, "extra": listed}
        for rule, program in self._user_rules:
            if program is None or _value(program, "user", user) is not True:
                raise Refused(rule.message or f"validation expression {rule.expression!r} failed")


def _value(program: Program, variable: str, value: Any) -> Any:
    from k3s.api.cel import EvaluationError, to_json

    try:
        return to_json(program.evaluate({variable: value}))
    except EvaluationError as error:
        raise Refused(f"expression {program.source!r} resulted in error: {error}") from None


def _texts(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(one for one in value if one)
    raise Refused("oidc: a claim is neither text nor a list of texts")
