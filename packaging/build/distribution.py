"""Stages wheel and sdist: our own Python package as files that pip takes, the same bytes from the same sources.

Written here because setuptools puts times and the names of the machine into them. Sources: the specifications of
binary and source distribution formats and of core metadata 2.1 at packaging.python.org.
"""

from __future__ import annotations

import base64
import hashlib
import tomllib
from pathlib import Path
from typing import Any

from build import archive
from build.archive import Member
from build.inputs import LockError
from build.stage import Work

#: What else a source distribution has, and a reader of metadata wants.
PLAIN_FILES = ("LICENSE", "README.md", "pyproject.toml", "requirements.lock", "CHANGELOG.md")
SOURCES = ("src/k3s/**/*", *PLAIN_FILES)


def version(root: Path) -> str:
    """Our version as Python's and Debian's packages write it: without the v."""
    for line in (root / "src/k3s/__init__.py").read_text().splitlines():
        if line.startswith("VERSION = "):
            return line.split('"')[1].removeprefix("v")
    raise LockError("src/k3s/__init__.py has no VERSION")


def modules(work: Work) -> dict[str, bytes]:
    """Every file of our package by its path below `src`, the commit written into it."""
    if not (work.root / "src/k3s/api/data/descriptions.json.z").exists():
        raise LockError("the descriptions of the API are missing: run ./k3s setup first")
    found = {}
    for path in sorted((work.root / "src/k3s").rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            found[path.relative_to(work.root / "src").as_posix()] = path.read_bytes()
    told = f'COMMIT = "{work.facts["commit"]}"'.encode()
    found["k3s/__init__.py"] = found["k3s/__init__.py"].replace(b'COMMIT = ""', told)
    return found


def wheel(work: Work) -> None:
    """The package as pip installs it."""
    about = f"k3s-{version(work.root)}.dist-info"
    project = _project(work.root)
    scripts = "".join(f"{name} = {target}\n" for name, target in project["scripts"].items())
    files = modules(work) | {
        f"{about}/METADATA": _metadata(work.root, project),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: k3s-build\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": f"[console_scripts]\n{scripts}".encode(),
        f"{about}/licenses/LICENSE": (work.root / "LICENSE").read_bytes(),
    }
    record = "".join(f"{name},sha256={_record_hash(data)},{len(data)}\n" for name, data in files.items())
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    (work.out / f"k3s-{version(work.root)}-py3-none-any.whl").write_bytes(archive.zipped(files))


def sdist(work: Work) -> None:
    """The package as pip builds it on another machine."""
    top = f"k3s-{version(work.root)}"
    files = {name: (work.root / name).read_bytes() for name in PLAIN_FILES}
    files |= {f"src/{name}": data for name, data in modules(work).items()}
    files["PKG-INFO"] = _metadata(work.root, _project(work.root))
    packed = archive.tar((Member(name, data) for name, data in sorted(files.items())), f"{top}/")
    (work.out / f"{top}.tar.gz").write_bytes(archive.gzipped(packed))


def _project(root: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return project


def _metadata(root: Path, project: dict[str, Any]) -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {project['name']}",
        f"Version: {version(root)}",
        f"Summary: {project['description']}",
        f"License: {project['license']['text']}",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {wanted}" for wanted in project["dependencies"]),
        "Description-Content-Type: text/markdown",
    ]
    return ("\n".join(lines) + "\n\n").encode() + (root / project["readme"]).read_bytes()


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
