"""The build's modules are no package of ours: they are found beside packaging/. One executable for all tests."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))

from build import command, fetch, refresh  # noqa: E402
from build.store import Store  # noqa: E402


@pytest.fixture(scope="session")
def store() -> Store:
    """Kept between runs: inputs are large, and stages that did not change are not built again."""
    return Store(command.default_store())


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Path:
    """Built quickly, so larger than a release. When the archive has dropped a locked version, of the present ones."""
    out = tmp_path_factory.mktemp("dist")
    try:
        return command.build(command.host(), store, out, level=3)
    except fetch.Vanished:
        rows = refresh.refreshed(ROOT / "packaging/wanted.toml", ROOT / "requirements.lock", store)
        return command.build(command.host(), store, out, rows, level=3)
