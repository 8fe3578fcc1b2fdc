"""Static pods from manifests, their mirrors, and the text of containerd's configuration."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from k3s.kubelet import static
from k3s.kubelet.containerd import ContainerdConfig, config_text

MANIFEST = "kind: Pod\nmetadata: {name: web, labels: {a: b}}\nspec: {containers: [{name: c, image: busybox}]}\n"


def test_a_manifest_becomes_a_pod():
    """Named for the node, with a uid from its content, defaults, and a toleration of everything."""
    made = static.from_manifest(MANIFEST, "n1", "/m/web.yaml", 0.0)
    assert made["metadata"]["name"] == "web-n1" and made["metadata"]["namespace"] == "default"
    assert made["metadata"]["uid"] == made["metadata"]["annotations"]["kubernetes.io/config.hash"]
    assert made["spec"]["nodeName"] == "n1" and made["spec"]["restartPolicy"] == "Always"
    assert (
        static.from_manifest(MANIFEST + "# x", "n1", "/m/web.yaml", 9.0)["metadata"]["uid"] == made["metadata"]["uid"]
    )
    assert static.from_manifest(MANIFEST, "n2", "/m/web.yaml", 0.0)["metadata"]["uid"] != made["metadata"]["uid"]


@pytest.mark.parametrize("text", ["", "[", "kind: Service", "kind: Pod\nspec: {containers: []}\nmetadata: {name: x}"])
def test_a_bad_manifest_is_named(text):
    """The error names the file."""
    with pytest.raises(ValueError, match=r"Cannot run the static pod of /m/x\.yaml"):
        static.from_manifest(text, "n1", "/m/x.yaml", 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "kind: Pod\nmetadata: [1]\nspec: {containers: [{name: c, image: b}]}",
        "kind: Pod\nmetadata: {name: x}\nspec: {containers: [1]}",
        "kind: Pod\nmetadata: {name: x}\nspec: {containers: {a: b}}",
        "kind: Pod\nmetadata: {name: x}\nspec: {containers: [{image: b}]}",
        "kind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c, image: b}], tolerations: 5}",
        "kind: Pod\nmetadata: {name: ../../x}\nspec: {containers: [{name: c, image: b}]}",
    ],
)
def test_a_manifest_of_another_shape_is_refused(text):
    """What the API server would refuse does not reach the pod workers, which believe what pods say."""
    with pytest.raises(ValueError, match=r"Cannot run the static pod of /m/x\.yaml"):
        static.from_manifest(text, "n1", "/m/x.yaml", 0.0)


def test_a_mirror():
    """The mirror carries the hash and is recognised."""
    made = static.mirror_of(static.from_manifest(MANIFEST, "n1", "/m", 0.0), "node-uid")
    assert static.is_mirror(made) and "uid" not in made["metadata"]
    assert made["metadata"]["ownerReferences"][0]["kind"] == "Node"


def test_containerd_configuration():
    """The file is TOML with what k3s sets."""
    config = ContainerdConfig(
        Path("/d/containerd"), Path("/d/etc/config.toml"), Path("/d/net.d"), runc="crun", handlers={"crun": "/x/crun"}
    )
    found = tomllib.loads(config_text(config, snapshotter="native", restrict_oom=True))
    cri = found["plugins"]["io.containerd.grpc.v1.cri"]
    assert found["root"] == "/d/containerd" and found["grpc"]["address"] == "/run/k3s/containerd/containerd.sock"
    assert cri["containerd"]["runtimes"]["crun"]["options"]["BinaryName"] == "/x/crun"
    assert cri["stream_server_port"] == "10010" and cri["restrict_oom_score_adj"] is True
    assert cri["containerd"]["snapshotter"] == "native" and cri["cni"]["conf_dir"] == "/d/net.d"
    assert cri["containerd"]["runtimes"]["runc"]["options"]["BinaryName"] == "crun"
