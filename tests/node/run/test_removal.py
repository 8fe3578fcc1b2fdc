"""What a removal takes out of the kernel's packet rules, in a network of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow]

# The chains of the portmap plugin for one pod, as it makes them for a port of the host; and a rule of somebody else.
_SCRIPT = """
for program in iptables ip6tables; do
    $program -t nat -N CNI-HOSTPORT-DNAT
    $program -t nat -N CNI-DN-0123
    $program -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
    $program -t nat -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment 'dnat name: "cbr0" id: "a"' -j CNI-DN-0123
    $program -t nat -A CNI-DN-0123 -p tcp --dport 8080 -j MARK --set-mark 1
    $program -t nat -N THEIRS
done
"$@"
iptables-save -t nat | grep -v '^#'
ip6tables-save -t nat | grep -v '^#'
"""
_REMOVE = "from k3s.run import removal; removal._remove_port_mappings()"


def test_port_mappings_go_in_both_families() -> None:
    """Ours are taken away for IPv4 and IPv6, what is somebody else's stays."""
    command = ["unshare", "--net", "sh", "-euc", _SCRIPT, "sh", sys.executable, "-c", _REMOVE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "CNI-" not in done.stdout
    assert done.stdout.count(":THEIRS") == 2
