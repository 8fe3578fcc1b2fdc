"""What a server or an agent really goes by, in a file of mode 600 beside its state: `k3s check-config --cis` reads it.

Made from the same values that the parts are made from, at every start; flags that have one value here are not in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from k3s.base import files

if TYPE_CHECKING:
    from k3s.run.agentconfig import AgentConfig
    from k3s.run.serverconfig import ServerConfig

FILE = "effective.json"


def of_server(config: ServerConfig) -> dict[str, Any]:
    """The settings of a server that somebody may ask about, by the flags that change them; no secrets."""
    tokens, audit = config.tokens.tokens, config.audit
    open_to_all = config.anonymous_auth if tokens.anonymous is None else tokens.anonymous and not tokens.anonymous_paths
    return {
        "anonymous-auth": open_to_all,
        "token-auth-file": config.token_auth_file,
        "admission-plugins": sorted(config.admission.enabled),
        "pod-security": config.admission.of("PodSecurity"),
        "audit-policy-file": str(audit.policy) if audit else "",
        "audit-log-path": audit.log if audit else "",
        **{f"audit-log-{name}": audit.numbers[f"audit-log-{name}"] if audit else 0 for name in _AUDIT_NUMBERS},
        "request-timeout": config.request_s,
        "service-account-extend-token-expiration": config.account_tokens.extend,
        "encryption-provider-config": config.encryption_file,
        "tls-min-version": config.tls.version,
        "tls-cipher-suites": list(config.tls.suites),
        "terminated-pod-gc-threshold": config.most_ended_pods,
    }


_AUDIT_NUMBERS = ("maxage", "maxbackup", "maxsize")


def of_agent(config: AgentConfig) -> dict[str, Any]:
    """The same of an agent."""
    return {
        "node-name": config.node_name,
        "protect-kernel-defaults": config.protects_kernel,
        "seccomp-default": config.seccomp_default,
        "streaming-connection-idle-timeout": config.stream_idle_s,
        "tls-min-version": config.tls.version,
        "tls-cipher-suites": list(config.tls.suites),
    }


def write(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the file of a role's folder. Raises OSError."""
    files.write_changed(folder / FILE, msgspec.json.format(msgspec.json.encode(settings)) + b"\n")


def read(folder: Path) -> dict[str, Any] | None:
    """What was written there; None when nothing was, or nothing readable as such."""
    try:
        found = msgspec.json.decode((folder / FILE).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return found if isinstance(found, dict) else None
