"""Kubeconfig files as kubectl writes and reads them."""

from __future__ import annotations

from pathlib import PurePath

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from k3s.client.kubeconfig import Kubeconfig, load, render

FULL = Kubeconfig("https://127.0.0.1:6443", ca_pem="CA\n", cert_pem="CERT\n", key_pem="KEY\n")


def test_the_text_is_the_one_users_of_k3s_know():
    assert render(FULL) == (
        "apiVersion: v1\n"
        "clusters:\n"
        "- cluster:\n"
        "    certificate-authority-data: Q0EK\n"
        "    server: https://127.0.0.1:6443\n"
        "  name: default\n"
        "contexts:\n"
        "- context:\n"
        "    cluster: default\n"
        "    user: default\n"
        "  name: default\n"
        "current-context: default\n"
        "kind: Config\n"
        "preferences: {}\n"
        "users:\n"
        "- name: default\n"
        "  user:\n"
        "    client-certificate-data: Q0VSVAo=\n"
        "    client-key-data: S0VZCg==\n"
    )


TEXT = st.text("ab1 :#'\"\\\n\té-[]{}&*!|>%@`=", max_size=12)


@given(pem=TEXT, file=st.text("abc/. :'\"#é", max_size=10), token=TEXT, port=st.integers(1, 65535))
def test_what_was_written_is_read_back(pem, file, token, port):
    config = Kubeconfig(f"https://[::1]:{port}", ca_pem=pem, cert_file=file, key_file=file, token=token)
    text = render(config)
    assert yaml.safe_load(text)["current-context"] == "default"
    assert load(text) == config


def test_paths_are_relative_to_the_file():
    text = render(Kubeconfig("https://x", ca_file="ca.crt", cert_file="/abs/c.crt"))
    config = load(text, PurePath("/etc/k"))
    assert (config.ca_file, config.cert_file) == ("/etc/k/ca.crt", "/abs/c.crt")


def test_the_current_context_decides():
    document = {
        "current-context": "two",
        "clusters": [{"name": n, "cluster": {"server": f"https://{n}"}} for n in ("a", "b")],
        "contexts": [
            {"name": "one", "context": {"cluster": "a", "user": "u"}},
            {"name": "two", "context": {"cluster": "b", "user": "u", "namespace": "kube-system"}},
        ],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }
    config = load(yaml.safe_dump(document))
    assert config == Kubeconfig("https://b", token="secret", namespace="kube-system")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "Cannot read"),
        ("- a", "no mapping"),
        ("current-context: x", "contexts has no entry named 'x'"),
        (render(FULL).replace("server:", "serve:"), "server is missing"),
        (render(FULL).replace("Q0EK", "'*'"), "certificate-authority-data"),
    ],
)
def test_what_is_wrong_is_named(text, words):
    with pytest.raises(ValueError, match=words):
        load(text)
