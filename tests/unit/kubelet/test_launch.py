"""What the runtime is told to make of a pod."""

from __future__ import annotations

import pytest
from tests.unit.kubelet.pods import pod, spec

from k3s.kubelet import launch
from k3s.kubelet.launch import ConfigError, Mount, NodeFacts
from k3s.kubelet.runtime.interface import Image

FACTS = NodeFacts(
    name="n1",
    addresses=("192.0.2.1",),
    memory_bytes=8 << 30,
    allocatable={},
    cluster_dns=("10.43.0.10",),
    resolv_servers=("192.0.2.53",),
    resolv_searches=("example.com",),
)
IMAGE = Image("sha256:1", uid=None)


def config(one, container, image=IMAGE, **more):
    """The ContainerConfig."""
    return launch.container_config(
        one,
        container,
        attempt=2,
        image=image,
        environment={"A": "1"},
        mounts=[Mount("/d", "/h", True)],
        facts=FACTS,
        **more,
    )


def test_a_sandbox():
    """Names, labels, log folder, cgroup, resolver, host name and ports."""
    container = spec(ports=[{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}])
    made = launch.sandbox_config(pod(container, meta={"labels": {"a": "b"}}), FACTS, 3)
    assert made["metadata"]["attempt"] == 3 and made["hostname"] == "web"
    assert made["labels"]["a"] == "b" and made["labels"]["io.kubernetes.pod.name"] == "web"
    assert made["log_directory"] == f"/var/log/pods/default_web_{made['metadata']['uid']}"
    assert made["linux"]["cgroup_parent"].startswith("/kubepods/besteffort/pod")
    assert [(p["container_port"], p["host_port"]) for p in made["port_mappings"]] == [(80, 8080)]
    assert made["linux"]["security_context"]["namespace_options"] == {
        "network": "POD",
        "ipc": "POD",
        "pid": "CONTAINER",
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, (["10.43.0.10"], ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"])),
        ({"hostNetwork": True}, (["192.0.2.53"], ["example.com"])),
        ({"dnsPolicy": "Default"}, (["192.0.2.53"], ["example.com"])),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"]}}, (["1.1.1.1"], ["x"])),
    ],
)
def test_resolver(more, expected):
    """The DNS policy chooses servers and search domains."""
    made = launch.dns(pod(**more), FACTS)
    assert (made["servers"], made["searches"]) == expected


def test_a_container():
    """Command, variables, mounts, labels and the log; $(A) is expanded."""
    made = config(pod(), spec(command=["run", "$(A)"], args=["$(B)"], workingDir="/w", stdin=True))
    assert made["command"] == ["run", "1"] and made["args"] == ["$(B)"] and made["working_dir"] == "/w"
    assert made["envs"] == [{"key": "A", "value": b"1"}]
    assert made["mounts"][0]["container_path"] == "/d" and made["mounts"][0]["readonly"]
    assert made["log_path"] == "main/2.log" and made["metadata"] == {"name": "main", "attempt": 2}
    assert made["annotations"]["io.kubernetes.container.restartCount"] == "2"
    assert made["linux"]["security_context"]["masked_paths"]


def test_security():
    """The container's settings go before the pod's; privileges and capabilities are passed on."""
    one = pod(spec(), securityContext={"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]})
    made = launch.security_context(one, spec(securityContext={"runAsUser": 5}), FACTS, IMAGE)
    assert made["run_as_user"] == {"value": 5} and made["run_as_group"] == {"value": 2}
    assert made["supplemental_groups"] == [4, 3]
    wanted = {"capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["all"]}, "allowPrivilegeEscalation": False}
    made = launch.security_context(pod(), spec(securityContext=wanted), FACTS, IMAGE)
    assert made["capabilities"] == {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["ALL"]}
    assert made["no_new_privs"] and made["seccomp"] == {"profile_type": "Unconfined"}
    made = launch.security_context(pod(), spec(securityContext={"privileged": True}), FACTS, IMAGE)
    assert made["privileged"] and "masked_paths" not in made
    profile = {"seccompProfile": {"type": "RuntimeDefault"}}
    made = launch.security_context(pod(spec(), securityContext=profile), spec(), FACTS, IMAGE)
    assert made["seccomp"] == {"profile_type": "RuntimeDefault"}


@pytest.mark.parametrize(
    ("user", "image", "ok"),
    [
        (5, IMAGE, True),
        (0, IMAGE, False),
        (None, Image("x", uid=7), True),
        (None, Image("x", uid=0), False),
        (None, Image("x", username="app"), False),
        (None, IMAGE, False),
    ],
)
def test_run_as_non_root(user, image, ok):
    """runAsNonRoot lets only users start that are known not to be root."""
    context = {"runAsNonRoot": True, **({"runAsUser": user} if user is not None else {})}
    if ok:
        config(pod(), spec(securityContext=context), image)
    else:
        with pytest.raises(ConfigError, match="root"):
            config(pod(), spec(securityContext=context), image)


def test_hosts():
    """A pod's own line, its aliases, and the full name with a subdomain."""
    one = pod(spec(), subdomain="sub", hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}])
    text = launch.hosts_file(one, ("10.42.0.2",), FACTS)
    assert "10.42.0.2\tweb.sub.default.svc.cluster.local\tweb\n" in text
    assert text.endswith("1.2.3.4\ta\tb\n")


def test_the_hash_follows_image_and_name():
    """Only what needs a new container changes the hash."""
    assert launch.container_hash(spec(env=[1])) == launch.container_hash(spec())
    assert launch.container_hash(spec(image="other")) != launch.container_hash(spec())
