"""The figures that are kept, their bars, and what k3s 1.20.6 needed on the same kind of machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of docs/benchmarks.md. `bar` is the most that is allowed, in `unit`; None: only watched."""

    key: str
    title: str
    bar: float | None
    unit: str
    original: str
    scenario: str


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
    Figure("get", "GET a ConfigMap of 1 kB, strong read", 80.0, "µs", "1500 µs fresh, 5400 µs after churn", "get"),
    Figure("list", "LIST 1000 ConfigMaps of 1 kB", 3.0, "ms", "48 ms", "list"),
    Figure("create_configmap", "create a ConfigMap", 600.0, "µs", "1800 µs", "configmaps"),
    Figure("patch_configmap", "merge patch of a ConfigMap", None, "µs", "3700 µs", "configmaps"),
    Figure("delete_configmap", "delete a ConfigMap", None, "µs", "9000 µs", "configmaps"),
    Figure("create_pod", "create a Pod", 1200.0, "µs", "3400 µs", "podwrites"),
    Figure("patch_pod", "merge patch of a Pod", None, "µs", "6200 µs", "podwrites"),
    Figure("delete_pod", "delete a Pod that no node holds", 1500.0, "µs", "19000 µs", "podwrites"),
    Figure("watch_burst", "one event to 100 watchers, burst, with its create", 1.5, "ms", "6.8 ms", "watch"),
    Figure("watch_paced", "one event to 100 watchers, 50 per second, with its create", 1.5, "ms", "20 ms", "watch"),
    Figure("tls", "new TLS connection and one GET /version", None, "µs", "1370 µs", "tls"),
)
SCENARIOS = tuple(dict.fromkeys(figure.scenario for figure in FIGURES))
BY_KEY = {figure.key: figure for figure in FIGURES}
