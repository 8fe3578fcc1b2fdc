"""What the server process has to know, made from the options by `run.settings`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from k3s.api.object import Object
from k3s.apiserver import accounttokens, tokensources
from k3s.apiserver.accounttokens import AccountTokens
from k3s.apiserver.admission.settings import UNSAID
from k3s.apiserver.admission.settings import Settings as AdmissionSettings
from k3s.apiserver.audit.settings import AuditSettings
from k3s.apiserver.authorization.settings import DEFAULT as DEFAULT_AUTHORIZATION
from k3s.apiserver.authorization.settings import AuthorizationSettings
from k3s.apiserver.cache import RING
from k3s.apiserver.tokensources import SourceSettings
from k3s.base.tls import UNSAID as TLS_UNSAID
from k3s.base.tls import Listening
from k3s.controllers.legacytokens import UNUSED_S
from k3s.store.compaction import KEEP_NEWEST


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The configuration of a server."""

    data_dir: Path
    bind_address: str
    port: int
    advertise_address: str
    advertise_port: int
    cluster_cidr: str
    service_cidr: str
    node_ports: tuple[int, int]
    cluster_dns: str
    cluster_domain: str
    flannel_backend: str
    service_ip: str
    token_auth_file: str = ""
    anonymous_auth: bool = False
    bootstrap_tokens: bool = True
    event_ttl_s: float = 3600.0
    request_s: float = 60.0
    reading_at_once: int = 400
    writing_at_once: int = 200
    watch_s: float = 1800.0
    origins: tuple[str, ...] = ()
    hsts: tuple[str, ...] = ()
    linger_s: float = 0.0
    turns_away: bool = False
    goaway_chance: float = 0.0
    compaction_s: float = 300.0
    #: Revisions that compaction leaves, and changes of a kind that are kept for watches which resume.
    history_kept: int = KEEP_NEWEST
    cache_ring: int = RING
    admission: AdmissionSettings = UNSAID
    tokens: SourceSettings = tokensources.NONE
    account_tokens: AccountTokens = accounttokens.UNSAID
    authorization: AuthorizationSettings = DEFAULT_AUTHORIZATION
    audit: AuditSettings | None = None
    encryption: str = ""  # the cipher of Secrets at rest
    encryption_file: str = ""  # an EncryptionConfiguration of the user's own, and whether its changes are followed
    encryption_follows: bool = False
    api_audiences: tuple[str, ...] = ()  # empty: the issuer and k3s
    disabled: frozenset[str] = frozenset()
    scheduler: bool = True
    controllers: bool = True
    kube_proxy: bool = True
    most_ended_pods: int = 12500
    unused_tokens_s: float = UNUSED_S
    tls: Listening = TLS_UNSAID
    host_name: str = "localhost"  # of this machine
    node_name: str = ""  # of the agent that this server starts; empty for none

    @property
    def local_url(self) -> str:
        """Where this machine reaches the server: loopback, unless it listens at one address only."""
        address = ipaddress.ip_address(self.bind_address or "127.0.0.1")
        host = "127.0.0.1" if address.is_unspecified else str(address)
        return f"https://[{host}]:{self.port}" if ":" in host else f"https://{host}:{self.port}"

    @property
    def server_dir(self) -> Path:
        """`<data-dir>/server`."""
        return self.data_dir / "server"

    def for_agents(self) -> Object:
        """The document of /v1-k3s/config: what agents have to know about the cluster."""
        return {
            "clusterCIDR": self.cluster_cidr,
            "serviceCIDR": self.service_cidr,
            "clusterDNS": self.cluster_dns,
            "clusterDomain": self.cluster_domain,
            "flannelBackend": self.flannel_backend,
            "disabled": sorted(self.disabled),
            "disableKubeProxy": not self.kube_proxy,
            "httpsPort": self.port,
        }
