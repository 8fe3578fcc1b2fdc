"""Tokens that live in Secrets of type kubernetes.io/service-account-token: without an end, good as the Secret is there.

Source: "Manually create a long-lived API token" in the Kubernetes documentation.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING

import msgspec

from k3s.api import object as objects
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver import identity
from k3s.apiserver.identity import User

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

ISSUER = "kubernetes/serviceaccount"
_SECRET = builtin("v1", "Secret")
_ACCOUNT = builtin("v1", "ServiceAccount")
_CLAIM = "kubernetes.io/serviceaccount/"
_INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"


class Claims(msgspec.Struct, frozen=True):
    """The claims of such a token."""

    sub: str
    namespace: str = msgspec.field(name=f"{_CLAIM}namespace")
    account: str = msgspec.field(name=f"{_CLAIM}service-account.name")
    account_uid: str = msgspec.field(name=f"{_CLAIM}service-account.uid")
    secret: str = msgspec.field(name=f"{_CLAIM}secret.name")


def claims_for(account: Object, secret: Object) -> Object:
    """What the token of a Secret says."""
    namespace, name = objects.namespace(account), objects.name(account)
    return {
        "iss": ISSUER,
        f"{_CLAIM}namespace": namespace,
        f"{_CLAIM}secret.name": objects.name(secret),
        f"{_CLAIM}service-account.name": name,
        f"{_CLAIM}service-account.uid": objects.uid(account),
        "sub": identity.service_account_name(namespace, name),
    }


def user_of(claims: Claims) -> User | None:
    """The user that claims name; None when they contradict each other."""
    name = identity.service_account_name(claims.namespace, claims.account)
    groups = identity.service_account_groups(claims.namespace)
    return User(name, groups, claims.account_uid) if claims.sub == name else None


def problem(reader: Reader, claims: Claims, token: str) -> str:
    """Why a token is not good any more; empty when it is."""
    account = reader.get(_ACCOUNT, claims.namespace, claims.account)
    if account is None or objects.uid(account) != claims.account_uid or objects.is_deleting(account):
        return f"service account {claims.account} is gone"
    secret = reader.get(_SECRET, claims.namespace, claims.secret)
    if secret is None or objects.is_deleting(secret):
        return f"secret {claims.secret} is gone"
    try:
        kept = base64.b64decode((secret.get("data") or {}).get("token") or "")
    except binascii.Error:
        kept = b""
    if not hmac.compare_digest(kept, token.encode("utf-8", "replace")):
        return f"secret {claims.secret} holds another token"
    if _INVALID_SINCE in objects.labels(secret):
        return f"the token of secret {claims.secret} is marked as invalid"
    return ""
