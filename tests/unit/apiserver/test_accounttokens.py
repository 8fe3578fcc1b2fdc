"""The keys of service-account tokens: every form, several at once, their documents, and what flags cannot be used."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.fakes.reader import FakeReader
from tests.fakes.server import Caller, serving

from k3s.api.object import Object, decode
from k3s.apiserver import accounttokens
from k3s.apiserver.accounttokens import AccountTokenError, AccountTokens
from k3s.apiserver.oidc import keys as oidc
from k3s.apiserver.rsa import BadKey, b64, unb64
from k3s.apiserver.tokenissuer import JWKS_PATH, Issuer
from k3s.apiserver.tokenkeys import Signer, keys
from k3s.apiserver.tokens import BadToken, Verifier, settings
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy

Run = Callable[[Any], Any]
ACCOUNT: Object = {
    "apiVersion": "v1",
    "kind": "ServiceAccount",
    "metadata": {"name": "s", "namespace": "a", "uid": "u"},
}
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}


def private(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    """The key as PEM."""
    return key.private_bytes(Encoding.PEM, form, NoEncryption())  # type: ignore[no-any-return]


def public(key: Any) -> bytes:
    """Its public half as PEM."""
    return key.public_key().public_bytes(  # type: ignore[no-any-return]
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )


def certificate(key: Any) -> bytes:
    """A certificate of the key as PEM."""
    name, now = x509.Name([]), datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now)
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM)


def issuer(signer: Signer, more: bytes = b"", **given: Any) -> Issuer:
    """An issuer whose account exists; `more` are further keys that are published."""
    own = AccountTokens(**given).settings("cluster.local", ())
    listed = keys(more) if more else ()
    return Issuer(FakeReader([ACCOUNT]), signer, own, SystemClock(), SeededEntropy(1), listed)  # type: ignore[arg-type]


def token(made: Issuer, **spec: Any) -> str:
    """A token of the account."""
    return str(made.request("a", "s", made.checked("a", "s", {"spec": spec})).answer["status"]["token"])


def verifier(pem: bytes, *issuers: str) -> Verifier:
    """Who accepts tokens of these keys."""
    own = settings("cluster.local", issuers=issuers)
    return Verifier(FakeReader([ACCOUNT]), keys(pem), own, SystemClock())  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", KEYS)
def test_every_form_of_a_key(algorithm: str) -> None:
    """Private, public and certificate are the same key, of the name that upstream gives it; its tokens are accepted by
    every form, and by whoever reads the JWKS document; changed ones by none."""
    key = KEYS[algorithm]
    made = token(issuer(Signer(private(key))))
    message, _, signature = made.rpartition(".")
    hashed = Hash(SHA256())
    hashed.update(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    name = b64(hashed.finalize())
    forms = (private(key), private(key, PrivateFormat.TraditionalOpenSSL), public(key), certificate(key))
    for form in forms:
        (found,) = keys(form)
        assert (found.kid, found.algorithm) == (name, algorithm)
        assert found.verifies(message.encode(), unb64(signature))
        assert not found.verifies(message.encode() + b"x", unb64(signature))
        assert verifier(form).verify(made).user.name == "system:serviceaccount:a:s"
    assert decode(unb64(made.split(".")[0])) == {"alg": algorithm, "kid": name}
    (outside,) = oidc.keys({"keys": [found.jwk()]})
    assert outside.verifies(algorithm, message.encode(), unb64(signature))
    other = public(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(BadToken, match="invalid signature"):
        verifier(other).verify(made)


def test_keys_are_exchanged() -> None:
    """The first key of a file signs; tokens of the second hold while it is listed and not after; issuers likewise."""
    old, new = private(KEYS["RS256"], PrivateFormat.TraditionalOpenSSL), private(KEYS["ES256"])
    before, after = token(issuer(Signer(old))), token(issuer(Signer(new + old)))
    both, later = verifier(new + old), verifier(new)
    assert both.verify(before).user == both.verify(after).user == later.verify(after).user
    with pytest.raises(BadToken, match="invalid signature"):
        later.verify(before)
    renamed = issuer(Signer(new), issuers=("https://two", "https://one"))
    made = token(renamed)
    assert decode(unb64(made.split(".")[1]))["iss"] == "https://two"
    assert decode(unb64(made.split(".")[1]))["aud"] == ["https://two", "https://one"]
    assert verifier(new, "https://three", "https://two").verify(made, ["https://one"])
    with pytest.raises(BadToken, match="issued by 'https://two'"):
        verifier(new, "https://three").verify(made)


def test_documents_tell_all_keys(run: Run) -> None:
    """Discovery names every algorithm and the URL of the flag, JWKS has all keys; an issuer that is no https URL has
    neither."""
    pem = b"".join(public(key) for key in (KEYS["RS256"], KEYS["ES384"], KEYS["RS256"]))
    made = issuer(Signer(private(KEYS["RS256"])), pem, jwks_uri="https://elsewhere/keys")

    async def check() -> None:
        async with serving(issuer=made) as server:
            caller = Caller(server.ports[0])
            _, document = await caller.call("GET", "/.well-known/openid-configuration")
            assert document["id_token_signing_alg_values_supported"] == ["ES384", "RS256"]
            assert document["jwks_uri"] == "https://elsewhere/keys"
            _, listed = await caller.call("GET", JWKS_PATH)
            assert [key["kid"] for key in listed["keys"]] == [key.kid for key in keys(pem)]
            assert [key["kty"] for key in listed["keys"]] == ["RSA", "EC"]
            caller.close()

    run(check())
    for name in ("kubernetes", "http://a", "https://a?b", "https://a#b"):
        assert not issuer(Signer(private(KEYS["RS256"])), issuers=(name,)).published("https://x"), name


def test_lifetimes_are_limited(run: Run) -> None:
    """A longer one than the flag allows is shortened with a warning; projected ones last a year unless forbidden."""
    made = issuer(Signer(private(KEYS["ES256"])), longest_s=7200)

    async def check() -> None:
        async with serving(issuer=made) as server:
            caller = Caller(server.ports[0])
            await caller.call("POST", "/api/v1/namespaces", {"metadata": {"name": "a"}})
            await caller.call("POST", "/api/v1/namespaces/a/serviceaccounts", {"metadata": {"name": "s"}})
            spec = {"spec": {"expirationSeconds": 7201}}
            await caller.send("POST", "/api/v1/namespaces/a/serviceaccounts/s/token", spec)
            status, headers, data = await caller.answer()
            assert (status, decode(data)["spec"]["expirationSeconds"]) == (201, 7200)
            assert headers["warning"] == '299 - "requested expiration of 7201 seconds shortened to 7200 seconds"'
            caller.close()

    run(check())
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "a", "uid": "p"},
        "spec": {"serviceAccountName": "s"},
    }
    for extend, lifetime_s in ((True, 365 * 86400), (False, 3607)):
        one = issuer(Signer(private(KEYS["ES256"])), extend=extend)
        one._reader.put(pod)  # type: ignore[attr-defined]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": "p"}
        claims = decode(unb64(token(one, expirationSeconds=3607, boundObjectRef=bound).split(".")[1]))
        assert claims["exp"] - claims["iat"] == lifetime_s


def test_files_by_flag(tmp_path: Path) -> None:
    """What no flag names is in service.key; the key that signs has to be among those that count."""
    service, one, two = (tmp_path / name for name in ("service.key", "one", "two"))
    service.write_bytes(private(KEYS["RS256"]))
    one.write_bytes(
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + public(KEYS["ES256"])
    )
    two.write_bytes(private(KEYS["ES256"], PrivateFormat.TraditionalOpenSSL))
    signer, listed = accounttokens.load(accounttokens.UNSAID, service)
    assert [key.kid for key in listed] == [signer.public.kid]
    flags = {"service-account-key-file": f"{service}\n{one}", "service-account-signing-key-file": str(two)}
    signer, listed = accounttokens.load(accounttokens.settings(flags), service)
    assert signer.public.algorithm == "ES256" and [key.algorithm for key in listed] == ["RS256", "ES256"]
    with pytest.raises(AccountTokenError, match=r"give service-account-key-file once more with that file"):
        accounttokens.load(AccountTokens(key_files=(str(one),)), service)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"service-account-key-file": "/nowhere"}, "service-account-key-file '/nowhere' cannot be read: No such file"),
        (
            {"service-account-key-file": "{odd}"},
            "cannot be used: the block PUBLIC KEY cannot be used: it is neither RSA",
        ),
        ({"service-account-signing-key-file": "{public}"}, "it holds no private RSA or ECDSA key"),
        ({"service-account-issuer": "a\n"}, "should not be an empty string"),
        ({"service-account-issuer": "a\na"}, "'a' is already specified"),
        ({"service-account-issuer": "::1"}, "contained a ':' but was not a valid URL"),
        ({"service-account-jwks-uri": "http://a"}, "requires https scheme, parsed as: http://a"),
        ({"service-account-max-token-expiration": "59m"}, "must be between 1 hour and 2^32 seconds"),
        ({"service-account-max-token-expiration": "long"}, "'long' is no duration"),
        ({"service-account-extend-token-expiration": "yes"}, "'yes' is neither true nor false"),
    ],
)
def test_flags_that_cannot_be_used(tmp_path: Path, flags: dict[str, str], why: str) -> None:
    """The flag is named, and what is wrong with it."""
    files = {"odd": tmp_path / "odd", "public": tmp_path / "public"}
    files["odd"].write_bytes(public(ed25519.Ed25519PrivateKey.generate()))
    files["public"].write_bytes(public(KEYS["ES256"]))
    with pytest.raises(AccountTokenError) as caught:
        accounttokens.settings({name: value.format(**files) for name, value in flags.items()})
    assert why in str(caught.value)


def test_keys_that_cannot_be_used() -> None:
    """Short RSA keys, curves that tokens know nothing of, keys with a password."""
    with pytest.raises(BadKey, match="at least 2048 bits"):
        keys(private(rsa.generate_private_key(65537, 1024)))
    with pytest.raises(BadKey, match="secp256k1 is not known: use P-256, P-384 or P-521"):
        keys(private(ec.generate_private_key(ec.SECP256K1())))
    with pytest.raises(BadKey, match="a key with a password cannot be used"):
        keys(b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n-----END RSA PRIVATE KEY-----")
