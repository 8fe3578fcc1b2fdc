"""One cluster for all end-to-end tests of a session, and the clients to try on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import CLIENTS, Cluster, Kubectl, remains

# Released 2026, 2024, 2022 and 2021: the newest talks WebSockets and protobuf, the oldest SPDY and JSON only.
VERSIONS = ("", "1.30", "1.24", "1.20")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster; at the end nothing of it may be left on the machine."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.prepare()
    try:
        made.start()
        yield made
    finally:
        made.remove()
    assert remains(made.folder) == []


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda v: v or "current")
def kubectl(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Kubectl]:
    """Each version of kubectl, with a namespace of its own."""
    version: str = request.param
    if version and not (CLIENTS / f"kubectl-{version}").exists():
        pytest.skip(f"kubectl {version} is not on this machine: packaging/clients.sh says why")
    module = Path(str(request.path)).stem.removeprefix("test_").replace("_", "-")
    name = f"{module}-{version or 'current'}".replace(".", "-")
    client = cluster.kubectl(version, name)
    client("create", "namespace", name)
    yield client
    client("delete", "namespace", name, "--wait=false")
