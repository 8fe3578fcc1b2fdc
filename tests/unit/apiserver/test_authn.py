"""Who sent a request, by tokens of every kind and passwords; and credentials that must not pass."""

from __future__ import annotations

import base64
import json

import pytest
from tests.fakes.clock import MovedClock
from tests.fakes.reader import FakeReader

from k3s.api.errors import BadRequest, Conflict, Invalid, NotFound, Unauthorized
from k3s.api.object import Object
from k3s.apiserver import identity, tokenissuer, tokens
from k3s.apiserver.authn import Authenticator, Credentials
from k3s.apiserver.identity import User
from k3s.apiserver.rsa import BadKey, PublicKey, b64
from k3s.apiserver.tokenkeys import Signer, keys
from k3s.base.entropy import SeededEntropy

ISSUER = "https://kubernetes.default.svc.cluster.local"


def key_pem() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


PEM = key_pem()
ACCOUNT = {
    "apiVersion": "v1",
    "kind": "ServiceAccount",
    "metadata": {"name": "s", "namespace": "a", "uid": "account-uid"},
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "a", "uid": "pod-uid"},
    "spec": {"serviceAccountName": "s", "nodeName": "n1"},
}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "node-uid"}}


class World:
    """An issuer and an authenticator over the same objects."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self.reader = FakeReader([ACCOUNT, POD, NODE])
        self.clock = MovedClock(1_700_000_000.0)
        self.signer = Signer(PEM)
        self.settings = tokens.settings("cluster.local")
        self.issuer = tokenissuer.Issuer(self.reader, self.signer, self.settings, self.clock, SeededEntropy(1))
        verifier = tokens.Verifier(self.reader, [self.signer.public], self.settings, self.clock)
        self.authenticator = Authenticator(credentials or Credentials(), self.reader, self.clock, verifier)

    def token(self, **spec: object) -> str:
        """A token for the service account, by TokenRequest."""
        return str(self.answer(**spec)["status"]["token"])

    def answer(self, **spec: object) -> Object:
        """The answer to a TokenRequest for the service account."""
        return self.issuer.request("a", "s", self.issuer.checked("a", "s", {"spec": spec})).answer

    def user(self, token: str) -> User | None:
        return self.authenticator.authenticate({"authorization": f"Bearer {token}"}, None)

    def refused(self, token: str) -> bool:
        try:
            self.user(token)
        except Unauthorized:
            return True
        return False


BOUND = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "pod-uid"}


def test_token_tells_account_pod_and_node() -> None:
    """A bound token names account, pod and node, as upstream's claims do."""
    world = World()
    token = world.token(boundObjectRef=BOUND)
    user = world.user(token)
    assert user is not None
    assert user.name == "system:serviceaccount:a:s"
    assert user.uid == "account-uid"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated")
    assert user.extra[identity.POD_NAME] == ("p",)
    assert user.extra[identity.NODE_UID] == ("node-uid",)
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["iss"] == ISSUER
    assert claims["aud"] == [ISSUER]
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["kubernetes.io"] == {
        "namespace": "a",
        "node": {"name": "n1", "uid": "node-uid"},
        "pod": {"name": "p", "uid": "pod-uid"},
        "serviceaccount": {"name": "s", "uid": "account-uid"},
    }


def test_token_dies_with_what_it_is_bound_to() -> None:
    """A token is refused at once when its pod or account is gone or was made anew, cached or not."""
    world = World()
    token = world.token(boundObjectRef=BOUND)
    assert world.user(token)
    world.reader.put({**POD, "metadata": {**POD["metadata"], "uid": "another"}})
    assert world.refused(token)
    world.reader.put(POD)
    assert world.user(token)
    world.reader.drop(tokens.POD, "a", "p")
    assert world.refused(token)
    loose = world.token()
    assert world.user(loose)
    world.reader.drop(tokens.SERVICE_ACCOUNT, "a", "s")
    assert world.refused(loose)


@pytest.mark.parametrize("kind", ["Node", "Secret"])
def test_token_of_another_object(kind: str) -> None:
    """Bound to a node or a secret, it dies with that, and with its exchange; a minute after its deletion time, too."""
    world, space = World(), {} if kind == "Node" else {"namespace": "a"}
    found = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "b", "uid": "b-uid", **space}}
    world.reader.put(found)
    token = world.token(boundObjectRef={"kind": kind, "apiVersion": "v1", "name": "b"})
    user = world.user(token)
    assert user is not None
    assert user.extra.get(identity.NODE_UID) == (("b-uid",) if kind == "Node" else None)
    assert parts(token)[1]["kubernetes.io"][kind.lower()] == {"name": "b", "uid": "b-uid"}
    meta = found["metadata"]
    world.reader.put({**found, "metadata": {**meta, "deletionTimestamp": "2023-11-14T22:13:20Z"}})
    assert world.user(token)
    world.clock.at += 61
    assert world.refused(token)
    world.reader.put({**found, "metadata": {**meta, "uid": "x"}})
    assert world.refused(token)
    world.reader.drop(tokens.NODE if kind == "Node" else tokens.SECRET, space.get("namespace", ""), "b")
    assert world.refused(token)


def test_token_of_a_deleted_pod_lives_a_minute() -> None:
    """A pod that is being deleted keeps its token for a minute after its time, to finish what it does."""
    world = World()
    token = world.token(boundObjectRef=BOUND)
    meta = {**POD["metadata"], "deletionTimestamp": "2023-11-14T22:13:20Z"}  # the clock's time
    world.reader.put({**POD, "metadata": meta})
    assert world.user(token)
    world.clock.at += 61
    assert world.refused(token)


def test_token_expires_and_starts() -> None:
    """A token is good from its start to its end and not longer, also from the cache; servers' clocks may be a minute
    apart, as upstream allows."""
    world = World()
    token = world.token(expirationSeconds=600)
    world.clock.at -= 61
    assert world.refused(token)
    world.clock.at += 2
    assert world.user(token)
    world.clock.at += 59 + 660
    assert world.user(token)
    world.clock.at += 1
    assert world.refused(token)


def test_projected_token_is_extended() -> None:
    """The lifetime that admission asks for gives a year, with the hour as the time to renew."""
    world = World()
    answer = world.answer(expirationSeconds=3607, boundObjectRef=BOUND)
    claims = json.loads(base64.urlsafe_b64decode(answer["status"]["token"].split(".")[1] + "=="))
    assert claims["exp"] - claims["iat"] == tokenissuer.EXTENDED_S
    assert claims["kubernetes.io"]["warnafter"] - claims["iat"] == 3607
    assert answer["status"]["expirationTimestamp"] == "2023-11-14T23:13:27Z"


def test_audiences() -> None:
    """A token for somebody else is no credential here, but a review for that audience accepts it."""
    world = World()
    token = world.token(audiences=["vault"])
    assert world.refused(token)
    found = world.authenticator.review(token, ["vault", "other"])
    assert found is not None
    assert found[1] == ("vault",)
    assert world.authenticator.review(token, ["other"]) is None
    assert not world.refused(world.token(audiences=["k3s"])), "this is what k3s calls its server"


def test_audiences_by_option() -> None:
    """What the option names is what tokens carry and what is accepted; nothing else is."""
    given = tokens.settings("cluster.local", ("one", "two"))
    assert given.given == given.audiences == ("one", "two")


def parts(token: str) -> tuple[Object, Object, str]:
    head, body, signature = token.split(".")
    return (
        json.loads(base64.urlsafe_b64decode(head + "==")),
        json.loads(base64.urlsafe_b64decode(body + "==")),
        signature,
    )


def joined(head: Object, body: Object, signature: str) -> str:
    return f"{b64(json.dumps(head).encode())}.{b64(json.dumps(body).encode())}.{signature}"


def test_forged_tokens() -> None:
    """Changed claims, other algorithms, no signature, another key, a foreign issuer: none passes."""
    world = World()
    good = world.token()
    head, body, signature = parts(good)
    raw_head, raw_body, _ = good.split(".")
    other = Signer(key_pem())
    forged = [
        joined(head, {**body, "sub": "system:serviceaccount:kube-system:admin"}, signature),
        joined({**head, "alg": "none"}, body, ""),
        joined({**head, "alg": "HS256"}, body, signature),
        joined({**head, "kid": "x"}, body, signature),
        f"{raw_head}.{raw_body}.",
        f"{raw_head}.{raw_body}",
        f"{raw_head}.{raw_body}.{b64(other.sign(f'{raw_head}.{raw_body}'.encode()))}",
        good + "=",
        good + ".x",
        good[:-4] + "AAAA",
        "..",
        "a.b.c",
        "\udcff.\udcff.x",
    ]
    for token in forged:
        assert world.refused(token), token
    assert world.user(good)


def test_signed_nonsense_is_refused() -> None:
    """Even with our signature: claims that contradict each other or lack the private part are no user."""
    world = World()
    head, body, _ = parts(world.token())

    def signed(claims: Object) -> str:
        message = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
        return f"{message}.{b64(world.signer.sign(message.encode()))}"

    assert world.user(signed(body))
    assert world.refused(signed({**body, "sub": "system:serviceaccount:a:other"}))
    assert world.refused(signed({k: v for k, v in body.items() if k != "kubernetes.io"}))
    assert world.refused(signed({k: v for k, v in body.items() if k != "exp"}))
    assert world.refused(signed({**body, "iss": "https://elsewhere"}))
    assert world.refused(signed({**body, "aud": []}))


def test_token_request_errors() -> None:
    """TokenRequests for what is not there, of the wrong kind, or for too short a time."""
    world = World()
    with pytest.raises(NotFound, match='pods "zz" not found'):
        world.token(boundObjectRef={**BOUND, "name": "zz"})
    with pytest.raises(Conflict, match="does not match the UID in record"):
        world.token(boundObjectRef={**BOUND, "uid": "x"})
    assert world.token(boundObjectRef={"kind": "Pod", "name": "p"}), "upstream does not look at the version"
    with pytest.raises(BadRequest, match="cannot bind token to object of type apps/v1, Kind=Pod"):
        world.token(boundObjectRef={**BOUND, "apiVersion": "apps/v1"})
    with pytest.raises(BadRequest, match="cannot bind token to object of type /v1, Kind=ConfigMap"):
        world.token(boundObjectRef={**BOUND, "kind": "ConfigMap"})
    world.reader.put({**ACCOUNT, "metadata": {**ACCOUNT["metadata"], "name": "other"}})
    with pytest.raises(BadRequest, match="running with different serviceaccount name"):
        world.issuer.request("a", "other", {"spec": {"boundObjectRef": BOUND, "expirationSeconds": 600}})
    with pytest.raises(Invalid, match="may not specify a duration less than 10 minutes"):
        world.token(expirationSeconds=0)
    with pytest.raises(Invalid, match=r"larger than 2\^32 seconds"):
        world.token(expirationSeconds=(1 << 32) + 1)
    for field in ("name", "namespace"):
        with pytest.raises(
            Invalid, match=f'metadata.{field}: Invalid value: "x": must match the service account {field}'
        ):
            world.issuer.checked("a", "s", {"metadata": {field: "x"}})
    with pytest.raises(
        Conflict, match=r"the UID in the token request \(x\) does not match the UID of the service account"
    ):
        world.issuer.checked("a", "s", {"metadata": {"uid": "x"}})
    assert world.issuer.checked("a", "s", {"metadata": {"uid": "account-uid"}})
    assert world.answer()["metadata"]["uid"] == "account-uid"
    with pytest.raises(NotFound, match='serviceaccounts "none" not found'):
        world.issuer.checked("a", "none", {"spec": {"expirationSeconds": 1}})


def test_own_signature_check_agrees_with_the_library() -> None:
    """Signatures made by `cryptography` verify with integers, for private and public PEM forms; changed ones do not."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(PEM, None)
    forms = [
        PEM,
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    ]
    signature = Signer(PEM).sign(b"message")
    for form in forms:
        (public,) = keys(form)
        assert isinstance(public, PublicKey)
        assert public.verifies(b"message", signature)
        assert not public.verifies(b"messagf", signature)
        assert not public.verifies(b"message", signature[:-1])
        assert not public.verifies(b"message", b"\x00" + signature)
        assert not public.verifies(b"message", bytes(256))
        assert not public.verifies(b"message", (int.from_bytes(signature, "big") + public.modulus).to_bytes(257, "big"))
    for bad in (b"", b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----", PEM[:200]):
        with pytest.raises(BadKey):
            keys(bad)


def test_jwks_names_the_key() -> None:
    """The JWKS document has the key that tokens name."""
    world = World()
    (jwk,) = tokenissuer.jwks([world.signer.public])["keys"]
    head, _, _ = parts(world.token())
    assert jwk["kid"] == head["kid"]
    assert jwk["e"] == "AQAB"
    assert isinstance(world.signer.public, PublicKey)


# Other credentials

OURS = "k3s-client-ca@1"


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_cluster_secrets_count_for_supervisor_routes_only() -> None:
    """The users of the cluster token are nobody to the API."""
    world = World(Credentials(passwords={"node": (("s3cret",), ("k3s:agent",)), "off": (("",), ())}))
    found = world.authenticator.supervisor(basic("node", "s3cret"), None)
    assert found == User("node", ("k3s:agent", "system:authenticated"))
    assert world.authenticator.authenticate(basic("node", "s3cret"), None) is None
    for headers in (
        basic("node", "wrong"),
        basic("server", "s3cret"),
        basic("off", ""),
        basic("", ""),
        {"authorization": "Basic %%%"},
    ):
        with pytest.raises(Unauthorized):
            world.authenticator.supervisor(headers, None)


def bootstrap(**data: str) -> Object:
    values = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:k3s:default-node-token",
        **data,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


def test_bootstrap_tokens() -> None:
    """A bootstrap token is good while its Secret says so, unless a flag turns them all off."""
    off = World(Credentials(bootstrap=False))
    off.reader.put(bootstrap())
    assert off.refused("abcdef.0123456789abcdef")
    world = World()
    world.reader.put(bootstrap())
    user = world.user("abcdef.0123456789abcdef")
    assert user is not None
    assert user.name == "system:bootstrap:abcdef"
    assert user.groups[:2] == ("system:bootstrappers", "system:bootstrappers:k3s:default-node-token")
    for change in (
        {"token-secret": "fedcba9876543210"},
        {"token-id": "xxxxxx"},
        {"expiration": "2020-01-01T00:00:00Z"},
        {"expiration": "soon"},
        {"usage-bootstrap-authentication": "false"},
        {"auth-extra-groups": "system:masters"},
        {"auth-extra-groups": "system:bootstrappers:a,,system:bootstrappers:b"},
        {"auth-extra-groups": "system:bootstrappers:A"},
    ):
        world.reader.put(bootstrap(**change))
        assert world.refused("abcdef.0123456789abcdef"), change
    world.reader.put(
        bootstrap(**{"auth-extra-groups": "system:bootstrappers:b,system:bootstrappers:a,system:bootstrappers:b"})
    )
    user = world.user("abcdef.0123456789abcdef")
    assert user is not None and user.groups == (
        "system:bootstrappers",
        "system:bootstrappers:a",
        "system:bootstrappers:b",
        "system:authenticated",
    )
    assert world.refused("abcdef.0123456789abcdeF") and world.refused("abcdef0123456789abcdef")
    going = bootstrap()
    going["metadata"] = {**going["metadata"], "deletionTimestamp": "2023-01-01T00:00:00Z"}
    world.reader.put(going)
    assert world.refused("abcdef.0123456789abcdef")
    world.reader.put({**bootstrap(), "type": "Opaque"})
    assert world.refused("abcdef.0123456789abcdef")


def test_anonymous() -> None:
    """Without credentials only public paths, unless anonymous requests are on."""
    closed, opened = World(), World(Credentials(anonymous=True))
    assert closed.authenticator.without_credentials("/livez") == identity.anonymous()
    for path in ("/api", "/livez/../api", "/livezz", "/metrics"):
        with pytest.raises(Unauthorized):
            closed.authenticator.without_credentials(path)
    assert opened.authenticator.without_credentials("/api").groups == ("system:unauthenticated",)
