"""The agent process put together: join, then containers, kubelet, service routing, network and DNS as services."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from k3s import VERSION
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object, encode
from k3s.base import files
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.client import Client
from k3s.client.https import HttpsTransport
from k3s.client.informer import Informer
from k3s.client.tls import Credentials
from k3s.cluster.fetch import fetch
from k3s.cluster.join import AgentCredentials, Joiner, Node, node_password
from k3s.dns.service import Config as DnsConfig
from k3s.dns.service import Dns
from k3s.dns.upstream import Upstream
from k3s.kubelet.authorizer import ApiAuthorizer
from k3s.kubelet.containerd import ContainerdConfig, handlers_here
from k3s.kubelet.documents import Documents, configuration
from k3s.kubelet.engine import Engine, EngineConfig
from k3s.kubelet.node import Identity
from k3s.kubelet.server import PORT, KubeletServer
from k3s.kubelet.service import Kubelet, KubeletConfig
from k3s.netfilter.kernel import Kernel
from k3s.network.address import NodeAddress
from k3s.network.host import Host
from k3s.network.plan import Config as NetworkConfig
from k3s.network.service import Network
from k3s.proxy.conntrack import Conntrack
from k3s.proxy.ports import Node as ProxyNode
from k3s.proxy.service import Proxy
from k3s.run.agentconfig import AgentConfig
from k3s.run.prerequisites import cni_folder
from k3s.run.supervisor import Service

log = logging.getLogger(__name__)

_SERVICE = builtin("v1", "Service")
_SLICE = builtin("discovery.k8s.io/v1", "EndpointSlice")
_NODE = builtin("v1", "Node")
_NODE_FILES = Path("/etc/rancher/node")
DNS_LINK = "k3s-dns"
# Programs that look for pods' files know this folder; a second installation beside it keeps to its own.
_KUBELET_ROOT = Path("/var/lib/kubelet")
_DEFAULT_DATA_DIR = Path("/var/lib/rancher/k3s")


class Agent:
    """The parts of the agent process."""

    def __init__(self, config: AgentConfig, clock: Clock, entropy: Entropy) -> None:
        self.config = config
        self.clock = clock
        self.entropy = entropy
        self._host = Host()
        self._packets = Kernel()
        self._kubelet: Kubelet | None = None
        self._engine = self._make_engine()

    async def join(self) -> None:
        """Finds the node's address and joins the cluster; waits while the server is not there. Raises JoinError."""
        config = self.config
        self._address: NodeAddress = await self._host.node_address(config.node_ip)
        node = Node(config.node_name, node_password(_NODE_FILES, self.entropy), (self._address.address,))
        self._joiner = Joiner(config.server, config.token, node, config.agent_dir, self.clock, fetch)
        self.credentials: AgentCredentials = await self._joiner.join()
        told = self.credentials.config
        self._cluster_dns = "" if "coredns" in told["disabled"] else str(told["clusterDNS"])
        # A document without this word comes from a server whose agents all have a proxy.
        self._with_proxy = not told.get("disableKubeProxy", False)
        self._proxy_client = self._client("client-kube-proxy")
        self._kubelet_client = self._client("client-kubelet")
        self._services = self._informer(_SERVICE)
        self._slices = self._informer(_SLICE)
        alone = told["flannelBackend"] != "host-gw"
        self._nodes = self._informer(_NODE, fields=f"metadata.name={config.node_name}" if alone else "")

    def _client(self, name: str) -> Client:
        cert, key = self.credentials.certificate(name)
        files = Credentials(ca_file=str(self.credentials.server_ca), cert_file=str(cert), key_file=str(key))
        return Client(HttpsTransport(self.config.server, files))

    def _informer(self, kind: Kind, fields: str = "") -> Informer:
        return Informer(self._proxy_client, kind, fields=fields, clock=self.clock, entropy=self.entropy)

    # -- services

    def services(self) -> list[Service]:
        """The services in the order of starting."""
        found = [
            Service("runtime", self._engine.run),
            Service("informers", self._run_informers),
            Service("network", self._run_network, ("informers",)),
        ]
        proxy = ["proxy"] if self._with_proxy else []
        if proxy:
            found.append(Service("proxy", self._run_proxy, ("informers",)))
        if self._cluster_dns:
            found.append(Service("dns", self._run_dns, ("informers",)))
        return [
            *found,
            Service("kubelet", self._run_kubelet, ("runtime",), stop_within_s=15),
            Service("kubelet-server", self._run_kubelet_server, ("kubelet",)),
            Service("node-ready", self._run_node_ready, ("kubelet", "network", *proxy)),
            Service("certificates", self._run_certificates),
        ]

    def _make_engine(self) -> Engine:
        config, folder = self.config, self.config.agent_dir
        containerd = ContainerdConfig(
            root=folder / "containerd",
            config=folder / "etc" / "containerd" / "config.toml",
            cni_config=folder / "etc" / "cni" / "net.d",
            cni_bin=cni_folder() or Path("/usr/lib/cni"),
            sandbox_image=config.pause_image,
            snapshotter="" if config.snapshotter == "overlayfs" else config.snapshotter,
            handlers=handlers_here(),
            stream_idle_s=config.stream_idle_s,
        )
        endpoint = config.runtime_endpoint or f"unix://{containerd.socket}"
        files.write_changed(folder / "etc" / "crictl.yaml", f"runtime-endpoint: {endpoint}\n")
        return Engine(EngineConfig(containerd, folder / "images", config.runtime_endpoint))

    async def _run_informers(self, ready: Callable[[], None]) -> None:
        await self._machine_ready()
        informers = (self._services, self._slices, self._nodes)
        left = {informer.kind.plural for informer in informers}

        def synced(plural: str) -> None:
            left.discard(plural)
            if not left:
                ready()

        # Whoever listens subscribes first, so that nothing is missed.
        self._make_listeners()
        async with asyncio.TaskGroup() as group:
            for informer in informers:
                group.create_task(informer.run(lambda plural=informer.kind.plural: synced(plural)))  # type: ignore[misc]

    async def _machine_ready(self) -> None:
        if self._cluster_dns:
            await self._host.ensure_address(DNS_LINK, self._cluster_dns)

    def _make_listeners(self) -> None:
        told = self.credentials.config
        cidrs = tuple(str(told["clusterCIDR"]).split(","))
        skip = frozenset([self._cluster_dns] if self._cluster_dns else [])
        if self._with_proxy:
            node = ProxyNode(self.config.node_name, cidrs, skip)
            self._proxy = Proxy(
                self._services, self._slices, node, self._packets, Conntrack(), self._host.open_localhost
            )
        network = NetworkConfig(cidrs, str(told["flannelBackend"]), self._address.mtu)
        folder = self.config.agent_dir / "etc" / "cni" / "net.d"
        self._network = Network(self._nodes, self.config.node_name, network, folder, self._host, self._packets)
        if self._cluster_dns:
            resolv_conf = Path(self.config.resolv_conf or "/etc/resolv.conf")
            upstream = Upstream(resolv_conf, {self._cluster_dns}, self.entropy)
            config = DnsConfig((self._cluster_dns,), str(told["clusterDomain"]))
            self._dns = Dns(config, upstream, self._services, self._slices, self._nodes)

    async def _run_network(self, ready: Callable[[], None]) -> None:
        await self._network.run(ready)

    async def _run_proxy(self, ready: Callable[[], None]) -> None:
        await self._proxy.run(ready)

    async def _run_dns(self, ready: Callable[[], None]) -> None:
        await self._dns.run(ready)

    async def _run_kubelet(self, ready: Callable[[], None]) -> None:
        self._kubelet = Kubelet(
            self._kubelet_config(), self._kubelet_client, self._engine.runtime, self.clock, self.entropy
        )
        await self._kubelet.run(ready)

    def _kubelet_config(self) -> KubeletConfig:
        config, told = self.config, self.credentials.config
        manifests = config.agent_dir / "pod-manifests"
        external = (config.node_external_ip,) if config.node_external_ip else ()
        return KubeletConfig(
            identity=Identity(
                name=config.node_name,
                internal_ips=(self._address.address,),
                external_ips=external,
                hostname=config.node_name,
                labels=dict(config.labels),
                annotations=_annotations(config, self._address.address),
                taints=config.taints,
                provider_id=f"k3s://{config.node_name}",
                version=VERSION,
            ),
            root=_KUBELET_ROOT if config.data_dir == _DEFAULT_DATA_DIR else config.agent_dir / "kubelet",
            manifests=manifests,
            cni_folder=config.agent_dir / "etc" / "cni" / "net.d",
            cluster_dns=(self._cluster_dns,) if self._cluster_dns else (),
            cluster_domain=str(told["clusterDomain"]),
            resolv_conf=config.resolv_conf,
            max_pods=config.max_pods,
            seccomp_default=config.seccomp_default,
        )

    async def _run_kubelet_server(self, ready: Callable[[], None]) -> None:
        assert self._kubelet is not None
        authorize = ApiAuthorizer(self._kubelet_client, self.config.node_name, self.clock)
        documents = Documents(
            self.config.node_name,
            self._kubelet,
            self._engine.runtime,
            self._kubelet.host,
            self.clock,
            {**configuration(self._kubelet.config), **listening(self.config)},
        )
        server = KubeletServer(self._kubelet, self._engine.runtime, authorize, self.clock, documents.by_path())
        await server.run(ready, "0.0.0.0", self._serving_context(), PORT)

    def _serving_context(self) -> ssl.SSLContext:
        cert, key = self.credentials.certificate("serving-kubelet")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.config.tls.apply(context)
        context.load_cert_chain(cert, key)
        context.load_verify_locations(self.credentials.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        self._kubelet_tls = context
        return context

    async def _run_node_ready(self, ready: Callable[[], None]) -> None:
        """Ready once the node is: what the server waits for before it says that the cluster is up.

        A cluster that brings its own CNI plugin needs us to be up before its node can be Ready.
        """
        assert self._kubelet is not None
        if self.credentials.config["flannelBackend"] != "none":
            await self._kubelet.became_ready.wait()
        ready()
        await asyncio.Event().wait()

    async def _run_certificates(self, ready: Callable[[], None]) -> None:
        def renewed(credentials: AgentCredentials) -> None:
            self.credentials = credentials
            cert, key = credentials.certificate("serving-kubelet")
            self._kubelet_tls.load_cert_chain(cert, key)

        await self._joiner.renew(ready, renewed)


def listening(config: AgentConfig) -> Object:
    """What /configz shows of the kubelet's listener and the kernel."""
    return {
        "protectKernelDefaults": config.protects_kernel,
        "readOnlyPort": 0,
        "streamingConnectionIdleTimeout": f"{config.stream_idle_s:g}s",
        "tlsCipherSuites": list(config.tls.suites),
        "tlsMinVersion": config.tls.version,
    }


def _annotations(config: AgentConfig, address: str) -> dict[str, str]:
    """What k3s notes on its nodes (spec 2.4), secret values masked."""
    return {
        "k3s.io/hostname": config.node_name,
        "k3s.io/internal-ip": address,
        "k3s.io/node-args": encode(masked(config.node_args)).decode(),
    }


def masked(args: tuple[str, ...]) -> list[str]:
    """Arguments with the values of tokens replaced by stars."""
    shown: list[str] = []
    hide_next = False
    for word in args:
        name, equals, _ = word.partition("=")
        secret = name.lstrip("-") in ("t", "token", "agent-token", "cluster-secret")
        shown.append("********" if hide_next else f"{name}=********" if secret and equals else word)
        hide_next = secret and not equals
    return shown
