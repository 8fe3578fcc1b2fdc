"""Secrets that hold a token: filled for their account, removed without it, and what their tokens are good for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from tests.fakes.reader import FakeReader
from tests.unit.controllers.worlds import flat, world_of

from k3s.api.object import Object, evolve
from k3s.apiserver.tokenissuer import Issuer
from k3s.apiserver.tokenkeys import Signer
from k3s.apiserver.tokens import BadToken, Verifier, settings
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy
from k3s.cluster.pki import new_rsa_key
from k3s.controllers import serviceaccount_token
from k3s.controllers.actions import Delete, Update
from k3s.controllers.known import SECRET, SERVICE_ACCOUNT

ACCOUNT: Object = {
    "apiVersion": "v1",
    "kind": "ServiceAccount",
    "metadata": {"name": "build", "namespace": "d", "uid": "u1"},
}


def _secret(**more: Any) -> Object:
    notes = {"kubernetes.io/service-account.name": "build", **more}
    meta = {"name": "t", "namespace": "d", "uid": "s1", "resourceVersion": "5", "annotations": notes}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": serviceaccount_token.TYPE}


def test_a_secret_is_filled_and_its_token_is_good() -> None:
    """Token, authority and namespace; good for the account until Secret, account or token change."""
    signer, own = Signer(new_rsa_key()), settings("cluster.local")
    reader, clock = FakeReader([ACCOUNT]), SystemClock()
    issuer = Issuer(reader, signer, own, clock, SeededEntropy(1))
    (spec,) = serviceaccount_token.specs(issuer.legacy, "the CA")
    (update,) = flat(spec.decide("d/t", world_of(ACCOUNT, _secret()), 0))
    assert isinstance(update, Update)
    filled = update.obj
    data = {name: base64.b64decode(text).decode() for name, text in filled["data"].items()}
    assert (data["ca.crt"], data["namespace"]) == ("the CA", "d")
    assert filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == "u1"
    assert not flat(spec.decide("d/t", world_of(ACCOUNT, filled), 0))
    (again,) = flat(spec.decide("d/t", world_of(ACCOUNT, evolve(filled, ("data", "ca.crt"), "b2xk")), 0))
    assert isinstance(again, Update) and again.obj == filled
    verifier, token = Verifier(reader, [signer.public], own, clock), data["token"]
    with pytest.raises(BadToken, match="secret t is gone"):
        verifier.verify(token)
    reader.put(filled)
    session = verifier.verify(token)
    assert session.user.name == "system:serviceaccount:d:build" and session.user.uid == "u1"
    with pytest.raises(BadToken, match="is for the API server"):
        verifier.verify(token, ["vault"])
    bad: dict[str, Callable[[], Any]] = {
        "holds another token": lambda: reader.put({**filled, "data": {"token": "b3RoZXI="}}),
        "token in secret d/t has been marked invalid": lambda: reader.put(
            evolve(filled, ("metadata", "labels"), {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"})
        ),
        "secret t is gone": lambda: reader.drop(SECRET, "d", "t"),
        "service account build is gone": lambda: reader.drop(SERVICE_ACCOUNT, "d", "build"),
    }
    for why, change in bad.items():
        change()
        with pytest.raises(BadToken, match=why):
            verifier.verify(token)


def test_a_secret_without_its_account_goes() -> None:
    """Also when the account is another one of the same name; the server is asked before, as caches may lag."""
    (spec,) = serviceaccount_token.specs(lambda account, secret: "token", "")
    (gone,) = flat(spec.decide("d/t", world_of(_secret()), 0))
    assert isinstance(gone, Delete) and gone.uid == "s1"
    other = _secret(**{"kubernetes.io/service-account.uid": "u0"})
    assert isinstance(flat(spec.decide("d/t", world_of(ACCOUNT, other), 0))[0], Delete)
    assert isinstance(flat(spec.decide("d/t", world_of(_secret(), observed=ACCOUNT), 0))[0], Update)
    plain = {**_secret(), "type": "Opaque"}
    assert not flat(spec.decide("d/t", world_of(plain), 0))
    (watch,) = spec.watches
    assert list(watch.keys(None, ACCOUNT, world_of(_secret()))) == ["d/t"]
