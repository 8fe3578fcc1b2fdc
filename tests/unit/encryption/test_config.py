"""What an EncryptionConfiguration may say: which key is for which kind, and what is wrong with one, by its field."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from k3s.apiserver.encryption.config import ConfigurationError, Key, keys_for, parse

SECRET = "A" * 43 + "="
IDENTITY: dict[str, Any] = {"identity": {}}


def document(*groups: tuple[list[str], list[Any]]) -> dict[str, Any]:
    resources = [{"resources": names, "providers": providers} for names, providers in groups]
    return {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": resources}


def keys(*names: str, secret: str = SECRET, provider: str = "aescbc") -> dict[str, Any]:
    return {provider: {"keys": [{"name": name, "secret": secret} for name in names]}}


def kms(**more: Any) -> dict[str, Any]:
    return {"kms": {"apiVersion": "v2", "name": "vault", "endpoint": "unix:///run/kms.sock", **more}}


def test_a_plugin() -> None:
    """Three seconds where nothing is said, as upstream."""
    (key,) = parse(document((["secrets"], [kms()])))["secrets"]
    assert key == Key("kms", "vault", socket="/run/kms.sock", timeout_s=3.0)
    assert key.prefix == b"k8s:enc:kms:v2:vault:"
    (key,) = parse(document((["secrets"], [kms(timeout="1500ms")])))["secrets"]
    assert key.timeout_s == 1.5


def test_the_nearest_rule_counts() -> None:
    """A kind's own keys, else its group's, else everybody's; several groups for one kind are joined, in order."""
    rules = parse(
        document(
            (["secrets", "things.example.com"], [keys("own"), IDENTITY]),
            (["secrets"], [keys("later", provider="aesgcm"), IDENTITY]),
            (["*.apps"], [keys("apps")]),
            (["*."], [keys("core")]),
            (["*.*"], [keys("all"), IDENTITY]),
        )
    )

    def names(resource: str) -> list[str]:
        return [key.name for key in keys_for(rules, resource)]

    assert names("secrets") == ["own", "", "later"]
    assert names("things.example.com") == ["own", ""]
    assert names("deployments.apps") == ["apps"]
    assert names("configmaps") == ["core"]
    assert names("jobs.batch") == ["all", ""]
    assert keys_for(parse(document((["secrets"], [keys("a")]))), "configmaps") == ()


A = (["secrets"], [keys("a")])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([], "it is no object"),
        ({"kind": "X"}, "it is no EncryptionConfiguration"),
        (document(), "resources: at least one is needed"),
        (document((["secrets"], [])), "resources[0].providers: at least one is needed"),
        (document(([], [IDENTITY])), "resources[0].resources: names of kinds are needed"),
        (document((["secrets"], [{"rot13": {}}])), "resources[0].providers[0].rot13: there is no such provider"),
        (document((["secrets"], [{**IDENTITY, **keys("a")}])), "resources[0].providers[0]: one provider is needed"),
        (document((["secrets"], [keys()])), "resources[0].providers[0].aescbc.keys: at least one"),
        (document((["secrets"], [keys("a:b")])), "keys[0].name: a name without colons"),
        (document((["secrets"], [keys("a", secret="?")])), "keys[0].secret: it is no base64"),
        (document((["secrets"], [keys("a", secret="AAAA")])), "keys[0].secret: 3 bytes where aescbc takes 16 or 24 or"),
        (document((["secrets"], [keys("a", "a")])), "two keys have the same provider and name"),
        (document(A, (["secrets"], [keys("a", secret="B" * 43 + "=")])), "two keys have the same provider and name"),
        (document((["Secrets"], [IDENTITY])), "should not contain capital letters"),
        (document((["secrets", "secrets"], [IDENTITY])), "the same resource cannot be specified multiple times"),
        (document((["secrets", "*."], [IDENTITY])), "using overlapping resources such as"),
        (document((["a.apps", "*.apps"], [IDENTITY])), "using overlapping resources such as"),
        (document((["a.apps", "*.*"], [IDENTITY])), "using overlapping resources such as"),
        (document((["*"], [IDENTITY])), "use '*.' to encrypt all the resources from core API group"),
        (document((["secrets.*"], [IDENTITY])), "encrypting the same resource across groups is not supported"),
        (document((["ingresses.extensions"], [IDENTITY])), "'extensions' group has been removed"),
        (document((["events.events.k8s.io"], [IDENTITY])), "Use 'events' instead in the config file"),
        (document((["serviceipallocations"], [IDENTITY])), "which do not have REST API/s cannot be encrypted"),
        (document((["*."], [IDENTITY]), A), 'resource "secrets" is masked by earlier rule "*."'),
        (document((["*.*"], [IDENTITY]), (["*.apps"], [IDENTITY])), '"*.apps" is masked by earlier rule "*.*"'),
        (
            document((["secrets"], [{"kms": None}])),
            "kms.name: Required value: name is a mandatory field",
        ),
        (document((["secrets"], [kms(apiVersion=None)])), "kms.apiVersion: KMSv1 is deprecated and switched off"),
        (document((["secrets"], [kms(apiVersion="v3")])), "only v1 and v2 are supported"),
        (document((["secrets"], [kms(name="a:b")])), "invalid KMS provider name a:b, must not contain ':'"),
        (document((["secrets"], [kms(), kms()])), 'providers[1].kms.name: Invalid value: "vault": duplicate KMS'),
        (document((["secrets"], [kms()]), (["a.b"], [kms()])), "names must be unique"),
        (document((["secrets"], [kms(cachesize=5)])), "kms.cachesize: Invalid value: 5: cachesize is not supported"),
        (
            document((["secrets"], [kms(timeout="0s")])),
            'kms.timeout: Invalid value: "0s": timeout should be',
        ),
        (document((["secrets"], [kms(timeout="soon")])), 'kms.timeout: time: invalid duration "soon"'),
        (document((["secrets"], [kms(endpoint="")])), 'kms.endpoint: Invalid value: "": endpoint is a mandatory'),
        (document((["secrets"], [kms(endpoint="tcp://x")])), 'unsupported scheme "tcp" for KMS provider, only unix'),
        (document((["secrets"], [kms(endpoint="unix://[")])), 'endpoint: Invalid value: "unix://[": invalid endpoint'),
        (document((["secrets"], [kms(endpoint="unix://")])), "use unix:///path/of/the/socket"),
        (document((["secrets"], [kms(endpoint="unix:///@kms")])), "use unix:///path/of/the/socket"),
        (document((["secrets"], [kms(cache=1)])), 'kms: unknown field "cache"'),
    ],
)
def test_a_wrong_configuration_is_named(given: object, text: str) -> None:
    """The text names the field."""
    with pytest.raises(ConfigurationError) as error:
        parse(given)
    assert text in str(error.value)


def test_who_encrypts_nothing_loads_nothing() -> None:
    """The server with its datastore, in a process of its own: neither ciphers nor plugins are there."""
    script = (
        "import sys; from pathlib import Path; from k3s.base.clock import SystemClock; import k3s.run.server; "
        "from k3s.run.atrest import AtRest; from k3s.store.memory import MemoryStore; "
        "from k3s.base.entropy import SystemEntropy; from k3s.apiserver.datastore import Datastore; "
        "made = AtRest(MemoryStore(), Path('/none'), SystemClock(), SystemEntropy()); "
        "assert not made.checks() and made.own is None and Datastore(made.store).is_stale is None; "
        "assert not [name for name in sys.modules if name.startswith('k3s.apiserver.encryption')]"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
