"""Environment variables from all their sources."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kubelet.pods import UID, pod, spec

from k3s.kubelet.environment import VariableError, environment, expand, lines, references, service_variables

SERVICES = [
    {
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"clusterIP": "10.43.0.1", "ports": [{"name": "https", "port": 443}]},
    },
    {
        "metadata": {"name": "my-db", "namespace": "shop"},
        "spec": {"clusterIP": "10.43.0.9", "ports": [{"port": 5432, "protocol": "TCP"}]},
    },
    {"metadata": {"name": "headless", "namespace": "shop"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
]
MAPS = {("shop", "c"): {"data": {"a": "1", "bad key=": "x", "b.c": "2"}}}
SECRETS = {("shop", "s"): {"data": {"p": "cGFzcw=="}}}
NODE = {"spec.nodeName": "n1", "status.podIP": "10.42.0.2", "status.hostIP": "192.0.2.1"}


def made(container, **more):
    """The variables of a container in the namespace shop, without those of services."""
    one = pod(container, meta={"namespace": "shop", "labels": {"app": "x"}}, **more)
    found = environment(
        one,
        container,
        config_map=lambda ns, n: MAPS.get((ns, n)),
        secret=lambda ns, n: SECRETS.get((ns, n)),
        services=SERVICES,
        node=NODE,
        allocatable={},
    )
    return {k: v for k, v in found.items() if "_SERVICE_" not in k and "_PORT" not in k}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("a$(A)b$(B)", "a1b2"),
        ("$", "$"),
        ("$(A", "$(A"),
        ("$$$(A)", "$1"),
    ],
)
def test_expansion(text, expected):
    """$(NAME) is replaced when it is known; $$ is one dollar."""
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet="abc (){}", max_size=20))
def test_text_without_dollars_stays(text):
    """Only dollars mean anything."""
    assert expand(text, {"a": "x"}) == text


def test_all_sources():
    """Values, references, fields; a later variable sees the earlier ones and replaces those of envFrom."""
    container = spec(
        envFrom=[{"configMapRef": {"name": "c"}, "prefix": "P_"}, {"secretRef": {"name": "s"}}],
        env=[
            {"name": "X", "value": "1"},
            {"name": "Y", "value": "$(X)$(P_a)$(MY_DB_SERVICE_HOST)"},
            {"name": "Z", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "a"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
            {"name": "U", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "a", "optional": True}}},
        ],
    )
    assert made(container) == {
        "P_a": "1",
        "P_b.c": "2",
        "p": "pass",
        "X": "1",
        "Y": "1110.43.0.9",
        "Z": "1",
        "S": "pass",
        "U": UID,
        "L": "x",
        "N": "n1",
    }


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "a"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "s", "key": "none"}}, "couldn't find key none in Secret shop/s"),
    ],
)
def test_what_is_missing_is_named(variable, message):
    """A source that is needed and missing is an error that names it."""
    with pytest.raises(VariableError, match=message):
        made(spec(env=[{"name": "X", "valueFrom": variable}]))


def test_service_variables():
    """Services of the namespace, and always the API server; headless ones have none."""
    found = service_variables(SERVICES, "shop", links=True)
    assert found["MY_DB_SERVICE_HOST"] == "10.43.0.9" and found["MY_DB_SERVICE_PORT"] == "5432"
    assert found["MY_DB_PORT_5432_TCP_ADDR"] == "10.43.0.9" and found["MY_DB_PORT"] == "tcp://10.43.0.9:5432"
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert not any(name.startswith("HEADLESS") for name in found)
    assert all(name.startswith("KUBERNETES_") for name in service_variables(SERVICES, "shop", links=False))


def test_references_and_lines():
    """What a pod's variables need; labels as the downward API writes them."""
    one = pod(spec(envFrom=[{"secretRef": {"name": "s"}}]))
    assert references(one) == {("Secret", "s")}
    assert lines({"b": 'x"y', "a": "1"}) == 'a="1"\nb="x\\"y"'
