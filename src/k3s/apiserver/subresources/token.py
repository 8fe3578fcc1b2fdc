"""`serviceaccounts/token`: a token for a service account, bound to an object if asked. Source: TokenRequest API."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from k3s.api import times
from k3s.api.errors import BadRequest, Conflict, ServiceUnavailable, invalid, not_found
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object
from k3s.apiserver import body as bodies
from k3s.apiserver.cache import Cache
from k3s.apiserver.call import Call
from k3s.apiserver.results import One, Result
from k3s.apiserver.writes import Writes

REQUEST = ("authentication.k8s.io/v1", "TokenRequest")
_BINDABLE = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}
_DEFAULT_S = 3600
_MIN_S, _MAX_S = 600, 1 << 32


class Issuer(Protocol):
    """Makes tokens."""

    def issue(
        self, namespace: str, account: Object, audiences: Sequence[str], expiry_s: int, bound: Object | None
    ) -> tuple[str, float]:
        """A signed token and when it expires (seconds since the epoch)."""

    def audiences(self) -> Sequence[str]:
        """The audiences of a token that asks for none."""


class TokenRequest:
    """Answers with the request and its token in status."""

    def __init__(self, writes: Writes, issuer: Issuer | None) -> None:
        self._writes = writes
        self._issuer = issuer

    def __call__(self, call: Call) -> Result | Awaitable[Result]:
        return self._issue(call)

    async def _issue(self, call: Call) -> Result:
        if self._issuer is None:
            raise ServiceUnavailable("Cannot issue a token: this server has no signing key")
        name, namespace = call.target.info.name, call.namespace
        value = bodies.read(call.request, "TokenRequest")
        request = bodies.of_kind(value, call.kind, self._writes.registry, REQUEST)
        cache = self._writes.crud.cache
        account = cache.get(call.kind, namespace, name)
        if account is None:
            raise not_found("", "serviceaccounts", name)
        spec = dict(request.get("spec") or {})
        spec["audiences"] = list(spec.get("audiences") or self._issuer.audiences())
        seconds = spec["expirationSeconds"] = spec.get("expirationSeconds") or _DEFAULT_S
        _check(name, seconds)
        bound = self._bound(cache, namespace, name, spec.get("boundObjectRef"))
        token, expires = self._issuer.issue(namespace, account, spec["audiences"], seconds, bound)
        meta = account["metadata"]
        answer = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": meta["uid"],
                "creationTimestamp": times.format(self._writes.context(call).now),
            },
            "spec": spec,
            "status": {"token": token, "expirationTimestamp": times.format(expires)},
        }
        return One(None, None, answer, 201)

    def _bound(self, cache: Cache, namespace: str, account: str, ref: Object | None) -> Object | None:
        if not ref:
            return None
        kind_name, version = ref.get("kind", ""), ref.get("apiVersion", "")
        if kind_name not in _BINDABLE or version != "v1":
            raise BadRequest(f"cannot bind token to object of type /{version}, Kind={kind_name}")
        kind: Kind = builtin("v1", kind_name)
        obj = cache.get(kind, namespace if kind.namespaced else "", ref.get("name", ""))
        if obj is None:
            raise not_found("", kind.plural, ref.get("name", ""))
        if ref.get("uid") and ref["uid"] != obj["metadata"]["uid"]:
            why = (
                f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
            text = f'Operation cannot be fulfilled on {kind_name} "{ref["name"]}": {why}'
            raise Conflict(text, {"name": ref["name"], "kind": kind_name})
        if kind_name == "Pod" and obj["spec"].get("serviceAccountName", "") != account:
            raise BadRequest(
                f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount name.'
            )
        return obj


def _check(name: str, seconds: int) -> None:
    why = ""
    if seconds < _MIN_S:
        why = "may not specify a duration less than 10 minutes"
    elif seconds > _MAX_S:
        why = "may not specify a duration larger than 2^32 seconds"
    if why:
        text = f"Invalid value: {seconds}: {why}"
        cause = {"reason": "FieldValueInvalid", "message": text, "field": "spec.expirationSeconds"}
        raise invalid("authentication.k8s.io", "TokenRequest", "", [cause])


