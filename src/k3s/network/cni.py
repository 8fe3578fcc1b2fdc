"""The CNI configuration that containerd reads: a bridge with addresses of the node's own pod range, and port mappings.

The loopback interface is containerd's own business. Masquerading is not the bridge plugin's but ours (`masquerade`), so
that there is one place for it and iptables is needed for host ports only.
"""

from __future__ import annotations

import msgspec

from k3s.api.object import Object

FILE = "10-k3s.conflist"
BRIDGE = "cni0"

# Where host-local keeps which address is taken. On a tmpfs: after a reboot no pod is left, so no address is taken.
LEASES = "/run/k3s/cni/networks"


def conflist(pod_cidrs: tuple[str, ...], mtu: int = 0, leases: str = LEASES) -> bytes:
    """The file for a node with these pod ranges, one a family; `mtu` 0 leaves the choice to the kernel."""
    bridge: Object = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "hairpinMode": True,  # a pod may reach itself through its service
        "ipMasq": False,
        "ipam": {"type": "host-local", "dataDir": leases, "ranges": [[{"subnet": cidr}] for cidr in pod_cidrs]},
    }
    if mtu:
        bridge["mtu"] = mtu
    ports: Object = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    document = {"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge, ports]}
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
