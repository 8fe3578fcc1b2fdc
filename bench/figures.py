"""The figures that are kept, their bars, and what k3s 1.20.6 needed on the same kind of machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of docs/benchmarks.md.

    `bar` is the most that is allowed, in `unit`, or the least where `least` says so; None: only watched.
    """

    key: str
    title: str
    bar: float | None
    unit: str
    original: str
    scenario: str
    least: bool = False

    def met(self, value: float) -> bool:
        """Whether a value keeps the bar."""
        return self.bar is None or (value >= self.bar if self.least else value <= self.bar)


FIGURES = (
    Figure("readyz", "exec to first 200 of /readyz, fresh data", 1.0, "s", "5.6 s", "start"),
    Figure("node_ready", "exec to node Ready, fresh data", 3.0, "s", "18.4 s", "start"),
    Figure("first_pod", "exec to first pod Running and DNS answering, images present", 5.0, "s", "", "start"),
    Figure("pod_ready", "one pod, create to Ready, p50", 0.6, "s", "0.97 s", "pods"),
    Figure("pod_gone", "one pod, delete with 1 s of grace to gone, p50", 2.5, "s", "16.7 s", "pods"),
    Figure("deploy", "Deployment of 50, create to all available", 20.0, "s", "43 s", "pods"),
    Figure("undeploy", "Deployment of 50, delete to all gone", 15.0, "s", "39 s", "pods"),
    Figure("pss", "PSS idle, server + agent, without containerd", 130.0, "MB", "454 MB", "idle"),
    Figure("pss_control_plane", "PSS idle, control plane only", 64.0, "MB", "", "plane"),
    Figure("idle_cpu", "CPU idle over 60 s, server + agent", 1.0, "% of a core", "7.1 %", "idle"),
    Figure("idle_disk", "written to disk idle over 60 s, server + agent", None, "kB/min", "", "idle"),
    Figure("get", "GET a ConfigMap of 1 kB, strong read", 60.0, "µs", "1500 µs fresh, 5400 µs after churn", "get"),
    Figure("list", "LIST 1000 ConfigMaps of 1 kB", 2.0, "ms", "48 ms", "list"),
    Figure("list_10000", "LIST 10 000 ConfigMaps of 1 kB", 20.0, "ms", "", "list"),
    Figure("list_pods", "LIST 1000 Pods of 1.5 to 2 kB", 3.0, "ms", "91 ms", "list"),
    Figure("get_churned", "GET of it after 20 000 creates and deletes", 60.0, "µs", "5400 µs", "churned"),
    Figure("list_churned", "LIST of 1000 of them after 20 000 creates and deletes", 2.0, "ms", "190 ms", "churned"),
    Figure("create_configmap", "create a ConfigMap", 350.0, "µs", "1800 µs", "configmaps"),
    Figure("patch_configmap", "merge patch of a ConfigMap", 400.0, "µs", "3700 µs", "configmaps"),
    Figure("delete_configmap", "delete a ConfigMap", 350.0, "µs", "9000 µs", "configmaps"),
    Figure("create_custom", "create an object of a custom kind, of 1 kB", None, "µs", "", "custom"),
    Figure("patch_custom", "merge patch of it", None, "µs", "", "custom"),
    Figure("delete_custom", "delete of it", None, "µs", "", "custom"),
    Figure("create_ratio", "create of it, by that of a ConfigMap beside it", None, "times", "", "custom"),
    Figure("patch_ratio", "merge patch of it, by that of a ConfigMap beside it", None, "times", "", "custom"),
    Figure("delete_ratio", "delete of it, by that of a ConfigMap beside it", None, "times", "", "custom"),
    Figure("create_pod", "create a Pod, while requests run", 700.0, "µs", "3400 µs", "podwrites"),
    Figure("create_pod_whole", "create a Pod that fits no node, until all is quiet", None, "µs", "", "podwrites"),
    Figure("patch_pod", "merge patch of a Pod, while requests run", 600.0, "µs", "6200 µs", "podwrites"),
    Figure(
        "patch_pod_whole", "merge patch of a Pod that fits no node, until all is quiet", None, "µs", "", "podwrites"
    ),
    Figure("delete_pod", "delete a Pod that no node holds, while requests run", 700.0, "µs", "19000 µs", "podwrites"),
    Figure("delete_pod_whole", "delete a Pod that no node holds, until all is quiet", None, "µs", "", "podwrites"),
    Figure("strategic_pod", "strategic patch of a Pod", 700.0, "µs", "", "podpatches"),
    Figure("apply_pod", "apply of a Pod, server-side", 900.0, "µs", "", "podpatches"),
    Figure(
        "durable",
        "durable creates per second, 32 clients, SQLite",
        2000.0,
        "/s",
        "935 /s, not durable",
        "durable",
        True,
    ),
    Figure("durable_p99", "durable creates, 32 clients, p99", 60.0, "ms", "", "durable"),
    Figure("watch_burst", "one event to 100 watchers, burst, with its create", 1.0, "ms", "6.8 ms", "watch"),
    Figure("watch_paced", "one event to 100 watchers, 50 per second, with its create", 1.0, "ms", "20 ms", "watch"),
    Figure("watch_1000", "one event to 1000 watchers, burst, with its create", 10.0, "ms", "", "crowd"),
    Figure("watch_1000_paced", "one event to 1000 watchers, 20 per second, with its create", 10.0, "ms", "", "crowd"),
    Figure("tls", "new TLS connection and one GET /version", 500.0, "µs", "1370 µs", "tls"),
    Figure("pods_rss", "RSS of 10 000 Pods of 1.5 to 2 kB beyond idle", 120.0, "MB", "", "memory"),
    Figure(
        "rss_after",
        "RSS of the control plane after those Pods and all of the load",
        160.0,
        "MB",
        "1400 – 1900 MB",
        "memory",
    ),
)
SCENARIOS = tuple(dict.fromkeys(figure.scenario for figure in FIGURES))
BY_KEY = {figure.key: figure for figure in FIGURES}
