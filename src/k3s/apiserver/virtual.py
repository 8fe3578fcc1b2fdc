"""Kinds that are only answers: token reviews, access reviews, who am I.

Source: the authentication.k8s.io/v1 and authorization.k8s.io/v1 types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from k3s.api import times
from k3s.api.errors import BadRequest, invalid
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.validation import reviews
from k3s.apiserver import identity
from k3s.apiserver.authn import Authenticator
from k3s.apiserver.authz import Attributes, Authorizer, aggregate
from k3s.apiserver.identity import User
from k3s.base.clock import Clock

_Answer = Callable[["Reviews", Object, User, str], Object]


class Reviews:
    """Computes the status of review objects."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer, clock: Clock) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._clock = clock

    def create(self, kind: Kind, obj: Object, user: User, namespace: str = "") -> Object:
        """The answer to the creation of a review; raises Invalid, BadRequest, KeyError for a kind that is none."""
        answered = _ANSWERS[kind.kind](self, obj, user, namespace)
        rest = {key: value for key, value in answered.items() if key not in ("kind", "apiVersion", "metadata")}
        meta = {"metadata": answered.get("metadata") or {}}
        return {"kind": kind.kind, "apiVersion": kind.api_version, **meta, **rest}

    @staticmethod
    def answers(kind: Kind) -> bool:
        """Whether a kind is one of these reviews."""
        return kind.kind in _ANSWERS and kind.group in ("authentication.k8s.io", "authorization.k8s.io")

    def _token(self, obj: Object, user: User, namespace: str) -> Object:
        spec = obj.get("spec") or {}
        token, audiences = spec.get("token") or "", spec.get("audiences") or ()
        if not token:
            raise BadRequest("token is required for TokenReview in authentication")
        found = self._authenticator.review(token, audiences)
        if found is None:
            status: Object = {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
        else:
            status = {"authenticated": True, "user": identity.shown(found[0])}
            if found[1]:
                status["audiences"] = list(found[1])
        return {**obj, "status": status}

    def _access(self, obj: Object, user: User, namespace: str) -> Object:
        spec = obj.get("spec") or {}
        _raise([*reviews.subject(spec), *reviews.metadata(obj)])
        return self._decided(obj, _subject(spec))

    def _local_access(self, obj: Object, user: User, namespace: str) -> Object:
        spec = obj.get("spec") or {}
        meta = obj.get("metadata") or {}
        if meta.get("namespace", namespace) != namespace:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        obj = {**obj, "metadata": {**meta, "namespace": namespace}}
        _raise([*reviews.subject(spec), *reviews.local_metadata(obj), *reviews.local(spec, namespace)])
        return self._decided(obj, _subject(spec))

    def _self_access(self, obj: Object, user: User, namespace: str) -> Object:
        _raise([*reviews.attributes(obj.get("spec") or {}), *reviews.metadata(obj)])
        return self._decided(obj, user)

    def _decided(self, obj: Object, subject: User) -> Object:
        decision = self._authorizer.authorize(_attributes(obj["spec"], subject))
        status: Object = {"allowed": decision.allowed}
        if decision.denied:
            status["denied"] = True
        if decision.reason:
            status["reason"] = decision.reason
        if decision.error:
            status["evaluationError"] = decision.error
        return {**obj, "status": status}

    def _self_rules(self, obj: Object, user: User, namespace: str) -> Object:
        asked = (obj.get("spec") or {}).get("namespace") or ""
        if not asked:
            raise BadRequest("no namespace on request")
        rules, errors, incomplete = self._authorizer.rules_for(user, asked)
        resources, paths = [], []
        for rule in rules:
            if rule.get("resources"):
                fields = ("verbs", "apiGroups", "resources", "resourceNames")
                resources.append({field: rule[field] for field in fields if rule.get(field)})
            if rule.get("nonResourceURLs"):
                paths.append({field: rule[field] for field in ("verbs", "nonResourceURLs")})
        status: Object = {"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete}
        if errors:
            status["evaluationError"] = aggregate(errors)
        return {**obj, "spec": {}, "status": status}

    def _self(self, obj: Object, user: User, namespace: str) -> Object:
        meta = {"creationTimestamp": times.format(self._clock.now())}
        return {"metadata": meta, "status": {"userInfo": identity.shown(user)}}


_ANSWERS: Mapping[str, _Answer] = {
    "TokenReview": Reviews._token,
    "SubjectAccessReview": Reviews._access,
    "LocalSubjectAccessReview": Reviews._local_access,
    "SelfSubjectAccessReview": Reviews._self_access,
    "SelfSubjectRulesReview": Reviews._self_rules,
    "SelfSubjectReview": Reviews._self,
}


def _subject(spec: Object) -> User:
    extra = {str(key).lower(): tuple(values) for key, values in (spec.get("extra") or {}).items()}
    return User(spec.get("user") or "", tuple(spec.get("groups") or ()), spec.get("uid") or "", extra)


def _attributes(spec: Object, subject: User) -> Attributes:
    asked = spec.get("resourceAttributes")
    if asked is None:
        path = spec["nonResourceAttributes"]
        return Attributes(subject, path.get("verb", ""), path=path.get("path", ""), is_resource=False)
    return Attributes(
        subject,
        asked.get("verb", ""),
        asked.get("group", ""),
        asked.get("version", ""),
        asked.get("resource", ""),
        asked.get("subresource", ""),
        asked.get("namespace", ""),
        asked.get("name", ""),
        fields=_selector(asked.get("fieldSelector") or {}),
        labels=_selector(asked.get("labelSelector") or {}, labels=True),
    )


def _selector(selector: Object, *, labels: bool = False) -> str:
    """A selector of a review as text. Requirements that cannot be told so are left out: then more is asked for."""
    if selector.get("rawSelector"):
        return str(selector["rawSelector"])
    return ",".join(filter(None, (_requirement(each, labels) for each in selector.get("requirements") or ())))


def _requirement(one: Object, labels: bool) -> str:
    key, operator = one.get("key", ""), one.get("operator", "")
    values: Sequence[str] = one.get("values") or ()
    if labels and operator in ("Exists", "DoesNotExist"):
        return key if operator == "Exists" else f"!{key}"
    sign = {"In": "=", "NotIn": "!="}.get(operator, "")
    if sign and len(values) == 1:
        return f"{key}{sign}{values[0]}"
    return f"{key} {operator.lower()} ({','.join(values)})" if labels and sign else ""


def _raise(causes: list[dict[str, str]]) -> None:
    if causes:
        raise invalid("authorization.k8s.io", "", "", causes)
