"""Service-account tokens that are made: what they say, what they are bound to, and the documents that tell their keys.

Source: KEP-1205 (bound tokens), KEP-4193 (node and credential id), the authentication.k8s.io/v1 TokenRequest type, and
"Service account issuer discovery" in the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from k3s.api import times
from k3s.api.errors import BadRequest, conflict, invalid, not_found
from k3s.api.kinds import Kind
from k3s.api.object import Object, encode, evolve, get
from k3s.apiserver import identity, legacytokens
from k3s.apiserver.rsa import b64
from k3s.apiserver.tokenkeys import Key, Signer
from k3s.apiserver.tokens import NODE, POD, SECRET, SERVICE_ACCOUNT, Settings
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

CONFIGURATION_PATH, JWKS_PATH = "/.well-known/openid-configuration", "/openid/v1/jwks"
_BOUND = {"pod": POD, "node": NODE, "secret": SECRET}
_DEFAULT_S = 3600
_SHORTEST_S = 600
_LONGEST_S = 1 << 32
# The lifetime that the ServiceAccount admission asks for. Such tokens are accepted for a year, for clients that read
# their file only once; from the first hour on they are due for renewal (`warnafter`).
PROJECTED_S = 3607
EXTENDED_S = 365 * 24 * 3600


class Issued(NamedTuple):
    """The answer to a TokenRequest, the id of its token for the audit log, and a warning (empty: none)."""

    answer: Object
    credential: str
    warning: str


class Issuer:
    """Signs tokens for service accounts; `keys` are all that are published, the signer's own unless they are named."""

    def __init__(
        self,
        reader: Reader,
        signer: Signer,
        settings: Settings,
        clock: Clock,
        entropy: Entropy,
        keys: Sequence[Key] = (),
    ) -> None:
        self._reader = reader
        self._signer = signer
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._keys = tuple(keys) or (signer.public,)

    def legacy(self, account: Object, secret: Object) -> str:
        """The token without an end that a Secret holds for a ServiceAccount."""
        return self._signed(legacytokens.claims_for(account, secret))

    def _signed(self, claims: Object) -> str:
        public = self._signer.public
        header = {"alg": public.algorithm, "kid": public.kid}
        message = f"{b64(encode(header))}.{b64(encode(claims))}"
        return f"{message}.{b64(self._signer.sign(message.encode()))}"

    def published(self, jwks_uri: str) -> Mapping[str, tuple[str, Object]]:
        """What others need to check the tokens, by path: content type and document; `jwks_uri` unless another is set.

        Nothing when the issuer is none that OpenID Connect allows: https, without query and fragment.
        """
        issuer = urlsplit(self._settings.issuer)
        if issuer.scheme != "https" or issuer.query or issuer.fragment:
            return {}
        document = discovery(self._settings.issuer, self._settings.jwks_uri or jwks_uri, self._keys)
        return {
            CONFIGURATION_PATH: ("application/json", document),
            JWKS_PATH: ("application/jwk-set+json", jwks(self._keys)),
        }

    def checked(self, namespace: str, name: str, body: Object) -> Object:
        """A TokenRequest with its defaults. Raises NotFound (no such account), Conflict (another one), Invalid."""
        meta, spec = body.get("metadata") or {}, body.get("spec") or {}
        for field, own in (("name", name), ("namespace", namespace)):
            if meta.get(field) and meta[field] != own:
                text = f"must match the service account {field} if specified"
                raise _wrong(f"metadata.{field}", encode(meta[field]).decode(), text, name)
        account = self._reader.get(SERVICE_ACCOUNT, namespace, name)
        if account is None:
            raise not_found("", "serviceaccounts", name)
        uid, asked = account["metadata"].get("uid", ""), meta.get("uid")
        if asked and asked != uid:
            why = f"the UID in the token request ({asked}) does not match the UID of the service account ({uid})"
            raise conflict("authentication.k8s.io", "TokenRequest", name, why)
        lifetime_s = spec.get("expirationSeconds")
        lifetime_s = _DEFAULT_S if lifetime_s is None else int(lifetime_s)
        if not _SHORTEST_S <= lifetime_s <= _LONGEST_S:
            why = "less than 10 minutes" if lifetime_s < _SHORTEST_S else "larger than 2^32 seconds"
            raise _wrong("spec.expirationSeconds", str(lifetime_s), f"may not specify a duration {why}")
        return evolve(body, ("spec",), {**spec, "expirationSeconds": lifetime_s})

    def request(self, namespace: str, name: str, body: Object) -> Issued:
        """Answers a TokenRequest that was `checked`; raises NotFound, BadRequest, Conflict."""
        account = self._reader.get(SERVICE_ACCOUNT, namespace, name)
        if account is None:
            raise not_found("", "serviceaccounts", name)
        spec = body["spec"]
        lifetime_s, longest_s, warning = spec["expirationSeconds"], self._settings.longest_s, ""
        audiences = spec.get("audiences") or list(self._settings.given)
        ref = spec.get("boundObjectRef")
        bound = self._bound(namespace, name, ref) if ref else {}
        if 0 < longest_s < lifetime_s:
            warning = f"requested expiration of {lifetime_s} seconds shortened to {longest_s} seconds"
            lifetime_s = longest_s
        now, credential = self._clock.now(), self._entropy.uid()
        claims = self._claims(account, audiences, lifetime_s, bound, int(now), credential)
        meta = {
            "uid": account["metadata"].get("uid", ""),
            "creationTimestamp": times.format(now),
            "name": name,
            "namespace": namespace,
        }
        answer = evolve(body, ("spec",), {**spec, "audiences": audiences, "expirationSeconds": lifetime_s})
        answer["spec"].setdefault("boundObjectRef", None)
        answer |= {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": meta}
        answer["status"] = {"token": self._signed(claims), "expirationTimestamp": times.format(int(now) + lifetime_s)}
        return Issued(answer, f"JTI={credential}", warning)

    def _claims(
        self,
        account: Object,
        audiences: Sequence[str],
        lifetime_s: int,
        bound: Mapping[str, Object],
        now: int,
        credential: str,
    ) -> Object:
        meta = account["metadata"]
        private: Object = {"namespace": meta["namespace"], "serviceaccount": _ref(account)}
        private |= {claim: _ref(obj) for claim, obj in sorted(bound.items())}
        own = set(audiences) <= set(self._settings.audiences)
        if self._settings.extend and lifetime_s == PROJECTED_S and "pod" in bound and own:
            private["warnafter"] = now + lifetime_s
            lifetime_s = EXTENDED_S
        return {
            "aud": list(audiences),
            "exp": now + lifetime_s,
            "iat": now,
            "iss": self._settings.issuer,
            "jti": credential,
            "kubernetes.io": private,
            "nbf": now,
            "sub": identity.service_account_name(meta["namespace"], meta["name"]),
        }

    def _bound(self, namespace: str, account: str, ref: Object) -> dict[str, Object]:
        group, _, version = str(ref.get("apiVersion", "")).rpartition("/")
        kind, name = str(ref.get("kind", "")), str(ref.get("name", ""))
        claim = kind.lower()
        if group or claim not in _BOUND or _BOUND[claim].kind != kind:
            raise BadRequest(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        obj = self._find(_BOUND[claim], "" if claim == "node" else namespace, name)
        bound = {claim: obj}
        if claim == "pod":
            if get(obj, "spec", "serviceAccountName") != account:
                why = "to pod running with different serviceaccount name."
                raise BadRequest(f'cannot bind token for serviceaccount "{account}" {why}')
            node_name = get(obj, "spec", "nodeName", default="")
            if node_name:
                bound["node"] = self._reader.get(NODE, "", node_name) or {"metadata": {"name": node_name}}
        if ref.get("uid") and ref["uid"] != obj["metadata"].get("uid"):
            raise conflict(
                group,
                kind,
                name,
                f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. "
                "The object might have been deleted and then recreated",
            )
        return bound

    def _find(self, kind: Kind, namespace: str, name: str) -> Object:
        obj = self._reader.get(kind, namespace, name)
        if obj is None:
            raise not_found(kind.group, kind.plural, name)
        return obj


def _wrong(field: str, value: str, why: str, name: str = "") -> Exception:
    cause = {"reason": "FieldValueInvalid", "message": f"Invalid value: {value}: {why}", "field": field}
    return invalid("authentication.k8s.io", "TokenRequest", name, [cause])


def _ref(obj: Object) -> Object:
    meta = obj["metadata"]
    return {"name": meta["name"], "uid": meta["uid"]} if meta.get("uid") else {"name": meta["name"]}


def discovery(issuer: str, jwks_uri: str, keys: Sequence[Key]) -> Object:
    """The document at /.well-known/openid-configuration."""
    return {
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": sorted({key.algorithm for key in keys}),
    }


def jwks(keys: Sequence[Key]) -> Object:
    """The document at /openid/v1/jwks."""
    return {"keys": [key.jwk() for key in keys]}
