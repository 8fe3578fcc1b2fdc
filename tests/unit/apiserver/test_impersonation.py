"""Acting as somebody else: which rights each mode asks for, in upstream's order, and what is refused."""

from __future__ import annotations

import pytest

from k3s.api.errors import BadRequest, Forbidden
from k3s.apiserver import identity
from k3s.apiserver.authz import Attributes, Decision
from k3s.apiserver.identity import NODE_NAME, User
from k3s.apiserver.impersonation import Acting, Impersonation, wanted_user

AGENT = User("system:serviceaccount:n:agent", ("g",), "", {NODE_NAME: ("n1",), "a": ("b",)})
ALICE = identity.authenticated("alice")


class Rights:
    """Allows what is listed as `verb group/resource/subresource namespace/name`; `asked` are all questions."""

    def __init__(self, *rights: str) -> None:
        self.rights = rights
        self.asked: list[str] = []
        self.senders: list[User] = []
        self.impersonation = Impersonation(self._authorize)

    def _authorize(self, asked: Attributes) -> Decision:
        what = f"{asked.verb} {asked.group}/{asked.resource}/{asked.subresource} {asked.namespace}/{asked.name}"
        self.asked.append(what)
        self.senders.append(asked.user)
        return Decision(what in self.rights or "*" in self.rights)

    def acting(self, sender: User, verb: str = "list", **headers: str) -> Acting | None:
        """Whom a request for pods acts as."""
        named = {f"impersonate-{name.replace('_', '-')}": value for name, value in headers.items()}
        asked = Attributes(sender, verb, "", "v1", "pods", namespace="default")
        return self.impersonation.acting(named, asked)


def _on(mode: str, verb: str = "list") -> str:
    return f"impersonate-on:{mode}:{verb} /pods/ default/"


_G = "authentication.k8s.io"


def test_a_user_for_some_requests() -> None:
    """Two rights: to be the user, and to do this as such a user; each part of the identity is asked for."""
    parts = (
        f"impersonate:user-info {_G}/users/ /carol",
        f"impersonate:user-info {_G}/uids/ /u-1",
        f"impersonate:user-info {_G}/groups/ /g1",
        f"impersonate:user-info {_G}/groups/ /g2",
        f"impersonate:user-info {_G}/userextras/acme.io/scopes /s",
    )
    rights = Rights(_on("user-info"), *parts)
    headers = {"user": "carol", "group": "g1\ng2", "uid": "u-1", "extra_acme.io%2fscopes": "s"}
    found = rights.acting(ALICE, **headers)
    assert found == Acting(User("carol", ("g1", "g2", "system:authenticated"), "u-1"), "impersonate:user-info")
    assert found.user.extra == {"acme.io/scopes": ("s",)}
    assert rights.asked == [_on("user-info"), *parts]
    with pytest.raises(Forbidden) as caught:
        rights.acting(ALICE, "delete", **headers)
    assert caught.value.message == (
        'pods is forbidden: User "alice" cannot impersonate-on:user-info:delete resource "pods" in API group "" '
        'in the namespace "default"'
    )
    for right in (_on("user-info"), *parts):
        with pytest.raises(Forbidden):
            Rights(*({_on("user-info"), *parts} - {right})).acting(ALICE, **headers)


def test_the_right_of_old_is_for_every_request() -> None:
    """It is asked for last, and from then on first, so that it costs what it did."""
    rights = Rights("impersonate /users/ /carol", "impersonate /groups/ /system:masters")
    assert rights.acting(ALICE, user="carol") == Acting(identity.authenticated("carol"), "")
    assert rights.asked == [_on("user-info"), "impersonate /users/ /carol"]
    rights.asked.clear()
    found = rights.acting(ALICE, "delete", user="carol", group="system:masters")
    assert found is not None and found.user.groups == ("system:masters", "system:authenticated")
    assert rights.asked == ["impersonate /users/ /carol", "impersonate /groups/ /system:masters"]


def test_service_accounts_and_nodes_have_their_own_groups() -> None:
    """Only their name may be asked for in the constrained modes; the groups follow from it."""
    account = f"impersonate:serviceaccount {_G}/serviceaccounts/ n/s"
    found = Rights(_on("serviceaccount"), account).acting(ALICE, user="system:serviceaccount:n:s")
    assert found is not None and found.user.groups == identity.service_account_groups("n")
    node = f"impersonate:arbitrary-node {_G}/nodes/ /n2"
    found = Rights(_on("arbitrary-node"), node).acting(ALICE, user="system:node:n2")
    assert found == Acting(identity.authenticated("system:node:n2", "system:nodes"), "impersonate:arbitrary-node")
    for user in ("system:serviceaccount:n:s", "system:node:n2"):
        rights = Rights()
        with pytest.raises(Forbidden):
            rights.acting(ALICE, user=user, group="g")
        assert all(asked.startswith("impersonate /") for asked in rights.asked)
    old = Rights("impersonate /users/ /system:node:n2").acting(ALICE, user="system:node:n2")
    assert old == Acting(identity.authenticated("system:node:n2"), "")  # in no group of nodes


def test_an_agent_acts_as_its_own_node_only() -> None:
    """One right serves the agents of all nodes: where they run says which node it is."""
    rights = Rights(_on("associated-node"), f"impersonate:associated-node {_G}/nodes/ /*")
    found = rights.acting(AGENT, user="system:node:n1")
    assert found == Acting(identity.authenticated("system:node:n1", "system:nodes"), "impersonate:associated-node")
    assert rights.senders[0].extra == {"authentication.kubernetes.io/associated-node-keys": ("a", NODE_NAME)}
    for sender, user in ((AGENT, "system:node:n2"), (ALICE, "system:node:n1")):
        with pytest.raises(Forbidden):
            rights.acting(sender, user=user)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"group": "system:masters"}, "impersonating the system:masters group is not allowed"),
        ({"group": "a\n"}, "impersonating the empty string group is not allowed"),
        ({"extra_scopes": "a"}, 'invalid key in extra is not allowed: extra.key: Invalid value: "scopes": '),
        ({"extra_acme.io/a": ""}, "impersonating the empty string value in extra is not allowed"),
    ],
)
def test_what_constrained_modes_never_give(headers: dict[str, str], why: str) -> None:
    """Who may be anybody in the constrained modes becomes no master, and makes up no malformed parts."""
    rights = Rights(
        _on("user-info"),
        *(
            f"impersonate:user-info {_G}/{part} /{name}"
            for part in ("users/", "groups/")
            for name in ("carol", "a", "")
        ),
    )
    with pytest.raises(Forbidden) as caught:
        rights.acting(ALICE, user="carol", **headers)
    assert why in caught.value.message


def test_many_parts_are_asked_for_together_first() -> None:
    """The right to all groups, or all values of extra, saves the single questions; without it each is asked for."""
    groups = "\n".join("abcd")
    rights = Rights(
        _on("user-info"), *(f"impersonate:user-info {_G}/{what}" for what in ("users/ /carol", "groups/ /*"))
    )
    assert rights.acting(ALICE, user="carol", group=groups) is not None
    assert len(rights.asked) == 3
    single = Rights(*rights.rights[:2], *(f"impersonate:user-info {_G}/groups/ /{group}" for group in "abcd"))
    assert single.acting(ALICE, user="carol", group=groups) is not None
    assert len(single.asked) == 7


def test_who_is_wanted() -> None:
    """Groups alone are a bad request; the groups of nobody; without headers nobody is meant."""
    with pytest.raises(BadRequest) as caught:
        wanted_user({"impersonate-group": "g", "impersonate-extra-a%20b": "1\n2"})
    assert caught.value.message == (
        'requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, '
        'Extra:map[string][]string{"a b":[]string{"1", "2"}}} without impersonating a user name'
    )
    everything = Rights("*")
    nobody = everything.acting(ALICE, user="system:anonymous")
    assert nobody is not None and nobody.user.groups == ("system:unauthenticated",)
    assert everything.acting(ALICE) is None
