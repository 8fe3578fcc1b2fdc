"""Making volumes real: folders, tmpfs, bind mounts, and files that change all at once.

The atomic writer keeps a volume's files in a folder of their own behind a link `..data`: a new version is written
beside the old one and the link is swapped, so a reader sees all of the old files or all of the new.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from k3s.kubelet import volumes
from k3s.kubelet.volumes import File, Plan, VolumeError

_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
_DATA = "..data"
_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    arguments = [os.fsencode(text) for text in (source, target, kind)]
    if _libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(options)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Cannot mount {kind or source} on {target}: {os.strerror(code)}")


def _unmount(target: str) -> None:
    if _libc.umount2(os.fsencode(target), _MNT_DETACH) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Cannot unmount {target}: {os.strerror(code)}")


def prepare(plan: Plan) -> None:
    """Makes the place of a volume. Raises VolumeError with the reason for people."""
    if plan.kind == volumes.HOST:
        _host_path(plan.path, plan.host_type)
        return
    path = Path(plan.path)
    path.mkdir(parents=True, exist_ok=True, mode=0o755)
    if plan.kind == volumes.MEMORY and not os.path.ismount(path):
        # Without a size a tmpfs may take half of the memory: files of ours are small.
        size = plan.size_bytes or (0 if not plan.payload else 64 << 20)
        try:
            _mount("tmpfs", plan.path, "tmpfs", options=f"size={size}" if size else "")
        except OSError as error:
            raise VolumeError(str(error)) from None
    if not plan.payload:
        os.chmod(path, 0o777)
    if plan.group is not None and not plan.payload:
        os.chown(path, -1, plan.group)
        os.chmod(path, 0o2777)


def _host_path(path: str, kind: str) -> None:
    """Checks or makes a hostPath by its type (HostPathType of the API)."""
    target = Path(path)
    if kind == "DirectoryOrCreate":
        target.mkdir(parents=True, exist_ok=True, mode=0o755)
    elif kind == "FileOrCreate" and not target.exists():
        target.touch(mode=0o644)
    elif not kind:
        # The runtime would do the same: a missing path becomes a folder.
        if not target.exists():
            target.mkdir(parents=True, exist_ok=True, mode=0o755)
        return
    tests = {
        "Directory": (stat.S_ISDIR, "a directory"),
        "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
        "File": (stat.S_ISREG, "a file"),
        "FileOrCreate": (stat.S_ISREG, "a file"),
        "Socket": (stat.S_ISSOCK, "a socket file"),
        "CharDevice": (stat.S_ISCHR, "a character device"),
        "BlockDevice": (stat.S_ISBLK, "a block device"),
    }
    test, what = tests[kind]
    if not target.exists() or not test(target.stat().st_mode):
        raise VolumeError(f"hostPath type check failed: {path} is not {what}")


def write_files(folder: str, files: Mapping[str, File], *, group: int | None = None, owner: int | None = None) -> bool:
    """Makes `folder` show exactly these files, all at once; tells whether anything changed. Raises VolumeError."""
    root = Path(folder)
    for path in files:
        if path.startswith("/") or ".." in path.split("/"):
            raise VolumeError(f"invalid path {path!r} in a volume: it has to stay inside")
    link = root / _DATA
    old = os.readlink(link) if link.is_symlink() else ""
    if old and _same(root / old, files):
        return False
    version = _next_version(root, old)
    target = root / version
    target.mkdir(mode=0o755)
    for path, (content, mode) in files.items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        file.write_bytes(content)
        if owner is not None and mode == 0o600:
            os.chown(file, owner, -1)
        if group is not None:
            os.chown(file, -1, group)
            mode |= 0o040
        os.chmod(file, mode)
    temporary = root / "..data_tmp"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(version)
    temporary.replace(link)
    _link_names(root, {path.split("/")[0] for path in files})
    if old:
        shutil.rmtree(root / old, ignore_errors=True)
    return True


def _next_version(root: Path, old: str) -> str:
    number = int(old.removeprefix("..v")) + 1 if old.startswith("..v") else 1
    while (root / f"..v{number}").exists():
        shutil.rmtree(root / f"..v{number}")
    return f"..v{number}"


def _same(folder: Path, files: Mapping[str, File]) -> bool:
    there = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    if there.keys() != files.keys():
        return False
    return all(there[path].read_bytes() == content for path, (content, _mode) in files.items())


def _link_names(root: Path, names: set[str]) -> None:
    for name in names:
        entry = root / name
        if not entry.is_symlink():
            entry.symlink_to(f"{_DATA}/{name}")
    for entry in root.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()


def bind_subpath(volume: str, subpath: str, target: str, *, readonly: bool = False) -> str:
    """Binds one path inside a volume to `target` and answers it; made as a folder when it is missing.

    Each step is opened without following links, so that what a container wrote into its volume cannot lead outside of
    it; links that a volume of ours made itself (`..data`) are followed within the volume. Raises VolumeError.
    """
    handle = _open_inside(volume, subpath)
    try:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        place = Path(target)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        if os.path.ismount(place) or _is_mounted(target):
            _unmount(target)
        if is_folder:
            place.mkdir(exist_ok=True, mode=0o750)
        else:
            place.touch(mode=0o640)
        _mount(f"/proc/self/fd/{handle}", target, "", _MS_BIND | _MS_REC)
        return target
    except OSError as error:
        raise VolumeError(f"failed to prepare subPath {subpath!r}: {error}") from None
    finally:
        os.close(handle)


def _open_inside(volume: str, subpath: str) -> int:
    parts = [part for part in subpath.split("/") if part not in ("", ".")]
    if ".." in parts or subpath.startswith("/"):
        raise VolumeError(f"subPath {subpath!r} must not lead outside of the volume")
    handle = os.open(volume, os.O_PATH | os.O_DIRECTORY)
    hops = 0
    try:
        while parts:
            part = parts.pop(0)
            inner = _open_step(handle, part)
            if not stat.S_ISLNK(os.fstat(inner).st_mode):
                os.close(handle)
                handle = inner
                continue
            try:
                link = os.readlink("", dir_fd=inner)
            finally:
                os.close(inner)
            hops += 1
            if link.startswith("/") or ".." in link.split("/") or hops > 8:
                raise VolumeError(f"subPath {subpath!r} contains the link {part!r}, which leads outside of the volume")
            parts = [*(step for step in link.split("/") if step not in ("", ".")), *parts]
    except OSError as error:
        os.close(handle)
        raise VolumeError(f"failed to prepare subPath {subpath!r}: {error}") from None
    except VolumeError:
        os.close(handle)
        raise
    return handle


def _open_step(folder: int, part: str) -> int:
    """Opens what is called `part`, a link itself rather than what it names; makes a folder when there is nothing.

    What is opened is what is looked at: whoever swaps it meanwhile, as a container may, wins nothing.
    """
    try:
        return os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        pass
    with contextlib.suppress(FileExistsError):
        os.mkdir(part, 0o750, dir_fd=folder)
        made = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        try:
            os.fchmod(made, 0o777)
        finally:
            os.close(made)
    return os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)


def _is_mounted(path: str) -> bool:
    return path in _mount_points()


def _mount_points() -> list[str]:
    return [_unescaped(line.split(b" ", 5)[4]) for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]


def _unescaped(field: bytes) -> str:
    """A field of mountinfo: its bytes are a path's, but for blanks and backslashes, which are octal numbers."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field))


def unmount_below(folder: str) -> None:
    """Unmounts everything below `folder`, the innermost first. Raises OSError."""
    inside = [point for point in _mount_points() if point == folder or point.startswith(folder + "/")]
    for point in sorted(inside, key=len, reverse=True):
        _unmount(point)


def remove_folder(folder: str) -> None:
    """Removes a pod's folder; refuses (OSError) while something is still mounted below, so that no data is lost."""
    unmount_below(folder)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
