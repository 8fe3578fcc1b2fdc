"""Stage stub: our own static programs, the launcher and pause, for one architecture and made on any."""

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
    """`bin/k3s`, the launcher without a payload, which the multi-call names of the payload lead to; `libexec/pause`."""
    scratch = work.out / "scratch"
    with zipfile.ZipFile(io.BytesIO(work.input("ziglang"))) as wheel:
        wheel.extractall(scratch / "zig")
    (scratch / "zig/ziglang/zig").chmod(0o755)
    with tarfile.open(fileobj=io.BytesIO(work.input("zstandard"))) as sources:
        unpack.tar(sources, scratch / "zstd", lambda name: name.rpartition("/")[2] if "/zstd/" in name else None)
    work.patch(scratch / "zstd")
    shutil.copytree(work.root / "packaging/launcher", scratch / "source")
    _compile(scratch, work.arch, work.out / "bin/k3s", "launcher.c", "../zstd/zstd.c")
    _compile(scratch, work.arch, work.out / "libexec/pause", "pause.c")
    shutil.rmtree(scratch)


def _compile(scratch: Path, arch: str, target: Path, *sources: str) -> None:
    # Relative names only, so that the bytes do not tell where they were made.
    command = [
        *(str(scratch / "zig/ziglang/zig"), "cc", "-target", _TARGETS[arch], "-static", "-Os", "-s", "-D_GNU_SOURCE"),
        *("-DNDEBUG", "-DZSTD_DISABLE_ASM", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"),
        *("-Wl,--build-id=none", "-Wall", "-Wno-unused-function", "-Wno-format-truncation", "-I../zstd"),
        *("-o", "program", *sources),
    ]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(scratch), "ZIG_GLOBAL_CACHE_DIR": str(scratch / "cache")}
    env["ZIG_LOCAL_CACHE_DIR"] = str(scratch / "local")
    done = subprocess.run(command, cwd=scratch / "source", env=env, capture_output=True, text=True)
    if done.returncode:
        raise LockError(f"cannot compile {sources[0]}: {done.stderr[-3000:]}")
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(scratch / "source/program", target)
    target.chmod(0o755)
