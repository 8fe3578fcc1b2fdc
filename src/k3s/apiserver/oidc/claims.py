"""From the claims of a token to a user: mappings, rules and expressions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from k3s.api.object import encode
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
        mappings, rules = f"{issuer.at}.claimMappings", f"{issuer.at}.claimValidationRules"
        parts = (("username", issuer.username), ("groups", issuer.groups), ("uid", issuer.uid))
        self._parts = {name: self._mapping(part.expression, f"{mappings}.{name}.expression") for name, part in parts}
        self._extra = [
            (key, self._mapping(expression, f"{mappings}.extra[{i}].valueExpression"))
            for i, (key, expression) in enumerate(issuer.extra)
        ]
        self._claim_rules = [
            (rule, self._program(rule.expression, f"{rules}[{i}].expression", "claims", rule=True))
            for i, rule in enumerate(issuer.claim_rules)
        ]
        rules = f"{issuer.at}.userValidationRules"
        self._user_rules = [
            (rule, self._program(rule.expression, f"{rules}[{i}].expression", "user", rule=True))
            for i, rule in enumerate(issuer.user_rules)
        ]
        self._check_email(f"{mappings}.username.expression")

    def _mapping(self, source: str, at: str) -> Program | None:
        return self._program(source, at, "claims")

    def _program(self, source: str, at: str, variable: str, *, rule: bool = False) -> Program | None:
        if not source:
            return None
        from k3s.api.cel import CompileError, Environment, compile
        from k3s.api.cel.types import BOOL, DYN, STRING, list_of, map_of, object_type

        fields = {"username": STRING, "uid": STRING, "groups": list_of(STRING)}
        user = object_type("kubernetes.UserInfo", {**fields, "extra": map_of(STRING, list_of(STRING))})
        types = {"claims": map_of(STRING, DYN), "user": user}
        try:
            return compile(source, Environment({variable: types[variable]}), (BOOL,) if rule else ())
        except CompileError as error:
            raise SettingsError(f"{at}: Invalid value: {encode(source).decode()}: {error}") from error

    def _check_email(self, at: str) -> None:
        """Who is named by an e-mail address has to say what becomes of one that is not verified."""
        name = self._parts["username"]
        if name is None or not _reads(name, "email"):
            return
        rules = [program for _, program in (*self._extra, *self._claim_rules)]
        if not any(program is not None and _reads(program, "email_verified") for program in (name, *rules)):
            raise SettingsError(
                f"{at}: Invalid value: {encode(name.source).decode()}: claims.email_verified must be used in "
                "claimMappings.username.expression or claimMappings.extra[*].valueExpression or "
                "claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression"
            )

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
        return User(name, identity.with_authenticated(groups, name), uid, extra)

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


def _reads(program: Program, claim: str) -> bool:
    """Whether an expression reads a claim by its name."""
    from k3s.api.cel.syntax import Call, Ident, Literal, Select, walk

    def named(part: object) -> bool:
        return isinstance(part, Ident) and part.name == "claims"

    return any(
        (isinstance(part, Select) and part.field == claim and named(part.operand))
        or (
            isinstance(part, Call)
            and part.function == "_?._"
            and named(part.args[0])
            and isinstance(part.args[1], Literal)
            and part.args[1].value == claim
        )
        for part in walk(program.tree)
    )


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
