"""Makes `lock.toml` of `wanted.toml` and the run-time lock: of each input the present version, bytes, licence."""

from __future__ import annotations

import email
import io
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from build import fetch
from build.inputs import ANY, ARCHITECTURES, Input, LockError, sri
from build.store import Store

#: Names that Python packages give to licences in prose.
_NAMES = {
    "MIT License": "MIT",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "BSD-3-Clause License": "BSD-3-Clause",
    "new BSD": "BSD-3-Clause",
}


def refreshed(wanted: Path, requirements: Path, store: Store) -> list[Input]:
    """Every input at its present version; the bytes go into the store. Raises LockError."""
    rows = tomllib.loads(wanted.read_text())
    found: list[Input] = []
    for suite in rows.get("debian", ()):
        for package in suite["packages"]:
            for arch in _architectures(package):
                found.append(_debian(suite["suite"], package, arch, store))
    for package in (package for table in rows.get("pypi", ()) for package in table["packages"]):
        found += _program(package, store)
    for kind in ("npm", "url", "git", "file"):
        for package in (package for table in rows.get(kind, ()) for package in table["packages"]):
            found += [_as_it_is(kind, package, arch, store) for arch in _architectures(package)]
    for name, version in pinned(requirements):
        for arch in ARCHITECTURES:
            row = _pypi(name, version, arch, "", store)
            if row.file.endswith("-none-any.whl"):
                found.append(_with_arch(row, ANY))
                break
            found.append(row)
    return sorted(found)


def pinned(requirements: Path) -> Iterator[tuple[str, str]]:
    """Names and versions of a lock of pip."""
    for match in re.finditer(r"^([A-Za-z0-9._-]+)==([^ \\]+)", requirements.read_text(), re.MULTILINE):
        yield match.group(1), match.group(2)


def _architectures(package: dict[str, Any]) -> tuple[str, ...]:
    """Those that a package is wanted for: its `arch`, every one alike for `any`, else each."""
    return (ANY,) if package.get("any") else tuple(package.get("arch", ARCHITECTURES))


def _as_it_is(kind: str, package: dict[str, Any], arch: str, store: Store) -> Input:
    """A row whose version is the one that is wanted. In an address or a file's name, {version} and {arch} stand for
    themselves. Raises LockError that names the field."""
    needed = {"url": ("url",), "git": ("url", "revision"), "file": ("url",), "npm": ()}[kind]
    if missing := [name for name in ("name", "version", "licence", *needed) if not package.get(name)]:
        raise LockError(f"wanted.toml: {kind} {package.get('name', 'without a name')} has no {missing[0]}")
    name, version = package["name"], package["version"]
    url = package.get("url", "").format(version=version, arch=arch)
    file = {"git": f"{name}.tar", "npm": f"{name.strip('@').replace('/', '-')}-{version}.tgz"}.get(kind)
    draft = Input(
        kind,
        name,
        version,
        arch,
        file or url.partition("?")[0].rpartition("/")[2],
        "sha256-",
        package["licence"],
        url=url,
        revision=package.get("revision", ""),
        **{flag: bool(package.get(flag)) for flag in ("unpack", "strip_root", "leave_dot_git")},
    )
    data = fetch.download(draft)
    store.keep(data)
    return replace(draft, hash=sri(data))


def _with_arch(row: Input, arch: str) -> Input:
    return replace(row, arch=arch)


def _debian(suite: str, package: dict[str, Any], arch: str, store: Store) -> Input:
    name = package["name"]
    apt = fetch.apt(suite, "amd64" if arch == ANY else arch, "apt-cache", "policy", name)
    done = subprocess.run(apt, capture_output=True, text=True)
    version = re.search(r"Candidate: (\S+)", done.stdout)
    if version is None or version.group(1) == "(none)":
        raise LockError(f"Debian's {suite} has no {name} for {arch}: correct wanted.toml")
    draft = Input("debian", name, version.group(1), arch, "-", "sha256-", package["licence"], suite)
    data = fetch.download(draft)
    store.keep(data)
    file = f"{name}_{draft.version.rpartition(':')[2]}_{'all' if arch == ANY else arch}.deb"
    return Input("debian", name, draft.version, arch, file, sri(data), draft.licence, suite)


def _program(package: dict[str, Any], store: Store) -> Iterator[Input]:
    name, version, licence = package["name"], package["version"], package["licence"]
    if package.get("source"):
        yield _pypi(name, version, ANY, licence, store, "sdist")
    elif package.get("any") or package.get("host"):
        # A tool of the build runs on the machine that builds: its row is the one of amd64, the machine of releases.
        yield _with_arch(_pypi(name, version, "amd64", licence, store), ANY)
    else:
        for arch in _architectures(package):
            yield _pypi(name, version, arch, licence, store)


def _pypi(name: str, version: str, arch: str, licence: str, store: Store, suite: str = "") -> Input:
    with tempfile.TemporaryDirectory() as scratch:
        command = fetch.pip_download(name, version, arch, suite == "sdist")
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        files = sorted(Path(scratch).iterdir())
        if done.returncode or len(files) != 1:
            raise LockError(f"{name} {version} for {arch} cannot be had: {done.stderr.strip()[-300:]}")
        data, file = files[0].read_bytes(), files[0].name
    store.keep(data)
    return Input("pypi", name, version, arch, file, sri(data), licence or licence_of(file, data), suite)


def licence_of(file: str, data: bytes) -> str:
    """The licence that a wheel says it has. Raises LockError when it says nothing."""
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(wheel.read(name))
    text = said.get("License-Expression") or said.get("License") or ""
    if not text or "\n" in text:
        classified = [c for c in said.get_all("Classifier", ()) if c.startswith("License ::")]
        text = classified[0].rpartition(":: ")[2] if classified else ""
    if not text:
        raise LockError(f"{file} does not say its licence: name it in wanted.toml")
    return _NAMES.get(text.strip(), text.strip())


def main() -> None:
    """Refreshes the lock and prints what changed."""
    from build import inputs

    here = Path(__file__).resolve().parents[1]
    lock = here / "lock.toml"
    store = Store(Path(sys.argv[1]))
    old = inputs.load(lock) if lock.exists() else []
    new = refreshed(here / "wanted.toml", here.parent / "requirements.lock", store)
    lock.write_text(inputs.dump(new))
    print("\n".join(inputs.changes(old, new)) or "nothing changed")


if __name__ == "__main__":
    main()
