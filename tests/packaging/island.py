"""A network that reaches nothing, and notes who is tried to be reached."""

from __future__ import annotations

import subprocess
from pathlib import Path

ADDRESS = "192.0.2.10"
# The only way out leads to a device at whose other end nobody is; what is sent there is noted.
_COUNTER = """
table inet seen {
    set tried { type ipv4_addr . inet_proto . inet_service; flags dynamic; size 1000; }
    chain out {
        type filter hook postrouting priority 300;
        oifname "eth0" meta l4proto { tcp, udp } add @tried { ip daddr . meta l4proto . th dport }
    }
}
"""


class Island:
    """A network namespace with one device, to which its default route leads."""

    def __init__(self, name: str) -> None:
        self.path = Path("/run/netns", name)
        self.inside = ("nsenter", f"--net={self.path}")

    def __enter__(self) -> Island:
        subprocess.run(["ip", "netns", "add", self.path.name], check=True)
        try:
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _prepare(self) -> None:
        for words in (
            "link set lo up",
            "link add eth0 type veth peer name nowhere",
            "link set nowhere up",
            f"address add {ADDRESS}/24 dev eth0",
            "link set eth0 up",
            "route add default dev eth0",
        ):
            self.run("ip", *words.split())
        subprocess.run([*self.inside, "nft", "-f", "-"], input=_COUNTER, text=True, check=True)

    def __exit__(self, *exc: object) -> None:
        subprocess.run(["ip", "netns", "delete", self.path.name], check=True)

    def run(self, *words: str) -> str:
        """The output of a command in it."""
        return subprocess.run([*self.inside, *words], capture_output=True, text=True, check=True).stdout

    def tried(self) -> str:
        """Whom something in it has sent packets to."""
        listed = self.run("nft", "list", "set", "inet", "seen", "tried")
        return listed.partition("elements = {")[2].partition("}")[0].strip()
