"""Tokens of other issuers: whose keys count, which claims make which user, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.fakes.issuer import NOW, URL, Issuer, b64
from tests.fakes.server import Caller, serving

from k3s.apiserver import tokensources
from k3s.apiserver.identity import User
from k3s.apiserver.oidc.configuration import parse
from k3s.apiserver.oidc.provider import Provider
from k3s.apiserver.oidc.settings import IssuerSettings, Part, SettingsError, settings
from k3s.apiserver.tokenwebhook import TokenWebhook
from k3s.client.transport import Request, Response

Run = Callable[[Any], Any]


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
    "none": lambda i: b64(b'{"alg":"none"}') + "." + i.token().split(".")[1] + ".",
    "hmac with the public key": lambda i: b64(b'{"alg":"HS256"}') + "." + ".".join(i.token().split(".")[1:]),
    "another algorithm than the key": lambda i: i.token("ES256", "one"),
    "claims exchanged": lambda i: ".".join(
        (i.token().split(".")[0], i.token(sub="root").split(".")[1], i.token().split(".")[2])
    ),
    "critical extensions": lambda i: b64(b'{"alg":"RS256","crit":["x"]}') + "." + ".".join(i.token().split(".")[1:]),
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
  - {expression: 'claims.email_verified == true', message: not verified}
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
    claims = {
        "email": "jo@example.com",
        "roles": "a,b",
        "tenant": "t1",
        "hd": "example.com",
        "iat": NOW,
        "email_verified": True,
    }
    user = run(provider.user(issuer.token(**claims)))
    assert (user.name, user.groups, user.uid) == ("jo:external", ("a", "b", "system:authenticated"), "jane")
    assert user.extra["example.com/tenant"] == ("t1",)
    for wrong in (
        {"hd": "evil.com"},
        {"iat": NOW - 90000},
        {"email": "system:x@example.com"},
        {"roles": 5},
        {"email_verified": False},
    ):
        assert run(provider.user(issuer.token(**{**claims, **wrong}))) is None, wrong


_WRONG: dict[str, tuple[str, str, str]] = {
    "no https": (
        "https://issuer",
        "http://issuer",
        'jwt[0].issuer.url: Invalid value: "http://issuer.example": URL scheme must be https',
    ),
    "no url": ("url: https://issuer.example", "url: ''", "jwt[0].issuer.url: Required value"),
    "password": ("https://issuer", "https://me@issuer", "URL must not contain a username or password"),
    "query": ("issuer.example", "issuer.example?a=b", "URL must not contain a query"),
    "fragment": ("issuer.example", "issuer.example#a", "URL must not contain a fragment"),
    "our own": (
        "https://issuer.example",
        "https://own",
        'Invalid value: "https://own": URL must not overlap with disallowed issuers: [https://own]',
    ),
    "same discovery": (
        "[k8s, other]",
        "[k8s, other]\n    discoveryURL: https://issuer.example/",
        "discoveryURL must be different from URL",
    ),
    "authority": (
        "[k8s, other]",
        "[k8s, other]\n    certificateAuthority: x",
        'jwt[0].issuer.certificateAuthority: Invalid value: "<omitted>": ',
    ),
    "egress": (
        "[k8s, other]",
        "[k8s, other]\n    egressSelectorType: cluster",
        "jwt[0].issuer.egressSelectorType: there are no egress selectors",
    ),
    "no audience": (
        "[k8s, other]",
        "[]",
        "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
    ),
    "empty audience": ("[k8s, other]", "[k8s, '']", "jwt[0].issuer.audiences[1]: Required value"),
    "audience twice": ("[k8s, other]", "[k8s, k8s]", 'jwt[0].issuer.audiences[1]: Duplicate value: "k8s"'),
    "policy": (
        "audienceMatchPolicy: MatchAny",
        "audienceMatchPolicy: ''",
        "audienceMatchPolicy must be MatchAny for multiple audiences",
    ),
    "policy of one": (
        "[k8s, other]\n    audienceMatchPolicy: MatchAny",
        "[k8s]\n    audienceMatchPolicy: All",
        "audienceMatchPolicy must be empty or MatchAny for single audience",
    ),
    "no text": ("url: https://issuer.example", "url: 5", "jwt[0].issuer.url: has to be a text"),
    "both": (
        "{claim: sub}",
        "{claim: sub, expression: claims.sub}",
        'jwt[0].claimMappings.uid: Invalid value: "": claim and expression can\'t both be set',
    ),
    "prefix": (
        """groups: {expression: 'claims.roles.split(",")'}""",
        "groups: {claim: g}",
        "jwt[0].claimMappings.groups.prefix: Required value: prefix is required when claim is set",
    ),
    "prefixed expression": (
        "{expression: 'claims.roles",
        "{prefix: a, expression: 'claims.roles",
        'groups.prefix: Invalid value: "a": may not be specified when expression is set',
    ),
    "uid prefix": ("{claim: sub}", "{claim: sub, prefix: a}", "jwt[0].claimMappings.uid.prefix: unknown field"),
    "extra without key": ("key: example.com/tenant", "key: ''", "jwt[0].claimMappings.extra[0].key: Required value"),
    "extra without domain": (
        "example.com/tenant",
        "tenant",
        'must be a domain-prefixed path (such as "acme.io/foo")',
    ),
    "extra in capitals": ("example.com/tenant", "example.com/Tenant", "must be lowercase"),
    "reserved extra": (
        "example.com/tenant",
        "a.k8s.io/tenant",
        "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
    ),
    "extra without value": ("claims.tenant", "''", "extra[0].valueExpression: Required value"),
    "rule of both": (
        "{claim: hd,",
        "{claim: hd, expression: 'true',",
        'claimValidationRules[0]: Invalid value: "hd": claim and expression',
    ),
    "rule of none": (
        "{claim: hd, requiredValue: example.com}",
        "{message: a}",
        "claimValidationRules[0]: Required value: claim or expression is required",
    ),
    "message of a claim": (
        "requiredValue: example.com",
        "message: a",
        'claimValidationRules[0].message: Invalid value: "a": may not be specified when claim is set',
    ),
    "value of an expression": (
        "message: lives too long",
        "requiredValue: a",
        'requiredValue: Invalid value: "a": may not be specified when expression is set',
    ),
    "rule twice": (
        "- {claim: hd, requiredValue: example.com}",
        "- {claim: hd}\n  - {claim: hd}",
        'claimValidationRules[1].claim: Duplicate value: "hd"',
    ),
    "no rule for users": (
        "expression: \"!user.username.startsWith('system:')\", ",
        "",
        "jwt[0].userValidationRules[0].expression: Required value",
    ),
    "syntax": (
        "claims.email.split",
        "claims.email..split",
        'jwt[0].claimMappings.username.expression: Invalid value: "claims.email..split',
    ),
    "no bool": (
        "'claims.exp - claims.iat <= 86400'",
        "claims.admin",
        'jwt[0].claimValidationRules[1].expression: Invalid value: "claims.admin": must evaluate to bool',
    ),
    "no field of users": ("!user.username", "!user.name", "undefined field 'name'"),
    "no claims here": ("!user.username", "!claims.username", "undeclared reference to 'claims'"),
    "email": (
        "claims.email_verified",
        "true",
        "claims.email_verified must be used in claimMappings.username.expression",
    ),
    "unknown": ("claimMappings:", "claimMapping:", "jwt[0].claimMapping: unknown field"),
    "anonymous": (
        "enabled: true",
        "enabled: false",
        'anonymous.conditions: Invalid value: [{"path":"/livez"}]: enabled should be set to true',
    ),
    "version": ("config.k8s.io/v1", "config.k8s.io/v9", "apiVersion 'apiserver.config.k8s.io/v9' is not known"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_wrong_configurations_are_told(tmp_path: Path, name: str) -> None:
    """The field that is wrong is named, in upstream's words."""
    old, new, why = _WRONG[name]
    assert old in _CONFIGURATION
    file = tmp_path / "authentication.yaml"
    file.write_text(_CONFIGURATION.replace(old, new))
    with pytest.raises(SettingsError) as caught:
        tokensources.settings({"authentication-config": str(file)}, ["https://own"])
    assert why in str(caught.value)


def test_issuers_stand_there_once() -> None:
    """Neither an issuer nor the place of its documents comes twice; sixty-four are enough."""
    one = "- issuer: {url: 'https://i%s', audiences: [a]%s}\n  claimMappings: {username: {claim: sub, prefix: ''}}\n"
    head = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\njwt:\n"
    with pytest.raises(SettingsError, match=r'jwt\[1\].issuer.url: Duplicate value: "https://i1"'):
        parse(head + one % (1, "") * 2)
    where = ", discoveryURL: 'https://x'"
    with pytest.raises(SettingsError, match=r'jwt\[1\].issuer.discoveryURL: Duplicate value: "https://x"'):
        parse(head + one % (1, where) + one % (2, where))
    many = [one % (i, "") for i in range(65)]
    assert len(parse(head + "".join(many[:64])).issuers) == 64
    with pytest.raises(SettingsError, match="jwt: Too many: 65: must have at most 64 items"):
        parse(head + "".join(many))


def test_the_flags(tmp_path: Path) -> None:
    """The flags of one issuer, with upstream's defaults; what does not go together is told."""
    found = settings({"oidc-issuer-url": URL, "oidc-client-id": "k8s"}).issuers[0]
    assert found.username == Part("sub", f"{URL}#") and found.algorithms == {"RS256"}
    file = tmp_path / "file"
    file.write_text(_CONFIGURATION)
    more = {"oidc-username-claim": "email", "oidc-groups-claim": "g", "oidc-required-claim": "a=b"}
    found = settings({"oidc-issuer-url": URL, "oidc-client-id": "k8s", **more}).issuers[0]
    assert found.username == Part("email", "") and found.claim_rules[0].claim == "a"
    for flags, why in (
        (
            {"oidc-issuer-url": URL},
            r"oidc-issuer-url and oidc-client-id must be specified together when any oidc-\* flags",
        ),
        ({"oidc-client-id": "a"}, "must be specified together"),
        ({"oidc-client-id": "a", "authentication-config": "x"}, r"file and oidc-\* flags are mutually exclusive"),
        ({"authentication-config": str(file), "anonymous-auth": "true"}, "--anonymous-auth flag cannot be set when"),
        ({"oidc-issuer-url": "http://a", "oidc-client-id": "a"}, "URL scheme must be https"),
        ({"oidc-issuer-url": URL, "oidc-client-id": "a", "oidc-signing-algs": "HS256"}, "HS256"),
    ):
        with pytest.raises(SettingsError, match=why):
            settings(flags)


class Webhook:
    """A transport whose other end knows one token."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.status = 201
        self.more: dict[str, Any] = {}

    async def send(self, request: Request) -> Response:
        """Answers a TokenReview."""
        self.asked.append(request.body)
        known = request.body["spec"]["token"] == "good"
        user = {"username": "wendy", "uid": "7", "groups": ["devs"], "extra": {"Scopes": ["all"]}}
        status = {"authenticated": known, "user": user if known else {}, **self.more}
        return Response(self.status, {"status": status})


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
            assert found["status"] == {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
            bad.close()
            admin.close()

    run(check())


def test_what_a_webhook_says_of_audiences(run: Run) -> None:
    """It may know audiences that this server does not have; what it says counts, and a token for none of those that
    are asked about is bad. Answers that are to count for no time are still answers."""

    async def check() -> None:
        hook: Any = Webhook()
        async with serving(sources=[TokenWebhook(hook, "v1", 0.0)]) as server:
            admin, path = Caller(server.ports[0]), "/apis/authentication.k8s.io/v1/tokenreviews"

            async def reviewed(*audiences: str) -> Any:
                spec = {"token": "good", "audiences": list(audiences)}
                body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
                return (await admin.call("POST", path, body))[1]["status"]

            hook.more = {"audiences": ["vault", "x"]}
            status = await reviewed("db", "vault")
            assert (status["authenticated"], status["audiences"]) == (True, ["vault"])
            assert hook.asked[-1]["spec"]["audiences"] == ["db", "vault"]
            assert hook.asked[-1]["apiVersion"] == "authentication.k8s.io/v1"
            assert "authenticated" not in await reviewed("db")
            hook.more = {}
            assert "authenticated" not in await reviewed("other"), "it knows nothing of audiences: only ours are meant"
            user = Caller(server.ports[0], "good")
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            assert (await user.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body))[0] == 201
            user.close()
            admin.close()

    run(check())
