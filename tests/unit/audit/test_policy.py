"""Which rule of an audit policy decides about a request, and what a policy may not say."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.apiserver.audit.policy import PolicyError, parse
from k3s.apiserver.identity import User
from k3s.apiserver.request import parse as understood

ALICE = User("alice", ("developers",))


def policy(*rules: dict[str, Any], **more: Any) -> Any:
    return parse({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more})


POD, LOG = "/api/v1/namespaces/a/pods/p", "/api/v1/namespaces/a/pods/p/log"
PODS = {"resources": [{"resources": ["pods"]}]}


@pytest.mark.parametrize(
    ("rule", "path", "matches"),
    [
        ({}, POD, True),
        ({"users": ["alice"]}, POD, True),
        ({"users": ["bob"]}, POD, False),
        ({"userGroups": ["developers", "x"]}, POD, True),
        ({"userGroups": ["x"]}, POD, False),
        ({"verbs": ["get"]}, POD, True),
        ({"verbs": ["list"]}, POD, False),
        ({"namespaces": ["a"]}, POD, True),
        ({"namespaces": ["b"]}, POD, False),
        ({"namespaces": [""]}, "/api/v1/nodes/n", True),
        ({"namespaces": ["a"]}, "/healthz", False),
        (PODS, POD, True),
        (PODS, LOG, False),
        ({"resources": [{"resources": ["pods/log"]}]}, LOG, True),
        ({"resources": [{"resources": ["pods/*"]}]}, LOG, True),
        ({"resources": [{"resources": ["pods/*"]}]}, POD, True),
        ({"resources": [{"resources": ["*/log"]}]}, LOG, True),
        ({"resources": [{"resources": ["*"]}]}, LOG, True),
        ({"resources": [{"group": "apps"}]}, POD, False),
        ({"resources": [{"group": "apps"}]}, "/apis/apps/v1/deployments", True),
        ({"resources": [{"resources": ["pods"], "resourceNames": ["p"]}]}, POD, True),
        ({"resources": [{"resources": ["pods"], "resourceNames": ["q"]}]}, POD, False),
        ({"nonResourceURLs": ["/healthz"]}, "/healthz", True),
        ({"nonResourceURLs": ["/healthz"]}, "/healthz/etcd", False),
        ({"nonResourceURLs": ["/health*"]}, "/healthz/etcd", True),
        ({"nonResourceURLs": ["*"]}, "/metrics", True),
        ({"nonResourceURLs": ["*"]}, POD, False),
    ],
)
def test_a_rule_matches(rule: dict[str, Any], path: str, matches: bool) -> None:
    """By user, group, verb, namespace, resource and name, or URL."""
    made = policy({"level": "Metadata", **rule})
    assert (made.rule(ALICE, understood("GET", path).info).level == "Metadata") is matches


def test_the_first_rule_decides_and_stages_add_up() -> None:
    """No rule: nothing. What the policy leaves out, every rule leaves out."""
    made = policy(
        {"level": "None", "users": ["alice"], "verbs": ["get"]},
        {"level": "Request", "omitStages": ["Panic"], "omitManagedFields": False},
        omitStages=["RequestReceived"],
        omitManagedFields=True,
    )
    assert made.rule(ALICE, understood("GET", POD).info).level == "None"
    rule = made.rule(ALICE, understood("DELETE", POD).info)
    assert (rule.level, rule.omitted, rule.omits_managed_fields) == ("Request", {"Panic", "RequestReceived"}, False)
    assert made.rules[0].omits_managed_fields


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({}, "rules[0].level: None is none of None, Metadata, Request, RequestResponse"),
        ({"level": "All"}, 'rules[0].level: "All" is none of'),
        ({"level": "None", "user": ["a"]}, "rules[0].user: there is no such field"),
        ({"level": "None", "users": "a"}, 'rules[0].users: "a" is no list'),
        ({"level": "None", "verbs": [1]}, "rules[0].verbs: 1 is no text"),
        ({"level": "None", "omitStages": ["End"]}, 'rules[0].omitStages: "End" is none of RequestReceived'),
        ({"level": "None", "nonResourceURLs": ["a"]}, "must begin with a '/' character"),
        ({"level": "None", "nonResourceURLs": ["/*/a"]}, "wildcards '*' must be the final character"),
        (
            {"level": "None", "nonResourceURLs": ["/a"], **PODS},
            "cannot apply to both regular resources and non-resource",
        ),
        ({"level": "None", "resources": [{"resourceNames": ["a"]}]}, "rules[0].resources[0].resourceNames: using"),
        ({"level": "None", "resources": [{"group": "core"}]}, "leave it out for the core group"),
    ],
)
def test_a_wrong_policy_is_named(rule: dict[str, Any], text: str) -> None:
    """The text names the field."""
    with pytest.raises(PolicyError) as error:
        policy(rule)
    assert text in str(error.value)


def test_what_is_no_policy() -> None:
    """Another kind, or no rules."""
    for document, text in (({"kind": "Policy"}, "it is no Policy"), ([], "it is no Policy")):
        with pytest.raises(PolicyError, match=text):
            parse(document)
    with pytest.raises(PolicyError, match="at least one rule"):
        policy()
