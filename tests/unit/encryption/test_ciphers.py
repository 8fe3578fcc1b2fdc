"""Values are sealed as upstream does it, and what was changed or moved is seen."""

from __future__ import annotations

import hashlib
import os

import pytest

from k3s.apiserver.encryption import secretbox
from k3s.apiserver.encryption.ciphers import CIPHERS, Tampered
from k3s.apiserver.encryption.config import Key, parse
from k3s.apiserver.encryption.keyring import Keyring, Unreadable
from k3s.apiserver.encryption.secretbox import open_box, seal_box

PLACE = "/registry/core/secrets/default/a"


def test_secretbox_as_nacl_does_it() -> None:
    """The example of NaCl's own tests."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db6"
        "6cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc"
        "76897040e082f937763848645e0705"
    )
    box = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7"
        "f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61"
        "ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
    )
    assert seal_box(key, nonce, message) == box
    assert open_box(key, nonce, box) == message


def test_secretbox_of_many_blocks() -> None:
    """NaCl's own test of the stream (stream3 of its tests, 4 MiB) by its digest."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    stream = secretbox._stream(key, nonce, 4194304)
    assert hashlib.sha256(stream).hexdigest() == "662b9d0e3463029156069b12f918691a98f7dfb2ca0393c96bbfc6b1fbd630a2"
    for length in (0, 1, 63, 64, 65, 1000):
        assert secretbox._stream(key, nonce, length) == stream[:length]


@pytest.mark.parametrize("provider", sorted(CIPHERS))
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_there_and_back(provider: str, size: int) -> None:
    """Of any length; never the same bytes twice; a wrong key, a changed byte or a cut are seen, by all but AES-CBC."""
    cipher = CIPHERS[provider](os.urandom(32), os.urandom)
    value = os.urandom(size)
    sealed = cipher.seal(value, b"here")
    assert cipher.unseal(sealed, b"here") == value
    assert cipher.seal(value, b"here") != sealed
    with pytest.raises(Tampered):
        cipher.unseal(sealed[:10], b"here")
    if provider == "aescbc":
        return
    broken = sealed[:-1] + bytes([sealed[-1] ^ 1])
    with pytest.raises(Tampered):
        cipher.unseal(broken, b"here")
    with pytest.raises(Tampered):
        CIPHERS[provider](os.urandom(32), os.urandom).unseal(sealed, b"here")
    if provider == "aesgcm":
        with pytest.raises(Tampered):
            cipher.unseal(sealed, b"there")


def document(*providers: object, resources: object = ("secrets",)) -> dict[str, object]:
    group = {"resources": list(resources), "providers": list(providers)}  # type: ignore[call-overload]
    return {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": [group]}


SECRET = "A" * 43 + "="


def keys(*names: str, secret: str = SECRET) -> dict[str, object]:
    return {"aescbc": {"keys": [{"name": name, "secret": secret} for name in names]}}


def test_the_first_key_seals_and_all_unseal() -> None:
    """Values carry upstream's prefix; other kinds stay plain; a missing key is named."""
    ring = Keyring(parse(document(keys("one"), {"identity": {}})), os.urandom)
    sealed = ring.seal(PLACE, b"value")
    assert sealed.startswith(b"k8s:enc:aescbc:v1:one:") and ring.sealed_by(PLACE, sealed)
    assert ring.unseal(PLACE, sealed) == b"value" == ring.unseal(PLACE, b"value")
    assert ring.seal("/registry/core/configmaps/default/a", b"value") == b"value"
    ring.replace(parse(document({"identity": {}}, keys("one"))))
    assert ring.seal(PLACE, b"value") == b"value" and ring.unseal(PLACE, sealed) == b"value"
    assert not ring.sealed_by(PLACE, sealed) and ring.sealed_by(PLACE, b"value")
    ring.replace(parse(document(keys("two"))))
    with pytest.raises(Unreadable, match=f"{PLACE} is encrypted with the key one of aescbc, which .* put the key back"):
        ring.unseal(PLACE, sealed)


@pytest.mark.parametrize(
    ("names", "key", "sealed"),
    [
        (["*.*"], PLACE, True),
        (["*."], PLACE, True),
        (["*."], "/registry/apps/deployments/a/b", False),
        (["*.apps"], "/registry/apps/deployments/a/b", True),
        (["deployments.apps"], "/registry/apps/deployments/a/b", True),
        (["deployments"], "/registry/apps/deployments/a/b", False),
        (["things.example.com"], "/registry/example.com/things/a", True),
    ],
)
def test_which_kinds(names: list[str], key: str, sealed: bool) -> None:
    """By name, by group, or all of them."""
    ring = Keyring(parse(document(keys("one"), resources=names)), os.urandom)
    assert ring.seal(key, b"value").startswith(b"k8s:enc:") is sealed


def test_a_key_is_never_shown() -> None:
    """Not by accident either: `repr` is what logs show."""
    assert "xxx" not in repr(Key("aescbc", "a", b"x" * 32))
