"""A release: everything that is handed out, in one folder, with its sums. The same sources give the same bytes."""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from build import distribution
from build.command import ROOT, builder, default_store, host, publish
from build.inputs import ARCHITECTURES, LockError
from build.store import Store

#: Stages whose output is of one architecture, and those that fit every machine.
_EACH = ("executable", "deb", "images")
_ONCE = ("wheel", "sdist")


def release(archs: Sequence[str], store: Store, out: Path, level: int = 19) -> list[Path]:
    """Builds all of it into `out`, which must not hold anything else; the files, sorted. Raises LockError."""
    if out.exists() and any(out.iterdir()):
        raise LockError(f"{out} is not empty: a release is made in a folder of its own")
    notes = section((ROOT / "CHANGELOG.md").read_text(), f"v{distribution.version(ROOT)}")
    for arch in archs:
        maker = builder(arch, store, level=level)
        for stage in _EACH:
            publish(maker.build(stage), out)
        shutil.copyfile(maker.build("bill").folder / "sbom.spdx.json", out / f"k3s-{arch}.spdx.json")
    for stage in _ONCE:
        publish(builder(host(), store).build(stage), out)
    shutil.copy(ROOT / "packaging/install.sh", out / "install.sh")
    (out / "CHANGELOG.md").write_text(notes)
    made = sorted(out.iterdir())
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made)
    (out / "sha256sum.txt").write_text(sums)
    return [*made, out / "sha256sum.txt"]


def section(changelog: str, version: str) -> str:
    """What a changelog says of one version. Raises LockError when it says nothing."""
    found = re.search(rf"^## {re.escape(version)}(?: [^\n]*)?\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE)
    if found is None or not found.group(1).strip():
        raise LockError(f"CHANGELOG.md has no section about {version}: write what users see of it")
    return f"## {version}\n\n{found.group(1).strip()}\n"


def main() -> None:
    """Releases what is committed."""
    parser = argparse.ArgumentParser(prog="release", description="Builds everything that a release hands out.")
    parser.add_argument("--store", type=Path, default=default_store(), help="folder of fetched inputs and built stages")
    parser.add_argument("--out", type=Path, default=ROOT / f"dist/v{distribution.version(ROOT)}")
    options = parser.parse_args()
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout
    try:
        if changed:
            raise LockError(f"commit first, a release names its commit; changed: {changed.split()[1]}")
        release(ARCHITECTURES, Store(options.store), options.out)
    except LockError as error:
        print(re.sub(r"^", "release: ", str(error), flags=re.MULTILINE), file=sys.stderr)
        sys.exit(1)
    print((options.out / "sha256sum.txt").read_text(), end="")
