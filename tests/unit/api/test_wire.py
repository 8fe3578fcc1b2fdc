"""The protobuf form of objects."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s.api import wire
from k3s.api.errors import BadRequest, NotAcceptable
from k3s.api.wiretables import BYTES, INLINE, REPEATED, SCALARS, fields

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "a",
        "creationTimestamp": "2020-01-01T00:00:00Z",
        "labels": {"b": "2", "a": "1"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": False}],
        "managedFields": [{"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {".": {}}}}],
    },
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "securityContext": {},
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c", "defaultMode": 0}}],
        "containers": [
            {
                "name": "c",
                "image": "i",
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": "http"}, "terminationGracePeriodSeconds": 0},
                "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": False}}}],
            }
        ],
        "ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "c", "resources": {}}],
    },
    "status": {},
}

EXAMPLES: list[dict[str, Any]] = [
    POD,
    {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {"name": "s"},
        "data": {"k": base64.b64encode(b"\0\xff").decode()},
    },
    {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": "l"},
        "spec": {"holderIdentity": "", "renewTime": "2020-01-01T00:00:00.123456Z", "leaseDurationSeconds": 15},
    },
    {
        "kind": "SubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": {"user": "u", "extra": {"a": ["x", "y"]}},
        "status": {"allowed": False},
    },
    {
        "kind": "CustomResourceDefinition",
        "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "x"},
        "spec": {
            "group": "g",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": False,
                            "additionalProperties": False,
                            "properties": {
                                "a": {"type": "array", "items": {"type": "string", "default": None}, "minItems": 0},
                                "b": {"additionalProperties": {"type": "string"}, "enum": [1, "x", None]},
                            },
                        }
                    },
                }
            ],
        },
    },
    {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "5", "remainingItemCount": 0},
        "items": [{"metadata": {"name": "a"}}],
    },
    {"kind": "DeleteOptions", "apiVersion": "apps/v1", "gracePeriodSeconds": 0, "propagationPolicy": "Background"},
    {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "details": {"name": "x"}},
]


def _null_defaults(value: Any) -> Any:
    """JSON null as a schema default is not kept: upstream decodes it to no default as well."""
    if isinstance(value, dict):
        return {k: _null_defaults(v) for k, v in value.items() if not (k == "default" and v is None)}
    return [_null_defaults(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("obj", EXAMPLES, ids=lambda o: o["kind"])
def test_there_and_back(obj: dict[str, Any]) -> None:
    """What is given stays: zeros behind pointers, empty messages, every special type. Equal objects, equal bytes."""
    data = wire.encode(obj)
    again = wire.decode(data)
    assert again == _null_defaults(obj)
    assert wire.encode(again) == wire.encode(_null_defaults(obj))


def test_zeros_without_pointer_are_not_given() -> None:
    """Go sends every field that is no pointer; its zero is what JSON leaves out."""
    sent = {**POD, "spec": {"hostNetwork": False, "nodeName": "", "restartPolicy": "", "containers": []}}
    assert wire.decode(wire.encode(sent))["spec"] == {}
    service = {"kind": "Service", "apiVersion": "v1", "spec": {"ports": [{"port": 80, "targetPort": 0, "nodePort": 0}]}}
    assert wire.decode(wire.encode(service))["spec"] == {"ports": [{"port": 80}]}


#: Bodies that kubectl 1.37 sent for `create deployment d --image=nginx --replicas=2 --port 80`, for
#: `auth can-i get pods` and for `create pdb p --selector=a=b --min-available=50%`.
RECORDED = {
    "azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50ErABChsKAWQSABoAIgAqADIAOABCAFoICgNhcHASAWQSggEIAhIKCggKA2FwcBIBZBpqChoKABIA"
    "GgAiACoAMgA4AEIAWggKA2FwcBIBZBJMEi4KBW5naW54EgVuZ2lueCoAMgoKABAAGFAiACoAQgBqAHIAgAEAiAEAkAEAogEAGgAyAEIASgBSAFgA"
    "YABoAIIBAIoBAJoBAMIBACICCgAoADgAGgwIABAAGAAgACgAOAAaACIA": {
        "kind": "Deployment",
        "apiVersion": "apps/v1",
        "metadata": {"name": "d", "labels": {"app": "d"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {
                    "containers": [
                        {"name": "nginx", "image": "nginx", "ports": [{"containerPort": 80}], "resources": {}}
                    ]
                },
            },
            "strategy": {},
        },
        "status": {},
    },
    "azhzAAoyChdhdXRob3JpemF0aW9uLms4cy5pby92MRIXU2VsZlN1YmplY3RBY2Nlc3NSZXZpZXcSPAoQCgASABoAIgAqADIAOABCABIeChwKB2Rl"
    "ZmF1bHQSA2dldBoAIgAqBHBvZHMyADoAGggIABIAGgAgABoAIgA=": {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}},
        "status": {"allowed": False},
    },
    "azhzAAogCglwb2xpY3kvdjESE1BvZERpc3J1cHRpb25CdWRnZXQSNgoRCgFwEgAaACIAKgAyADgAQgASFQoJCAEQABoDNTAlEggKBgoBYRIBYhoK"
    "CAAYACAAKAAwABoAIgA=": {
        "kind": "PodDisruptionBudget",
        "apiVersion": "policy/v1",
        "metadata": {"name": "p"},
        "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
    },
}


@pytest.mark.parametrize("text", RECORDED, ids=lambda text: str(len(text)))
def test_recorded_bodies(text: str) -> None:
    """Bodies as kubectl sends them mean what kubectl would have sent as JSON."""
    found = wire.decode(base64.b64decode(text))
    wanted = RECORDED[text]
    if found["kind"] == "PodDisruptionBudget":
        # The zeros of a status are there or not, which says the same.
        found = {**found, "status": {**wanted["status"], **found["status"]}}
    assert found == wanted


def test_a_body_byte_for_byte() -> None:
    """A small body with all parts of the envelope, and one without a type, which the caller then names."""
    meta = b"\x0a\x02v1\x12\x0dDeleteOptions"
    raw = b"\x08\x00\x22\x0aBackground"
    body = b"k8s\0" + b"\x0a" + bytes([len(meta)]) + meta + b"\x12" + bytes([len(raw)]) + raw + b"\x1a\0\x22\0"
    obj = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "propagationPolicy": "Background"}
    assert wire.decode(body) == obj
    assert wire.encode(obj) == body
    assert wire.decode(b"k8s\0\x12" + bytes([len(raw)]) + raw, "v1", "DeleteOptions") == obj


def test_watch_events() -> None:
    """A frame is its length in four bytes, then an event that embeds the object with its envelope."""
    frame = wire.watch_event("ADDED", POD)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert b"ADDED" in frame[:16]
    assert wire.encode(POD) in frame


def test_kinds_without_a_message() -> None:
    """Custom kinds and tables cannot be shown as protobuf, and bodies of them cannot be read."""
    assert not wire.supports("example.com/v1", "Widget")
    assert not wire.supports("apps.example.com/v1", "Deployment")
    with pytest.raises(NotAcceptable):
        wire.encode({"apiVersion": "example.com/v1", "kind": "Widget"})
    with pytest.raises(BadRequest, match="no kind"):
        wire.decode(b"k8s\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"k8s\0\xff",
        b"k8s\0\x0a\x05ab",
        b"k8s\0\x0b",
        b"k8s\0\x00",
        b"k8s\0" + b"\x80" * 20,
        wire.encode(POD)[:-40],
    ],
)
def test_broken_bodies(data: bytes) -> None:
    """Bytes that are no body are a BadRequest."""
    with pytest.raises(BadRequest):
        wire.decode(data)


def test_depth_is_bounded() -> None:
    """A body that nests without end is refused before it exhausts the stack."""
    schema: dict[str, Any] = {}
    for _ in range(100):
        schema = {"not": schema}
    spec = {"versions": [{"schema": {"openAPIV3Schema": schema}}]}
    body = {"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "spec": spec}
    with pytest.raises(BadRequest, match="too deeply"):
        wire.decode(wire.encode(body))


SAMPLES = {
    "string": st.text(alphabet="abé", min_size=1, max_size=4),
    "bool": st.just(True),
    "int32": st.integers(-(2**31), 2**31 - 1).filter(bool),
    "int64": st.integers(-(2**63), 2**63 - 1).filter(bool),
    "double": st.floats(0.5, 8.0),
    "bytes": st.binary(min_size=1, max_size=3).map(lambda b: base64.b64encode(b).decode()),
    "meta.v1.Time": st.just("2020-02-03T04:05:06Z"),
    "meta.v1.MicroTime": st.just("2020-02-03T04:05:06.000007Z"),
    "meta.v1.Duration": st.sampled_from(["1s", "-1m0s", "1.5s"]),
    "api.resource.Quantity": st.sampled_from(["1", "100m", "1Gi"]),
    "util.intstr.IntOrString": st.sampled_from([80, -1, "http", "25%"]),
}
WITHOUT_SAMPLES = ("pkg.runtime.RawExtension", "meta.v1.FieldsV1", "apiextensions.v1.JSON")


@st.composite
def messages(draw: st.DrawFn, message: str, depth: int = 0) -> dict[str, Any]:
    """An object with some fields of a message filled in."""
    out: dict[str, Any] = {}
    for field in fields(message):
        if field.flags & INLINE:
            out |= draw(messages(field.type, depth + 1))
        elif depth < 4 and draw(st.integers(0, 3)) == 0:
            kind = field.type.removeprefix("map:")
            if kind in WITHOUT_SAMPLES:
                inner: st.SearchStrategy[Any] = st.fixed_dictionaries({"x": st.integers()})
            elif kind.endswith("ExtraValue"):
                inner = st.just(["e"])
            elif "JSONSchemaProps" in kind:
                inner = st.just({"type": "object"})
            else:
                inner = SAMPLES[kind] if kind in SAMPLES else messages(kind, depth + 1)
            value = draw(inner)
            if "OrStringArray" in kind:
                value = ["s"]
            if field.type.startswith("map:"):
                value = {"k": value}
            elif field.flags & REPEATED:
                value = [value]
            out[field.name] = value
    return out


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_object_survives(data: st.DataObject) -> None:
    """JSON to protobuf and back gives the same object, for every kind of message."""
    kinds = [("v1", "Pod"), ("v1", "Service"), ("v1", "Node"), ("v1", "PersistentVolume"), ("apps/v1", "Deployment")]
    kinds += [("batch/v1", "CronJob"), ("networking.k8s.io/v1", "Ingress"), ("v1", "Event"), ("v1", "Namespace")]
    kinds += [
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ]
    api_version, kind = data.draw(st.sampled_from(kinds))
    group, _, version = api_version.rpartition("/")
    obj = data.draw(messages(f"{group.split('.')[0] or 'core'}.{version}.{kind}"))
    obj |= {"apiVersion": api_version, "kind": kind}
    assert wire.decode(wire.encode(obj)) == obj


BODY = wire.encode(POD)


@settings(max_examples=300)
@given(st.integers(4, len(BODY) - 1), st.binary(max_size=6), st.integers(0, 20))
def test_damaged_bodies(at: int, junk: bytes, cut: int) -> None:
    """However a body is damaged, it is read or refused with BadRequest."""
    try:
        wire.decode(BODY[:at] + junk + BODY[at + cut :])
    except BadRequest as error:
        assert error.message.startswith("cannot decode the protobuf body")


def test_scalars_have_wire_types() -> None:
    """Every type of the tables is a known scalar, a special type or another message."""
    assert SCALARS["string"] == BYTES
    for message in ("core.v1.PodSpec", "core.v1.ServiceSpec", "apps.v1.DeploymentSpec"):
        for field in fields(message):
            kind = field.type.removeprefix("map:")
            assert kind in SCALARS or fields(kind) is not None
