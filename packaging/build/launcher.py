"""Stage stub: the static program that the executable begins with, for one architecture and made on any."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from build import unpack
from build.inputs import LockError
from build.stage import Work

_TARGETS = {"amd64": "x86_64-linux-musl", "arm64": "aarch64-linux-musl"}


def stub(work: Work) -> None:
    """`bin/k3s`: the launcher without a payload, which the multi-call names of the payload lead to."""
    (work.out / "bin").mkdir()
    _compiled(work, work.out / "bin/k3s")


def _compiled(work: Work, target: Path) -> None:
    scratch = work.out / "scratch"
    with zipfile.ZipFile(io.BytesIO(work.input("ziglang"))) as wheel:
        wheel.extractall(scratch / "zig")
    zig = scratch / "zig/ziglang/zig"
    zig.chmod(0o755)
    with tarfile.open(fileobj=io.BytesIO(work.input("zstandard"))) as sources:
        unpack.tar(sources, scratch / "zstd", lambda name: name.rpartition("/")[2] if "/zstd/" in name else None)
    source = scratch / "source"
    shutil.copytree(work.root / "packaging/launcher", source)
    # Relative names only, so that the bytes do not tell where they were made.
    command = [
        *(str(zig), "cc", "-target", _TARGETS[work.arch], "-static", "-Os", "-s", "-D_GNU_SOURCE", "-DNDEBUG"),
        *("-DZSTD_DISABLE_ASM", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-Wl,--build-id=none"),
        *("-Wall", "-Wno-unused-function", "-Wno-format-truncation", "-I../zstd", "-o", "launcher"),
        *("launcher.c", "../zstd/zstd.c"),
    ]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(scratch), "ZIG_GLOBAL_CACHE_DIR": str(scratch / "cache")}
    env["ZIG_LOCAL_CACHE_DIR"] = str(scratch / "local")
    done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True)
    if done.returncode:
        raise LockError(f"cannot compile the launcher: {done.stderr[-3000:]}")
    shutil.copyfile(source / "launcher", target)
    target.chmod(0o755)
    shutil.rmtree(scratch)
