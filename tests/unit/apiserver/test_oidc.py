"""Tokens of other issuers: whose keys count, which claims make which user, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from tests.fakes.server import Caller, serving

from k3s.api.errors import ServiceUnavailable
from k3s.apiserver import tokensources
from k3s.apiserver.identity import User
from k3s.apiserver.oidc.provider import Provider
from k3s.apiserver.oidc.settings import IssuerSettings, Part, SettingsError, parse, settings
from k3s.apiserver.tokenwebhook import TokenWebhook
from k3s.client.transport import Request, Response

Run = Callable[[Any], Any]
URL = "https://issuer.example"
NOW = 1_800_000_000.0


class FixedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return NOW + self.at

    def monotonic(self) -> float:
        return self.at

    def monotonic_ns(self) -> int:
        return int(self.at * 1e9)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(number: int, size: int = 0) -> str:
    return _b64(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


class Issuer:
    """Signs tokens with its keys, and serves its documents; `fetched` are the URLs that were asked for."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.kid = "one"
        self.fetched: list[str] = []
        self.down = False
        self.name = URL

    async def fetch(self, url: str, ca_pem: str) -> Any:
        """See `provider.Fetch`."""
        self.fetched.append(url)
        if self.down:
            raise ServiceUnavailable("the issuer is down")
        if url == f"{URL}/.well-known/openid-configuration":
            return {"issuer": self.name, "jwks_uri": f"{URL}/keys"}
        assert url == f"{URL}/keys"
        public, point = self.rsa.public_key().public_numbers(), self.ec.public_key().public_numbers()
        curve = {"kty": "EC", "crv": "P-256", "kid": "curve", "x": _number(point.x, 32), "y": _number(point.y, 32)}
        known = {"kty": "RSA", "kid": self.kid, "use": "sig", "n": _number(public.n), "e": _number(public.e)}
        return {"keys": [{"kty": "oct", "k": "c2VjcmV0"}, known, curve, {**known, "use": "enc", "kid": "enc"}]}

    def token(self, alg: str = "RS256", kid: str = "", **claims: Any) -> str:
        """A signed token."""
        header = {"alg": alg, "kid": kid or self.kid}
        given = {"iss": URL, "aud": "k8s", "sub": "jane", "exp": NOW + 3600, **claims}
        message = ".".join(_b64(json.dumps(part).encode()) for part in (header, given))
        return f"{message}.{_b64(self._sign(alg, message.encode()))}"

    def _sign(self, alg: str, message: bytes) -> bytes:
        if alg == "ES256":
            r, s = decode_dss_signature(self.ec.sign(message, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        digest = hashes.SHA512() if alg.endswith("512") else hashes.SHA256()
        pad: Any = padding.PSS(padding.MGF1(digest), digest.digest_size) if alg[0] == "P" else padding.PKCS1v15()
        return self.rsa.sign(message, pad, digest)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """One issuer for all tests: its keys take a while to make."""
    return Issuer()


def _provider(issuer: Issuer, **more: Any) -> Provider:
    given = {"username": Part("sub", "oidc:"), "groups": Part("groups", "oidc:"), **more}
    return Provider(IssuerSettings(URL, ("k8s",), **given), issuer.fetch, FixedClock())  # type: ignore[arg-type]


def test_a_token_makes_a_user(run: Run, issuer: Issuer) -> None:
    """By every kind of algorithm; names and groups have their prefixes; the keys are fetched once."""

    async def check() -> None:
        provider = _provider(issuer)
        before = len(issuer.fetched)
        wanted = User("oidc:jane", ("oidc:a", "oidc:b", "system:authenticated"))
        for alg in ("RS256", "RS512", "PS256"):
            assert await provider.user(issuer.token(alg, groups=["a", "b"])) == wanted, alg
        assert await provider.user(issuer.token("ES256", "curve", groups=["a", "b"])) == wanted
        assert len(issuer.fetched) - before == 2
        found = await provider.user(issuer.token(jti="7"))
        assert found is not None and found.extra == {"authentication.kubernetes.io/credential-id": ("JTI=7",)}

    run(check())


_BAD: dict[str, Callable[[Issuer], str]] = {
    "expired": lambda i: i.token(exp=NOW - 1),
    "no expiry": lambda i: i.token(exp=None),
    "an expiry that is text": lambda i: i.token(exp="9999999999"),
    "not yet": lambda i: i.token(nbf=NOW + 60),
    "another audience": lambda i: i.token(aud="other"),
    "no audience": lambda i: i.token(aud=None),
    "audiences of objects": lambda i: i.token(aud=[{"k8s": 1}]),
    "no signature": lambda i: i.token().rpartition(".")[0] + ".",
    "none": lambda i: _b64(b'{"alg":"none"}') + "." + i.token().split(".")[1] + ".",
    "hmac with the public key": lambda i: _b64(b'{"alg":"HS256"}') + "." + ".".join(i.token().split(".")[1:]),
    "another algorithm than the key": lambda i: i.token("ES256", "one"),
    "claims exchanged": lambda i: ".".join(
        (i.token().split(".")[0], i.token(sub="root").split(".")[1], i.token().split(".")[2])
    ),
    "critical extensions": lambda i: _b64(b'{"alg":"RS256","crit":["x"]}') + "." + ".".join(i.token().split(".")[1:]),
    "no user": lambda i: i.token(sub=""),
    "a user that is no text": lambda i: i.token(sub=["root"]),
    "groups that are no texts": lambda i: i.token(groups=[{"a": 1}]),
    "a key for encryption": lambda i: i.token(kid="enc"),
}


@pytest.mark.parametrize("name", _BAD)
def test_bad_tokens_make_nobody(run: Run, issuer: Issuer, name: str) -> None:
    """Each of these is refused."""
    assert run(_provider(issuer).user(_BAD[name](issuer))) is None


def test_keys_are_fetched_again_for_a_new_name(run: Run) -> None:
    """A key that is new is found; tokens that name keys at random cannot make the server ask all the time."""

    async def check() -> None:
        own = Issuer()
        clock = FixedClock()
        provider = Provider(IssuerSettings(URL, ("k8s",), Part("sub")), own.fetch, clock)  # type: ignore[arg-type]
        own.down = True
        assert await provider.user(own.token()) is None
        own.down, clock.at = False, 20
        assert await provider.user(own.token()) is not None
        own.rsa, own.kid, clock.at = rsa.generate_private_key(65537, 2048), "two", 40
        assert await provider.user(own.token()) is not None
        asked = len(own.fetched)
        for number in range(5):
            assert await provider.user(own.token(kid=f"made up {number}")) is None
        assert len(own.fetched) == asked
        own.name, clock.at = "https://somebody.else", 80
        assert await provider.user(own.token(kid="three")) is None

    run(check())


_CONFIGURATION = """
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://issuer.example
    audiences: [k8s, other]
    audienceMatchPolicy: MatchAny
  claimMappings:
    username: {expression: 'claims.email.split("@")[0] + ":external"'}
    groups: {expression: 'claims.roles.split(",")'}
    uid: {claim: sub}
    extra:
    - {key: example.com/tenant, valueExpression: claims.tenant}
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.exp - claims.iat <= 86400', message: lives too long}
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: reserved}
anonymous:
  enabled: true
  conditions:
  - path: /livez
"""


def test_expressions_make_the_user(run: Run, issuer: Issuer) -> None:
    """Mappings and rules of the configuration file are expressions over the claims and the user."""
    found = parse(_CONFIGURATION)
    assert (found.anonymous, found.anonymous_paths) == (True, frozenset({"/livez"}))
    provider = Provider(found.issuers[0], issuer.fetch, FixedClock())  # type: ignore[arg-type]
    claims = {"email": "jo@example.com", "roles": "a,b", "tenant": "t1", "hd": "example.com", "iat": NOW}
    user = run(provider.user(issuer.token(**claims)))
    assert (user.name, user.groups, user.uid) == ("jo:external", ("a", "b", "system:authenticated"), "jane")
    assert user.extra["example.com/tenant"] == ("t1",)
    for wrong in ({"hd": "evil.com"}, {"iat": NOW - 90000}, {"email": "system:x@example.com"}, {"roles": 5}):
        assert run(provider.user(issuer.token(**{**claims, **wrong}))) is None, wrong


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            "https://issuer",
            "http://issuer",
            "jwt[0].issuer.url: Invalid value: 'http://issuer.example': URL scheme must be https",
        ),
        ("audiences: [k8s, other]", "audiences: []", "jwt[0].issuer.audiences: Required value"),
        ("audienceMatchPolicy: MatchAny", "audienceMatchPolicy: ''", "audienceMatchPolicy: must be MatchAny"),
        (
            "claim: sub",
            "claim: sub, expression: claims.sub",
            "jwt[0].claimMappings.uid: claim and expression can't both be set",
        ),
        ("claims.email.split", "claims.email..split", "does not compile"),
        ("claimMappings:", "claimMapping:", "jwt[0].claimMapping: unknown field"),
        ("enabled: true", "enabled: false", "anonymous.conditions: enabled should be set to true"),
        ("config.k8s.io/v1", "config.k8s.io/v9", "apiVersion 'apiserver.config.k8s.io/v9' is not known"),
    ],
)
def test_wrong_configurations_are_told(tmp_path: Path, old: str, new: str, why: str) -> None:
    """The field that is wrong is named."""
    file = tmp_path / "authentication.yaml"
    file.write_text(_CONFIGURATION.replace(old, new))
    with pytest.raises(SettingsError) as caught:
        tokensources.settings({"authentication-config": str(file)})
    assert why in str(caught.value)


def test_the_flags(tmp_path: Path) -> None:
    """The flags of one issuer, with upstream's defaults; what does not go together is told."""
    found = settings({"oidc-issuer-url": URL, "oidc-client-id": "k8s"}).issuers[0]
    assert found.username == Part("sub", f"{URL}#") and found.algorithms == {"RS256"}
    more = {"oidc-username-claim": "email", "oidc-groups-claim": "g", "oidc-required-claim": "a=b"}
    found = settings({"oidc-issuer-url": URL, "oidc-client-id": "k8s", **more}).issuers[0]
    assert found.username == Part("email", "") and found.claim_rules[0].claim == "a"
    for flags, why in (
        ({"oidc-issuer-url": URL}, "needs oidc-client-id"),
        ({"oidc-client-id": "a"}, "without oidc-issuer-url"),
        ({"oidc-client-id": "a", "authentication-config": "x"}, "cannot be used together"),
        ({"oidc-issuer-url": URL, "oidc-client-id": "a", "oidc-signing-algs": "HS256"}, "HS256"),
    ):
        with pytest.raises(SettingsError, match=why):
            settings(flags)


class Webhook:
    """A transport whose other end knows one token."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.status = 201

    async def send(self, request: Request) -> Response:
        """Answers a TokenReview."""
        self.asked.append(request.body)
        known = request.body["spec"]["token"] == "good"
        user = {"username": "wendy", "uid": "7", "groups": ["devs"], "extra": {"Scopes": ["all"]}}
        return Response(self.status, {"status": {"authenticated": known, "user": user if known else {}}})


def test_tokens_are_looked_up_while_the_request_waits(run: Run, issuer: Issuer) -> None:
    """The pipeline and token reviews ask the sources, remember what they say, and refuse what nobody knows."""

    async def check() -> None:
        hook: Any = Webhook()
        async with serving(sources=[_provider(issuer), TokenWebhook(hook)]) as server:
            path, kind = "/apis/authentication.k8s.io/v1", {"apiVersion": "authentication.k8s.io/v1"}
            for token, name in ((issuer.token(), "oidc:jane"), ("good", "wendy"), ("good", "wendy")):
                caller = Caller(server.ports[0], token)
                status, found = await caller.call(
                    "POST", f"{path}/selfsubjectreviews", {**kind, "kind": "SelfSubjectReview"}
                )
                assert (status, found["status"]["userInfo"]["username"]) == (201, name)
                caller.close()
            assert len(hook.asked) == 1 and hook.asked[0]["apiVersion"] == "authentication.k8s.io/v1beta1"
            bad = Caller(server.ports[0], "bad")
            assert (await bad.call("GET", "/api/v1/pods"))[0] == 401
            assert (await bad.call("GET", "/api/v1/pods"))[0] == 401
            assert len(hook.asked) == 2
            admin = Caller(server.ports[0])
            review = {**kind, "kind": "TokenReview", "spec": {"token": "good"}}
            status, found = await admin.call("POST", f"{path}/tokenreviews", review)
            assert status == 201 and found["status"]["user"]["groups"] == ["devs", "system:authenticated"]
            hook.status = 302
            review["spec"]["token"] = "good?"
            _, found = await admin.call("POST", f"{path}/tokenreviews", review)
            assert "authenticated" not in found["status"]
            bad.close()
            admin.close()

    run(check())
