"""Stage deb: a Debian package of the executable with its units and their environment, the same bytes each time."""

from __future__ import annotations

import hashlib
import re

from build import archive, distribution
from build.archive import Member
from build.assemble import name_of
from build.inputs import LockError
from build.stage import Work

_SCRIPTS = ("postinst", "prerm", "postrm")
_SERVICES = {"k3s": ("server", "notify"), "k3s-agent": ("agent", "exec")}
SOURCES = ("packaging/debian/*", "packaging/install.sh", "src/k3s/__init__.py", "LICENSE", "CHANGELOG.md")


def package(work: Work) -> None:
    """`k3s_<version>_<architecture>.deb`. Its data is not compressed: the executable's payload is already."""
    files = [
        Member("usr/bin/k3s", (work.stages["executable"] / name_of(work.arch)).read_bytes(), mode=0o755),
        Member("usr/share/doc/k3s/copyright", (work.root / "LICENSE").read_bytes()),
        Member("usr/share/doc/k3s/changelog.gz", archive.gzipped((work.root / "CHANGELOG.md").read_bytes())),
    ]
    script = (work.root / "packaging/install.sh").read_text()
    for service, (command, kind) in _SERVICES.items():
        files.append(Member(f"usr/lib/systemd/system/{service}.service", _unit(script, service, command, kind)))
        # It may hold the token.
        files.append(Member(f"etc/default/{service}", (work.root / "packaging/debian/env").read_bytes(), mode=0o600))
    about = _control(work, files)
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": archive.gzipped(archive.tar(about, "./")),
        "data.tar": archive.tar(_with_folders(files), "./"),
    }
    name = f"k3s_{distribution.version(work.root)}_{work.arch}.deb"
    (work.out / name).write_bytes(archive.ar(parts))


def _unit(script: str, service: str, command: str, kind: str) -> bytes:
    """The unit as install.sh writes it, for the places of a package."""
    found = re.search(r"<<UNIT\n(.*?)^UNIT$", script, re.DOTALL | re.MULTILINE)
    unit = found.group(1) if found else "$"
    for name, value in {
        "${INSTALL_K3S_TYPE:-$type}": kind,
        "$env_file": f"/etc/default/{service}",
        "$bin": "/usr/bin",
        "$words": command,
    }.items():
        unit = unit.replace(name, value)
    if "$" in unit:
        raise LockError("packaging/install.sh has no unit, or one with a variable that build/debian.py does not know")
    return unit.encode()


def _control(work: Work, files: list[Member]) -> list[Member]:
    size = sum(len(each.content or b"") for each in files) // 1024
    text = f"""\
Package: k3s
Version: {distribution.version(work.root)}
Architecture: {work.arch}
Maintainer: k3s in Python
Installed-Size: {size}
Recommends: kmod
Section: admin
Priority: optional
Description: lightweight Kubernetes in one executable
 A Kubernetes cluster of one machine or many. The executable carries all that
 it needs: containerd, runc, the CNI plugins and kubectl.
 .
 Nothing is started by the installation: systemctl enable --now k3s starts a
 server; an agent is k3s-agent, with K3S_URL and K3S_TOKEN set in
 /etc/default/k3s-agent.
"""
    sums = "".join(f"{hashlib.md5(each.content or b'').hexdigest()}  {each.path}\n" for each in files)
    configuration = "".join(f"/{each.path}\n" for each in files if each.path.startswith("etc/"))
    scripts = [
        Member(name, (work.root / "packaging/debian" / name).read_bytes(), mode=0o755) for name in sorted(_SCRIPTS)
    ]
    plain = {"control": text, "conffiles": configuration, "md5sums": sums}
    return [*(Member(name, content.encode()) for name, content in plain.items()), *scripts]


def _with_folders(files: list[Member]) -> list[Member]:
    folders = {"/".join(each.path.split("/")[:end]) for each in files for end in range(1, each.path.count("/") + 1)}
    return sorted([*(Member(folder) for folder in folders), *files], key=lambda each: each.path)
