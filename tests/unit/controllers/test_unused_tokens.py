"""Controllers that remove tokens: those without an end that nobody uses, and bootstrap tokens that have expired."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.unit.controllers.worlds import flat, world_of

from k3s.api import times
from k3s.api.object import Object
from k3s.controllers import bootstraptokens, legacytokens
from k3s.controllers.actions import Decision, Delete, Patch

(CLEAN,) = legacytokens.specs()
DAY_S, YEAR_S = 86400, 365 * 86400
BEGAN = times.parse("2024-01-01T00:00:00Z")
KEY = "kube-system/kube-apiserver-legacy-service-account-token-tracking"


def tracking(since: str = "2024-01-01") -> Object:
    meta = {"namespace": "kube-system", "name": KEY.partition("/")[2], "resourceVersion": "1"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"since": since}}


def account(*secrets: str) -> Object:
    meta = {"name": "s", "namespace": "a", "uid": "u"}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta, "secrets": [{"name": n} for n in secrets]}


def secret(made: str = "2023-06-01T00:00:00Z", **labels: str) -> Object:
    meta = {
        "name": "t",
        "namespace": "a",
        "uid": "s-uid",
        "resourceVersion": "7",
        "creationTimestamp": made,
        "annotations": {"kubernetes.io/service-account.name": "s", "kubernetes.io/service-account.uid": "u"},
        "labels": {f"kubernetes.io/legacy-token-{name.replace('_', '-')}": text for name, text in labels.items()},
    }
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "kubernetes.io/service-account-token"}


def clean(at: float, *found: Object) -> Decision:
    return CLEAN.decide("a/t", world_of(*found), at)


def test_an_unused_token_is_marked_and_then_removed() -> None:
    """A year after uses are known it is marked, a year later it goes, unless it was used or changed meanwhile."""
    waits = clean(BEGAN, tracking(), account("t"), secret())
    assert not flat(waits) and waits.requeue_after_s == DAY_S + YEAR_S + 1
    at = BEGAN + waits.requeue_after_s
    (mark,) = flat(clean(at, tracking(), account("t"), secret()))
    assert isinstance(mark, Patch)
    assert mark.patch == {
        "metadata": {"uid": "s-uid", "labels": {"kubernetes.io/legacy-token-invalid-since": times.format(at)[:10]}}
    }
    marked = secret(invalid_since=times.format(at)[:10])
    waits = clean(at, tracking(), account("t"), marked)
    assert not flat(waits) and waits.requeue_after_s is not None
    (gone,) = flat(clean(at + waits.requeue_after_s, tracking(), account("t"), marked))
    assert isinstance(gone, Delete) and (gone.uid, gone.revision) == ("s-uid", 7)


def _pod(**spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "p"}, "spec": spec}


@pytest.mark.parametrize(
    ("found", "wait_s"),
    [
        ([account("t"), secret()], None),  # nobody knows since when
        ([tracking(), account(), secret()], None),  # somebody made it
        ([tracking(), secret()], None),
        ([tracking(), {**account("t"), "metadata": {**account()["metadata"], "uid": "x"}}, secret()], None),
        ([tracking(), account("t"), {**secret(), "type": "Opaque"}], None),
        ([tracking(), account("t"), secret(last_used="yesterday")], None),
        ([tracking(), account("t"), secret(last_used="2025-12-31")], YEAR_S + 1),
        ([tracking(), account("t"), secret("2025-12-31T12:00:00Z")], YEAR_S - DAY_S / 2 + 1),
        ([tracking(), account("t"), secret(), _pod(volumes=[{"secret": {"secretName": "t"}}])], DAY_S),
        ([tracking(), account("t"), secret(), _pod(containers=[{"envFrom": [{"secretRef": {"name": "t"}}]}])], DAY_S),
    ],
)
def test_tokens_that_stay(found: list[Object], wait_s: float | None) -> None:
    """Used lately, new, mounted, of somebody's own making, or with marks that say nothing."""
    decision = clean(times.parse("2026-01-01T00:00:00Z"), *found)
    assert not flat(decision) and decision.requeue_after_s == wait_s


def test_what_makes_it_look_again() -> None:
    """An account that names a Secret, and the day from which uses are known."""
    accounts, maps = CLEAN.watches
    world = world_of(secret())
    assert list(accounts.keys(None, account("t", "x"), world)) == ["a/t", "a/x"]
    assert list(maps.keys(None, tracking(), world)) == ["a/t"]
    other = {**tracking(), "metadata": {"name": "x", "namespace": "kube-system"}}
    assert not list(maps.keys(None, other, world))


def test_bootstrap_tokens_expire() -> None:
    """At their time, or at once when nobody can read it; without one they stay, and so does what is no token."""
    (spec,) = bootstraptokens.SPECS

    def decided(expiration: str | None, **more: Any) -> Decision:
        data = {} if expiration is None else {"expiration": base64.b64encode(expiration.encode()).decode()}
        meta = {"name": "bootstrap-token-abcdef", "namespace": "kube-system", "uid": "u"}
        obj = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": meta,
            "data": data,
            "type": bootstraptokens.TYPE,
            **more,
        }
        return spec.decide("kube-system/bootstrap-token-abcdef", world_of(obj), BEGAN)

    assert decided("2024-01-01T01:00:00Z").requeue_after_s == 3600
    for late in ("2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "soon"):
        (gone,) = flat(decided(late))
        assert isinstance(gone, Delete) and gone.uid == "u", late
    for stays in (decided(None), decided("", data=None), decided("2020-01-01T00:00:00Z", type="Opaque")):
        assert stays.requeue_after_s is None and not flat(stays)
