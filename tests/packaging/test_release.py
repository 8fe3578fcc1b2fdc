"""A release: complete, the same bytes each time, and every part of it can be used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from build import command, fetch, release
from build.inputs import LockError
from build.store import Store

from k3s import VERSION

_NUMBER = VERSION.removeprefix("v")


def test_the_section_of_a_version() -> None:
    """Its lines alone; a version that nobody wrote about is refused."""
    text = "# Changelog\n\n## v2 (unreleased)\n\n- Two.\n\n## v1\n\n- One.\n- More.\n"
    assert release.section(text, "v2") == "## v2\n\n- Two.\n"
    assert release.section(text, "v1") == "## v1\n\n- One.\n- More.\n"
    with pytest.raises(LockError, match="no section about v3"):
        release.section(text, "v3")


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    """So that sums are of this release only."""
    (tmp_path / "old").touch()
    with pytest.raises(LockError, match="is not empty"):
        release.release(["amd64"], Store(tmp_path / "store"), tmp_path)


@pytest.fixture(scope="module")
def released(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release for this machine, compressed quickly."""
    out = tmp_path_factory.mktemp("release")
    try:
        release.release([command.host()], store, out, level=3)
    except fetch.Vanished:
        pytest.skip("the archive has dropped a locked version: run `make lock`")
    return out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_is_complete(released: Path) -> None:
    """Every kind of file, and sums that fit."""
    arch = command.host()
    executable = "k3s" if arch == "amd64" else f"k3s-{arch}"
    assert sorted(path.name for path in released.iterdir()) == sorted(
        [
            *("CHANGELOG.md", "install.sh", "sha256sum.txt", executable, f"k3s-{arch}.spdx.json"),
            *(f"k3s-airgap-images-{arch}.tar.zst", f"k3s-airgap-images-{arch}.spdx.json"),
            *(f"k3s-images-{arch}.txt", f"k3s_{_NUMBER}_{arch}.deb"),
            *(f"k3s-{_NUMBER}.tar.gz", f"k3s-{_NUMBER}-py3-none-any.whl"),
        ]
    )
    checked = subprocess.run(["sha256sum", "-c", "sha256sum.txt"], cwd=released, capture_output=True, text=True)
    assert checked.stdout.count(": OK") == 10
    assert json.loads((released / f"k3s-{arch}.spdx.json").read_text())["spdxVersion"] == "SPDX-2.3"
    assert VERSION in (released / "CHANGELOG.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_releases_are_the_same_bytes(released: Path, store: Store, tmp_path: Path) -> None:
    """From the same inputs in another folder, later, with no stage of the first one."""
    inputs = Store(tmp_path / "somewhere/else")
    shutil.rmtree(inputs.folder / "files")
    (inputs.folder / "files").symlink_to(store.folder / "files")
    release.release([command.host()], inputs, tmp_path / "out", level=3)
    assert (tmp_path / "out/sha256sum.txt").read_text() == (released / "sha256sum.txt").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pip_installs_it(released: Path, tmp_path: Path) -> None:
    """Into a fresh environment: the wheel with what it needs, then the source distribution in its place."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    pip = [str(tmp_path / "venv/bin/pip"), "install", "-q", "--disable-pip-version-check"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    wheel, sdist = released / f"k3s-{_NUMBER}-py3-none-any.whl", released / f"k3s-{_NUMBER}.tar.gz"
    for command_line in ([*pip, str(wheel)], [*pip, "--no-deps", "--force-reinstall", str(sdist)]):
        done = subprocess.run(command_line, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told = subprocess.check_output([str(tmp_path / "venv/bin/k3s"), "--version"], env=env, text=True, cwd=tmp_path)
        assert told.startswith(f"k3s version {VERSION} ({command.commit()})")
    assert "No broken" in subprocess.check_output([str(tmp_path / "venv/bin/pip"), "check"], env=env, text=True)
