"""Gets inputs from where they are, through the ordinary client of each kind of registry.

An input that is in the store is not asked for again. What comes is checked against its hash before anything sees it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from build import archive
from build.inputs import Input, LockError
from build.store import Store

_PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
_ABI = "314"


class Vanished(LockError):
    """A registry no longer has a version."""

    def __init__(self, wanted: Input, why: str) -> None:
        super().__init__(
            f"{wanted.title} cannot be had any more: {why.strip()[-400:]}\n"
            "If the version has left its registry, `make lock` takes the present ones and shows what changes."
        )


def get(wanted: Input, store: Store) -> Path:
    """The file of an input. Raises LockError, Vanished."""
    return store.file(wanted) or store.add(wanted, download(wanted))


def download(wanted: Input) -> bytes:
    """The bytes of an input as they come, not checked. Raises Vanished."""
    with tempfile.TemporaryDirectory() as scratch:
        return _WAYS[wanted.kind](wanted, Path(scratch))


def _run(wanted: Input, command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise LockError(f"{wanted.title}: needs the program {command[0]}, which is not on PATH") from None
    if done.returncode:
        raise Vanished(wanted, done.stderr or done.stdout)
    return done.stdout


def _only_file(wanted: Input, folder: Path) -> bytes:
    found = [path for path in sorted(folder.iterdir()) if path.is_file()]
    if len(found) != 1:
        raise Vanished(wanted, f"{len(found)} files came instead of one")
    return found[0].read_bytes()


def apt(suite: str, arch: str, *more: str) -> list[str]:
    """An apt that knows one suite and one architecture, beside that of the host."""
    state = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k3s-build" / f"apt-{suite}-{arch}"
    sources = state / "sources.list"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    options = [
        *(
            f"-oDir::Etc::SourceList={sources}",
            "-oDir::Etc::SourceParts=/dev/null",
            f"-oDir::State::Lists={state}/lists",
        ),
        *(f"-oDir::Cache={state}/cache", f"-oAPT::Architecture={arch}", f"-oAPT::Architectures={arch}"),
        *("-oAPT::Sandbox::User=root", "-oDir::State::status=/dev/null"),
    ]
    if not sources.exists():
        sources.write_text(f"deb {_mirror()} {suite} main\n")
        done = subprocess.run(["apt-get", *options, "-qq", "update"], capture_output=True, text=True)
        if done.returncode:
            sources.unlink()
            raise LockError(f"cannot read the package list of Debian's {suite}: {done.stderr.strip()}")
    return [more[0], *options, *more[1:]]


def _mirror() -> str:
    """Where the host's own apt gets Debian packages from."""
    command = ["apt-get", "indextargets", "--format", "$(SITE)|$(REPO_URI)|$(ORIGIN)", "Created-By: Packages"]
    done = subprocess.run(command, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        site, uri, origin = line.split("|")
        if origin == "Debian" and "security" not in uri:
            return uri or site
    raise LockError("the host's apt knows no archive of Debian: run `apt-get update`, or build on Debian")


def _debian(wanted: Input, scratch: Path) -> bytes:
    arch = wanted.arch if wanted.arch in _PLATFORMS else "amd64"
    package = f"{wanted.name}={wanted.version}"
    _run(wanted, apt(wanted.suite, arch, "apt-get", "-qq", "download", package), scratch)
    return _only_file(wanted, scratch)


def pip_download(name: str, version: str, arch: str, source: bool) -> list[str]:
    """The command that gets one package for an architecture, or its sources."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", "."]
    if source:
        return [*command, "--no-binary=:all:", f"{name}=={version}"]
    command += ["--only-binary=:all:", f"--python-version={_ABI}", "--implementation=cp"]
    command += [f"--abi=cp{_ABI}", "--abi=abi3", "--abi=none"]
    for level in ("2_34", "2_28", "2_17", "2_12", "2_5"):
        command.append(f"--platform=manylinux_{level}_{_PLATFORMS[arch]}")
    for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux"):
        command.append(f"--platform={old}_{_PLATFORMS[arch]}")
    return [*command, f"{name}=={version}"]


def _pypi(wanted: Input, scratch: Path) -> bytes:
    arch = wanted.arch if wanted.arch in _PLATFORMS else "amd64"
    _run(wanted, pip_download(wanted.name, wanted.version, arch, wanted.suite == "sdist"), scratch)
    return _only_file(wanted, scratch)


def _npm(wanted: Input, scratch: Path) -> bytes:
    _run(wanted, ["npm", "pack", "--silent", f"{wanted.name}@{wanted.version}"], scratch)
    return _only_file(wanted, scratch)


def _url(wanted: Input, scratch: Path) -> bytes:
    try:
        with urllib.request.urlopen(wanted.url, timeout=60) as answer:
            data: bytes = answer.read()
            return data
    except (urllib.error.URLError, OSError) as error:
        raise Vanished(wanted, f"{wanted.url}: {error}") from None


def _git(wanted: Input, scratch: Path) -> bytes:
    """The tree of one commit as a tar of fixed bytes."""
    clone = scratch / "clone"
    _run(wanted, ["git", "init", "-q", str(clone)], scratch)
    # As single objects: how a server packs them is its own affair.
    loose = ["-c", "fetch.unpackLimit=1000000000", "-c", "core.autocrlf=false"]
    _run(wanted, ["git", *loose, "fetch", "-q", "--no-tags", "--depth=1", wanted.url, wanted.revision], clone)
    _run(wanted, ["git", *loose, "checkout", "-q", "--detach", "FETCH_HEAD"], clone)
    if wanted.leave_dot_git:
        _only_content(clone / ".git")
    else:
        shutil.rmtree(clone / ".git")
    return archive.tar(archive.members(clone))


def _only_content(folder: Path) -> None:
    """Leaves of a repository what the commit determines: objects, HEAD and where history was cut. The index with its
    times, logs, hooks and settings are the host's own."""
    for path in folder.iterdir():
        if path.name not in ("HEAD", "objects", "refs", "shallow"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _file(wanted: Input, scratch: Path) -> bytes:
    try:
        return Path(wanted.url).read_bytes()
    except OSError as error:
        raise Vanished(wanted, str(error)) from None


_WAYS: dict[str, Callable[[Input, Path], bytes]] = {
    "debian": _debian,
    "pypi": _pypi,
    "npm": _npm,
    "url": _url,
    "git": _git,
    "file": _file,
}
