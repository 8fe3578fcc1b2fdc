"""What the kubelet tells about itself and its containers: metrics, resource metrics, the stats summary, configz.

Nothing is gathered in advance: each document is made when someone asks for it. Names as upstream's (facts: metrics).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from k3s.api import times
from k3s.api.object import Object, encode
from k3s.base.clock import Clock
from k3s.base.message import JSON
from k3s.base.metrics import Registry
from k3s.kubelet.host import Host
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Runtime, Usage
from k3s.kubelet.service import KubeletConfig

_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_RUNNING_LABEL = {cri.CREATED: "created", cri.RUNNING: "running", cri.EXITED: "exited", cri.UNKNOWN: "unknown"}

Document = tuple[str, bytes]


def configuration(config: KubeletConfig) -> Object:
    """A kubelet's configuration as KubeletConfiguration v1beta1 names its parts."""
    return {
        "address": "0.0.0.0",
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": list(config.cluster_dns),
        "clusterDomain": config.cluster_domain,
        "containerLogMaxFiles": config.log_max_files,
        "evictionHard": dict(config.eviction_hard),
        "healthzBindAddress": "127.0.0.1",
        "imageGCHighThresholdPercent": config.image_gc_high,
        "imageGCLowThresholdPercent": config.image_gc_low,
        "maxPods": config.max_pods,
        "podLogsDir": str(config.logs),
        "seccompDefault": config.seccomp_default,
        "staticPodPath": str(config.manifests or ""),
    }


class Pods(Protocol):
    """What is asked of the kubelet."""

    def pods(self) -> list[Object]:
        """The pods of this node with their statuses."""


class Documents:
    """`host` tells of the machine; `config` is what /configz shows."""

    def __init__(
        self, node: str, pods: Pods, runtime: Runtime, host: Host, clock: Clock, config: Mapping[str, object]
    ) -> None:
        self._node = node
        self._pods = pods
        self._runtime = runtime
        self._host = host
        self._clock = clock
        self._config = config

    def by_path(self) -> dict[str, Callable[[], Awaitable[Document]]]:
        """Each document by its path."""
        return {
            "/metrics": self.metrics,
            "/metrics/resource": self.resource_metrics,
            "/stats/summary": self.summary,
            "/configz": self.configz,
        }

    async def metrics(self) -> Document:
        """The kubelet's own figures. Raises RuntimeFailure."""
        registry = Registry()
        registry.gauge("kubelet_node_name", "The node's name. The count is always 1.", ["node"]).set(1, self._node)
        pods = self._pods.pods()
        static = sum(1 for pod in pods if _is_static(pod))
        for name in ("kubelet_active_pods", "kubelet_desired_pods"):
            gauge = registry.gauge(name, "Pods of this node, and whether they are static.", ["static"])
            gauge.set(static, "true")
            gauge.set(len(pods) - static, "")
        sandboxes = await self._runtime.list_pod_sandboxes()
        running = sum(1 for sandbox in sandboxes if sandbox.ready)
        registry.gauge("kubelet_running_pods", "Pods that have a running sandbox.").set(running)
        counts = dict.fromkeys(_RUNNING_LABEL.values(), 0)
        for container in await self._runtime.list_containers():
            counts[_RUNNING_LABEL[container.state]] += 1
        gauge = registry.gauge("kubelet_running_containers", "Containers by their state.", ["container_state"])
        for state, count in counts.items():
            gauge.set(count, state)
        return _METRICS, registry.text().encode()

    async def resource_metrics(self) -> Document:
        """What the node, pods and containers use, as the metrics server scrapes it. Raises RuntimeFailure."""
        registry = Registry()
        labels = ["container", "pod", "namespace"]
        cpu = registry.counter("container_cpu_usage_seconds_total", "Processor time of a container in seconds.", labels)
        memory = registry.gauge("container_memory_working_set_bytes", "Working set of a container, in bytes.", labels)
        pod_cpu = registry.counter("pod_cpu_usage_seconds_total", "Processor time of a pod, in seconds.", labels[1:])
        pod_memory = registry.gauge("pod_memory_working_set_bytes", "Working set of a pod, in bytes.", labels[1:])
        for usage in await self._runtime.container_usage():
            container, pod, namespace = _names(usage)
            cpu.add(container, pod, namespace, by=usage.cpu_ns / 1e9)
            memory.set(usage.memory_working_bytes, container, pod, namespace)
            pod_cpu.add(pod, namespace, by=usage.cpu_ns / 1e9)
            pod_memory.add(usage.memory_working_bytes, pod, namespace)
        node = self._host.machine().memory_bytes - self._host.memory_available()
        node_cpu = registry.counter("node_cpu_usage_seconds_total", "Processor time of the node, in seconds.")
        node_cpu.add(by=self._host.cpu_ns() / 1e9)
        registry.gauge("node_memory_working_set_bytes", "Working set of the node, in bytes.").set(node)
        registry.gauge("resource_scrape_error", "1 when something could not be read.").set(0)
        return _METRICS, registry.text().encode()

    async def summary(self) -> Document:
        """The stats summary API, v1alpha1. Raises RuntimeFailure."""
        now = times.format(self._clock.now())
        used: dict[tuple[str, str, str], list[Object]] = {}
        for usage in await self._runtime.container_usage():
            container, pod, namespace = _names(usage)
            key = (namespace, pod, usage.labels.get(cri.POD_UID, ""))
            used.setdefault(key, []).append(_container_stats(container, usage))
        pods = [
            {
                "podRef": {"name": name, "namespace": namespace, "uid": uid},
                "containers": containers,
                "cpu": {"time": now, "usageCoreNanoSeconds": sum(c["cpu"]["usageCoreNanoSeconds"] for c in containers)},
                "memory": {"time": now, "workingSetBytes": sum(c["memory"]["workingSetBytes"] for c in containers)},
            }
            for (namespace, name, uid), containers in sorted(used.items())
        ]
        available, disk = self._host.memory_available(), self._host.disk()
        cpu = {"time": times.micro(self._clock.now()), "usageCoreNanoSeconds": self._host.cpu_ns()}
        memory = {
            "time": now,
            "availableBytes": available,
            "workingSetBytes": self._host.machine().memory_bytes - available,
        }
        fs = {"time": now, "capacityBytes": disk.capacity, "availableBytes": disk.available}
        return JSON, encode({"node": {"nodeName": self._node, "cpu": cpu, "memory": memory, "fs": fs}, "pods": pods})

    async def configz(self) -> Document:
        """The configuration in force."""
        return JSON, encode({"kubeletconfig": dict(self._config)})


def _is_static(pod: Object) -> bool:
    source = (pod["metadata"].get("annotations") or {}).get("kubernetes.io/config.source", "api")
    return bool(source != "api")


def _names(usage: Usage) -> tuple[str, str, str]:
    labels = usage.labels
    return labels.get(cri.CONTAINER_NAME, ""), labels.get(cri.POD_NAME, ""), labels.get(cri.POD_NAMESPACE, "")


def _container_stats(name: str, usage: Usage) -> Object:
    at = times.micro(usage.at)  # rates are made of this
    return {
        "name": name,
        "cpu": {"time": at, "usageCoreNanoSeconds": usage.cpu_ns},
        "memory": {
            "time": at,
            "usageBytes": usage.memory_usage_bytes,
            "workingSetBytes": usage.memory_working_bytes,
            "rssBytes": usage.memory_rss_bytes,
        },
        "rootfs": {"time": at, "usedBytes": usage.disk_bytes, "inodesUsed": usage.inodes},
    }
