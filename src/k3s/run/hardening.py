"""What `--hardened` says where nobody said otherwise, and the flags of components that have one value here.

Source: k3s' hardening guide and its self-assessment against the CIS Kubernetes benchmark.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_DATA = Path(__file__).with_name("data")
#: Pod security and the limits of events; a file of the user's own takes its place plugin by plugin.
ADMISSION = _DATA / "admission.yaml"
AUDIT_POLICY = _DATA / "audit.yaml"
#: Plugins that run besides those that always do.
PLUGINS = ("EventRateLimit",)

CONTROLLERS = {"terminated-pod-gc-threshold": "10"}
KUBELET = {"streaming-connection-idle-timeout": "5m", "seccomp-default": "true"}


def api_server(data_dir: Path) -> dict[str, str]:
    """The flags of the API server."""
    return {
        "audit-policy-file": str(AUDIT_POLICY),
        "audit-log-path": str(data_dir / "server" / "logs" / "audit.log"),
        "audit-log-maxage": "30",
        "audit-log-maxbackup": "10",
        "audit-log-maxsize": "100",
        "service-account-extend-token-expiration": "false",
    }


class Fixed(NamedTuple):
    """The one value of a flag, and why there is no other."""

    value: str
    why: str


_NO_PROFILING = Fixed("false", "there are no profiles to ask for")
_NO_LISTENER = Fixed("127.0.0.1", "it listens nowhere")
#: Flags that are taken with the value that holds anyway, so that a hardened configuration of k3s works as it is.
FIXED: dict[str, dict[str, Fixed]] = {
    "kube-apiserver-arg": {
        "profiling": _NO_PROFILING,
        "service-account-lookup": Fixed("true", "a token counts while the objects exist that it is bound to"),
    },
    "kube-controller-manager-arg": {
        "bind-address": _NO_LISTENER,
        "profiling": _NO_PROFILING,
        "use-service-account-credentials": Fixed("true", "each controller has the rights of its own account"),
    },
    "kube-scheduler-arg": {"bind-address": _NO_LISTENER, "profiling": _NO_PROFILING},
    "kubelet-arg": {
        "anonymous-auth": Fixed("false", "every caller shows a certificate or a token"),
        "authorization-mode": Fixed("Webhook", "the API server decides who may"),
        "event-qps": Fixed("0", "no event is held back"),
        "make-iptables-util-chains": Fixed("true", "service routing keeps its rules in a table of its own"),
        "read-only-port": Fixed("0", "there is none"),
        "rotate-certificates": Fixed("true", "certificates are renewed before they end"),
    },
}


def forms(option: str) -> dict[str, str]:
    """What the fixed flags of an option take, for its documentation."""
    return {name: f"{fixed.value} only: {fixed.why}" for name, fixed in FIXED[option].items()}
