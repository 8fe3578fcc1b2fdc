"""What removal leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

from k3s.run.lock import hold, is_held
from k3s.run.removal import is_bare, running, without_port_mappings

_SAVED = r"""*nat
:PREROUTING ACCEPT [0:0]
:CNI-DN-aaaa - [0:0]
:CNI-DN-bbbb - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-DN-aaaa -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.42.0.5:80
-A CNI-DN-bbbb -p tcp -m tcp --dport 81 -j DNAT --to-destination 10.88.0.5:80
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"cbr0\" id: \"1\"" -m tcp --dport 80 -j CNI-DN-aaaa
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"podman\" id: \"2\"" -m tcp --dport 81 -j CNI-DN-bbbb
COMMIT
"""


def test_port_mappings_of_other_networks_stay() -> None:
    """Only chains of our network go; shared chains stay as long as somebody uses them."""
    left = without_port_mappings(_SAVED)
    assert "CNI-DN-aaaa" not in left and "cbr0" not in left
    assert left.count("CNI-DN-bbbb") == 3 and "podman" in left
    assert left.count("CNI-HOSTPORT-DNAT") == 3


def test_shared_chains_go_with_the_last_pod() -> None:
    """Without any other network's mapping nothing of the plugin is left."""
    only_ours = "\n".join(line for line in _SAVED.splitlines() if "bbbb" not in line)
    assert without_port_mappings(only_ours) == "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"


def test_tables_with_something_of_others_stay() -> None:
    """A table is dropped only when it has the chains of iptables itself, that let everything pass, and no rule."""
    own = {
        "family": "ip",
        "table": "nat",
        "name": "POSTROUTING",
        "type": "nat",
        "hook": "postrouting",
        "policy": "accept",
    }
    head = [{"metainfo": {"version": "1.1.6"}}, {"table": {"family": "ip", "name": "nat"}}]
    assert is_bare({"nftables": [*head, {"chain": own}]})
    assert not is_bare({"nftables": [*head, {"chain": own}, {"rule": {"chain": "POSTROUTING"}}]})
    assert not is_bare({"nftables": [*head, {"chain": own | {"policy": "drop"}}]})
    assert not is_bare({"nftables": [*head, {"chain": own}, {"chain": {"name": "DOCKER"}}]})


def test_a_running_part_is_seen(tmp_path: Path) -> None:
    """The lock tells whether a server or an agent works on a folder."""
    assert running(tmp_path) == ""
    (tmp_path / "agent").mkdir()
    lock = hold(tmp_path / "agent")
    assert lock is not None and hold(tmp_path / "agent") is None
    assert running(tmp_path) == "agent"
    os.close(lock)
    assert not is_held(tmp_path / "agent") and running(tmp_path) == ""
