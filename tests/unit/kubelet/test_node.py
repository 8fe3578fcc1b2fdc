"""The Node object: registration, status, conditions; pressure; the machine's resolver."""

from __future__ import annotations

import pytest
from tests.unit.kubelet.pods import pod, spec

from k3s.kubelet import eviction, machine, node
from k3s.kubelet.eviction import Signal
from k3s.kubelet.machine import Machine
from k3s.kubelet.node import Identity, Room
from k3s.kubelet.runtime.interface import Image, Readiness, Version

IDENTITY = Identity("n1", ("192.0.2.1",), labels={"a": "b"}, annotations={"k3s.io/x": "y"}, version="v1.36.2+k3s1")
MACHINE = Machine(4, 8 << 30, "m", "s", "b", "6.1", "Debian", "amd64")
ROOM = Room(110, 100 << 30, 5 << 30, {"cpu": 500, "memory": 1 << 30})


def status(readiness=None, pressure=frozenset(), now=0.0, old=None):
    """The status of the node."""
    ready = readiness or Readiness(True, True)
    runtime = Version("containerd", "1.6")
    stored = [Image("1", ("a:1",), size=5), Image("2", size=9)]
    return node.node_status(IDENTITY, MACHINE, ROOM, runtime, ready, stored, set(pressure), now, old or {})


def test_status():
    """Amounts, addresses, images with names, and who we are."""
    made = status()
    assert made["capacity"]["memory"] == "8388608Ki" and made["capacity"]["pods"] == "110"
    assert made["allocatable"]["cpu"] == "3500m" and made["allocatable"]["memory"] == "7340032Ki"
    assert made["addresses"][0] == {"type": "InternalIP", "address": "192.0.2.1"}
    assert made["images"] == [{"names": ["a:1"], "sizeBytes": 5}]
    assert made["nodeInfo"]["containerRuntimeVersion"] == "containerd://1.6"


def test_conditions():
    """Ready follows the runtime; pressure is told; times change only with the status."""
    first = status(now=0)
    second = status(now=60, old=first)
    assert not node.differs(first, second)
    third = status(Readiness(True, False, "cni plugin not initialized"), {"DiskPressure"}, 120, second)
    assert node.differs(second, third)
    found = {c["type"]: c for c in third["conditions"]}
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "KubeletNotReady")
    assert found["Ready"]["message"] == "cni plugin not initialized"
    assert found["DiskPressure"]["reason"] == "KubeletHasDiskPressure"
    assert found["MemoryPressure"]["lastTransitionTime"] == "1970-01-01T00:00:00Z"


def test_registration_and_reconciliation():
    """A new Node has labels, annotations and an id; an old one gets only what differs."""
    made = node.registration(IDENTITY, MACHINE, {})
    assert made["spec"]["providerID"] == "k3s://n1" and made["metadata"]["labels"]["a"] == "b"
    assert node.reconcile(made, IDENTITY, MACHINE) == {}
    del made["metadata"]["labels"]["kubernetes.io/arch"]
    assert node.reconcile(made, IDENTITY, MACHINE) == {"metadata": {"labels": {"kubernetes.io/arch": "amd64"}}}


def test_pressure_and_its_end():
    """A threshold is a share or an amount; a condition stays for five minutes after its signal is well."""
    signals = {"nodefs.available": Signal(100, 4), "memory.available": Signal(1 << 30, 200 << 20)}
    assert eviction.pressed(signals, {"nodefs.available": "5%", "memory.available": "100Mi"}) == {"DiskPressure"}
    seen, shown = eviction.conditions({}, {"DiskPressure"}, 0)
    assert shown == {"DiskPressure"}
    assert eviction.conditions(seen, set(), 299)[1] == {"DiskPressure"}
    assert eviction.conditions(seen, set(), 300)[1] == set()


def test_the_victim():
    """Beyond its request first, then by priority, then by how much; critical pods stay."""

    def one(name, priority=0, request="0"):
        container = spec(resources={"requests": {"memory": request}})
        return pod(container, meta={"name": name, "uid": name}, priority=priority)

    pods = [one("small", request="1Gi"), one("big"), one("bigger"), one("dear", 1000), one("system", 2_000_000_000)]
    used = {"small": 1, "big": 10, "bigger": 20, "dear": 99, "system": 999}
    order = []
    while (found := eviction.victim(pods, used, "MemoryPressure")) is not None:
        order.append(found[0]["metadata"]["name"])
        pods.remove(found[0])
    assert order == ["bigger", "big", "dear", "small"]


def test_thresholds_are_parsed():
    """The flag's form; what is wrong is named."""
    assert eviction.parse("imagefs.available<5%,memory.available<100Mi") == {
        "imagefs.available": "5%",
        "memory.available": "100Mi",
    }
    with pytest.raises(ValueError, match="'nodefs>5%'"):
        eviction.parse("nodefs>5%")


def test_resolver():
    """Servers, the last search line, options; comments are skipped."""
    text = "# x\nnameserver 1.1.1.1\nsearch a b\nsearch c . \noptions ndots:2\nnameserver ::1 ; y\n"
    assert machine.resolver_of(text) == machine.Resolver(("1.1.1.1", "::1"), ("c",), ("ndots:2",))


def test_this_machine():
    """The facts of the machine that runs the test are plausible."""
    found = machine.read()
    assert found.cpus > 0 and found.memory_bytes > 1 << 28 and found.kernel
    assert machine.memory_available() > 0 and machine.pids()[0] > machine.pids()[1] > 0
