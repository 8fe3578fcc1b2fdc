"""Reviews: answers that are computed, as upstream recorded them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes.reader import FakeReader

from k3s.api.errors import ApiError
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver import rbac_bootstrap
from k3s.apiserver.authn import Authenticator, Credentials
from k3s.apiserver.authz import Authorizer
from k3s.apiserver.identity import User, authenticated
from k3s.apiserver.nodeauthz import NodeAuthorizer
from k3s.apiserver.rbac import Rbac
from k3s.apiserver.virtual import Reviews
from k3s.base.clock import SystemClock

AUTHORIZATION, AUTHENTICATION = "authorization.k8s.io/v1", "authentication.k8s.io/v1"
ADMIN = authenticated("admin", "system:masters")
ALICE = authenticated("alice")
ASKED = {"key": "k"}


@pytest.fixture
def reviews() -> Reviews:
    reader = FakeReader(obj for _, obj in rbac_bootstrap.objects())
    authorizer = Authorizer(Rbac(reader), NodeAuthorizer(reader, rbac_bootstrap.node_rules()))
    static = {"t1": User("bob", ("devs", "system:authenticated"), "bob-uid")}
    authenticator = Authenticator(Credentials(static=static), reader, SystemClock())
    return Reviews(authenticator, authorizer, SystemClock())


def access(kind: str, reviews: Reviews, spec: Object, user: User = ADMIN, namespace: str = "") -> Object:
    return reviews.create(builtin(AUTHORIZATION, kind), {"spec": spec}, user, namespace)


@pytest.mark.parametrize(
    ("user", "asked", "status"),
    [
        (ADMIN, {"resourceAttributes": {"verb": "get", "resource": "pods"}}, {"allowed": True}),
        (ALICE, {"resourceAttributes": {"verb": "get", "resource": "pods"}}, {"allowed": False}),
        (
            ALICE,
            {"nonResourceAttributes": {"path": "/api", "verb": "get"}},
            {
                "allowed": True,
                "reason": 'RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" '
                'to Group "system:authenticated"',
            },
        ),
        (ALICE, {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}, {"allowed": False}),
    ],
)
def test_self_access(reviews: Reviews, user: User, asked: Object, status: Object) -> None:
    """May I?"""
    found = access("SelfSubjectAccessReview", reviews, asked, user)
    assert found == {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": AUTHORIZATION,
        "metadata": {},
        "spec": asked,
        "status": status,
    }


def test_access_of_others(reviews: Reviews) -> None:
    """May she, or a node?"""
    asked = {"verb": "get", "resource": "secrets", "namespace": "x", "name": "s"}
    node = {"user": "system:node:n", "groups": ["system:nodes"], "resourceAttributes": asked}
    assert access("SubjectAccessReview", reviews, node)["status"] == {
        "allowed": False,
        "reason": "no relationship found between node 'n' and this object",
    }
    masters = {"user": "x", "groups": ["system:masters"], "resourceAttributes": asked}
    assert access("SubjectAccessReview", reviews, masters)["status"] == {"allowed": True}
    local = access("LocalSubjectAccessReview", reviews, {"user": "x", "resourceAttributes": asked}, namespace="x")
    assert local["metadata"] == {"namespace": "x"}


@pytest.mark.parametrize(
    ("kind", "spec", "text"),
    [
        (
            "SubjectAccessReview",
            {"resourceAttributes": {}},
            'spec.user: Invalid value: "": at least one of user or group must be specified',
        ),
        (
            "SubjectAccessReview",
            {"user": "x"},
            "spec.resourceAttributes: Invalid value: null: "
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        (
            "LocalSubjectAccessReview",
            {"user": "x", "resourceAttributes": {"namespace": "other"}},
            'spec.resourceAttributes.namespace: Invalid value: "other": must match metadata.namespace',
        ),
        (
            "SubjectAccessReview",
            {
                "user": "x",
                "resourceAttributes": {"fieldSelector": {"rawSelector": "a=b", "requirements": [{"key": "k"}]}},
            },
            'spec.resourceAttributes.fieldSelector.rawSelector: Invalid value: "a=b": '
            "may not specified at the same time as requirements",
        ),
        (
            "SelfSubjectAccessReview",
            {"resourceAttributes": {"labelSelector": {}}},
            "spec.resourceAttributes.labelSelector.requirements: Required value: "
            "when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required",
        ),
        (
            "SelfSubjectAccessReview",
            {"resourceAttributes": {"fieldSelector": {"requirements": [{"operator": "In"}]}}},
            "[spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must be specified, "
            "spec.resourceAttributes.fieldSelector.requirements[0].values: Required value: "
            "must be specified when `operator` is 'In' or 'NotIn']",
        ),
    ],
)
def test_wrong_reviews(reviews: Reviews, kind: str, spec: Object, text: str) -> None:
    """What a review must say, in upstream's words."""
    with pytest.raises(ApiError) as caught:
        access(kind, reviews, spec, namespace="x")
    assert caught.value.message == f'.authorization.k8s.io "" is invalid: {text}'
    assert caught.value.code == 422


def test_a_review_has_no_name(reviews: Reviews) -> None:
    """Metadata is refused, but for the namespace of a review in one."""
    asked = {"user": "x", "resourceAttributes": {"namespace": "x"}}
    for kind, text in (("SubjectAccessReview", "must be empty"), ("LocalSubjectAccessReview", "except for namespace")):
        with pytest.raises(ApiError, match=text):
            reviews.create(builtin(AUTHORIZATION, kind), {"metadata": {"name": "n"}, "spec": asked}, ADMIN, "x")
    elsewhere = {"metadata": {"namespace": "y"}, "spec": asked}
    with pytest.raises(ApiError, match="does not match the namespace sent on the request"):
        reviews.create(builtin(AUTHORIZATION, "LocalSubjectAccessReview"), elsewhere, ADMIN, "x")


def test_self_rules(reviews: Reviews) -> None:
    """The rules of oneself in a namespace; without one the request is bad."""
    found = access("SelfSubjectRulesReview", reviews, {"namespace": "x"}, ALICE)
    assert found["spec"] == {}
    assert {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]} in found[
        "status"
    ]["resourceRules"]
    assert found["status"]["incomplete"] is False
    with pytest.raises(ApiError, match="no namespace on request"):
        access("SelfSubjectRulesReview", reviews, {}, ALICE)


def test_who_am_i(reviews: Reviews) -> None:
    """A review of oneself shows name, groups, uid and extra."""
    user = User("carol", ("g1", "system:authenticated"), "u-1", {"scopes": ("s",)})
    found: dict[str, Any] = reviews.create(builtin(AUTHENTICATION, "SelfSubjectReview"), {}, user)
    assert found["status"]["userInfo"] == {
        "username": "carol",
        "uid": "u-1",
        "groups": ["g1", "system:authenticated"],
        "extra": {"scopes": ["s"]},
    }
    assert list(found["metadata"]) == ["creationTimestamp"]


def test_token_review(reviews: Reviews) -> None:
    """A good token names its user, a bad one an error."""
    kind = builtin(AUTHENTICATION, "TokenReview")
    good = reviews.create(kind, {"spec": {"token": "t1"}}, ADMIN)
    assert good["status"]["authenticated"] is True
    assert good["status"]["user"]["username"] == "bob"
    bad = reviews.create(kind, {"spec": {"token": "nope"}}, ADMIN)
    assert "authenticated" not in bad["status"]
    assert bad["status"]["error"]
