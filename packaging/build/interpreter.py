"""Stages libraries, python and k3s: an interpreter of our own with the locked packages, all compiled to bytecode."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from build import distribution, unpack
from build.inputs import LockError
from build.stage import Work

VERSION = "3.14"
LIBRARY_PACKAGES = (
    *(
        "libc6",
        "libgcc-s1",
        "libstdc++6",
        "libseccomp2",
        "zlib1g",
        "libexpat1",
        "libffi8",
        "libssl3t64",
        "libsqlite3-0",
    ),
    *("libzstd1", "libbz2-1.0", "liblzma5", "libuuid1", "libnftables1", "libnftnl11", "libmnl0", "libjansson4"),
    *("libgmp10", "libedit2", "libbsd0", "libmd0", "libtinfo6", "libnetfilter-conntrack3", "libnfnetlink0"),
    *("libxtables12", "liblz4-1", "libxxhash0", "libblake3-0", "libcap2", "libjson-c5", "libsystemd0"),
)
PYTHON_PACKAGES = ("python3.14-minimal", "libpython3.14-minimal", "libpython3.14-stdlib")
#: Of the standard library nothing of ours, nor of the packages, imports these.
_LEFT_OUT = re.compile(
    r"(test|idlelib|tkinter|turtledemo|lib2to3|ensurepip|pydoc_data|curses|dbm|venv|__phello__|config-3\.14[^/]*"
    r"|_pyrepl|wsgiref|xmlrpc|pydoc\.|turtle\.|this\.|antigravity\.)"
)
_EXTENSIONS_LEFT_OUT = ("_curses", "_dbm", "_gdbm", "_tkinter", "readline", "_test", "_xx", "xx", "_ctypes_test")
LOADERS = {"amd64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}
_HOSTS = {"x86_64": "amd64", "aarch64": "arm64"}


def libraries(work: Work) -> None:
    """The C library with its loader, and what the programs and extensions need of others."""

    def place(name: str) -> str | None:
        found = re.fullmatch(r"(?:usr/)?lib(?:64)?/(?:[a-z0-9_]+-linux-gnu/)?((?:lib|ld-)[^/]+\.so[^/]*)", name)
        return f"lib/{found.group(1)}" if found else None

    for package in LIBRARY_PACKAGES:
        unpack.tar(unpack.debian(work.input(package)), work.out, place)
    for unused in ("libsqlite3.so", "libmemusage.so", "libpcprofile.so", "libnsl.so.1", "libasan.so"):
        (work.out / "lib" / unused).unlink(missing_ok=True)
    _links_inside(work.out / "lib")


def _links_inside(folder: Path) -> None:
    """Links to the place that a library has on Debian become links to the one beside them."""
    for path in folder.iterdir():
        if path.is_symlink():
            target = path.readlink().name
            path.unlink()
            if (folder / target).exists() and target != path.name:
                path.symlink_to(target)


def python(work: Work) -> None:
    """The interpreter, its library and the locked packages, side by side so that one folder is searched."""

    def place(name: str) -> str | None:
        if name == f"usr/bin/python{VERSION}":
            return "bin/python3"
        inner = name.removeprefix(f"usr/lib/python{VERSION}/")
        if inner == name or _LEFT_OUT.match(inner) or "__pycache__" in inner:
            return None
        if inner.startswith("lib-dynload/") and inner.removeprefix("lib-dynload/").startswith(_EXTENSIONS_LEFT_OUT):
            return None
        return f"lib/python{VERSION}/{inner}"

    for package in PYTHON_PACKAGES:
        unpack.tar(unpack.debian(work.input(package)), work.out, place)
    for name in work.files:
        if name not in PYTHON_PACKAGES:
            unpack.wheel(work.input(name), work.out / f"lib/python{VERSION}", _of_wheel)
    work.patch(work.out)
    compile_all(work, work.out)


def _of_wheel(name: str) -> str | None:
    if "/" not in name:
        return name
    if re.match(r"[^/]+\.(dist-info|data)/", name) or re.search(r"(^|/)(tests?|include|examples)/", name):
        return None
    return None if name.endswith((".pyx", ".pxd", ".c", ".h", ".pyi")) else name


def k3s(work: Work) -> None:
    """Our own package and its data."""
    for name, data in distribution.modules(work).items():
        target = work.out / f"lib/python{VERSION}" / name
        if not name.startswith("k3s/sim/"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    compile_all(work, work.out)


def compile_all(work: Work, folder: Path) -> None:
    """Replaces every module by its bytecode, made by the interpreter that will run it, which bytes do not depend on the
    machine or the time."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        program = _interpreter(work, home, folder)
        code = (
            "import py_compile, pathlib, sys\n"
            "root = pathlib.Path(sys.argv[1])\n"
            "mode = py_compile.PycInvalidationMode.UNCHECKED_HASH\n"
            "for path in sorted(root.rglob('*.py')):\n"
            "    if path.is_symlink():\n"
            "        path.unlink()\n"
            "        continue\n"
            "    name = path.relative_to(root).as_posix()\n"
            "    try:\n"
            "        py_compile.compile(str(path), str(path.with_suffix('.pyc')), name, True, 0, mode)\n"
            "    except py_compile.PyCompileError as error:\n"
            "        print(error, file=sys.stderr)\n"
            "    path.unlink()\n"
        )
        env = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"}
        command = [*program, "-ISB", "-c", code, str(folder)]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            raise LockError(f"cannot compile modules: {done.stderr[-2000:]}")


def _interpreter(work: Work, home: Path, folder: Path) -> list[str]:
    """The command of the interpreter to compile with: that of this machine's architecture."""
    host = _HOSTS[platform.machine()]
    libraries, python = work.stages["libraries"], work.stages.get("python", folder)
    if host != work.arch:
        libraries, python = work.stages["libraries-host"], work.stages["python-host"]
    shutil.copytree(python, home / "python", symlinks=True)
    shutil.copytree(libraries / "lib", home / "python/lib", symlinks=True, dirs_exist_ok=True)
    return [
        *(str(home / "python/lib" / LOADERS[host]), "--library-path", str(home / "python/lib")),
        str(home / "python/bin/python3"),
    ]
