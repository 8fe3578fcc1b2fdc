"""What `k3s token` makes and prints."""

from __future__ import annotations

import base64
import re

import pytest

from k3s.base.entropy import SeededEntropy
from k3s.cli import token
from k3s.cli.token import generate, of_secret, secret, shown, table

NOW = 1_767_225_600.0


def test_a_token_and_its_secret() -> None:
    """The Secret says what the options say, and tells the same when it is listed."""
    made = secret(
        "abcdef.0123456789abcdef", "ci", ["system:bootstrappers:a", "system:bootstrappers:b"], ["signing"], 3600, NOW
    )
    assert made["metadata"] == {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}
    assert {key: base64.b64decode(text).decode() for key, text in made["data"].items()} == {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "description": "ci",
        "expiration": "2026-01-01T01:00:00Z",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": "system:bootstrappers:a,system:bootstrappers:b",
    }
    assert of_secret(made) == {
        "token": "abcdef.0123456789abcdef",
        "description": "ci",
        "expires": "2026-01-01T01:00:00Z",
        "usages": ["signing"],
        "groups": ["system:bootstrappers:a", "system:bootstrappers:b"],
    }
    assert "expiration" not in secret("abcdef.0123456789abcdef", "", [], [], 0, NOW)["data"]
    assert of_secret({"data": {"token-id": "YQ=="}}) is None
    found = {generate(SeededEntropy(seed)) for seed in range(20)}
    assert len(found) == 20 and all(re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", text) for text in found)


def test_the_table() -> None:
    """As kubeadm and k3s print it."""
    found = [
        {
            "token": "abcdef.0123456789abcdef",
            "expires": "2026-01-01T23:00:00Z",
            "usages": ["authentication", "signing"],
        },
        {"token": "bbbbbb.0123456789abcdef", "groups": ["system:bootstrappers:a"], "description": "ci"},
        {"token": "cccccc.0123456789abcdef", "expires": "2025-01-01T00:00:00Z"},
    ]
    assert [re.split(r" {3,}", line) for line in table(found, NOW).splitlines()] == [
        ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"],
        ["abcdef.0123456789abcdef", "23h", "2026-01-01T23:00:00Z", "authentication,signing", "<none>", "<none>"],
        ["bbbbbb.0123456789abcdef", "<forever>", "<never>", "<none>", "ci", "system:bootstrappers:a"],
        ["cccccc.0123456789abcdef", "<invalid>", "2025-01-01T00:00:00Z", "<none>", "<none>", "<none>"],
    ]
    assert {line.index(word) for line, word in zip(table(found, NOW).splitlines(), ("TTL", "23h"), strict=False)} == {
        26
    }
    assert shown(found[:1], "json").startswith('[\n  {\n    "token": "abcdef.0123456789abcdef"')
    assert shown(found[:1], "yaml").startswith("- token: abcdef.0123456789abcdef\n  expires: ")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("create", "ABCDEF.0123456789abcdef"), "six letters or digits"),
        (("create", "--groups=system:masters"), "begin with system:bootstrappers:"),
        (("create", "--usages=joining"), "'joining' for --usages"),
        (("create", "--ttl=long"), "'long' for --ttl"),
        (("create", "--ttl=-1h"), "for --ttl"),
        (("delete", "abc"), "its id of six letters"),
        (("rotate", "--data-dir=/nowhere"), "Cannot read /nowhere/server/token"),
        (("list", "--kubeconfig=/nowhere"), "Cannot use the kubeconfig /nowhere"),
    ],
)
def test_wrong_requests(capsys: pytest.CaptureFixture[str], tmp_path: object, words: tuple[str, ...], why: str) -> None:
    """One line that names what is wrong; nothing is asked of a server."""
    config = f"{tmp_path}/kc"
    with open(config, "w") as file:
        file.write(
            "clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1', certificate-authority: /nowhere}}]\n"
            "contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {token: t}}]\n"
            "current-context: a\n"
        )
    more = () if words[0] == "rotate" or words[-1].startswith("--kubeconfig") else (f"--kubeconfig={config}",)
    with pytest.raises(SystemExit):
        token.main([*words, *more])
    assert why in capsys.readouterr().err
