"""What goes into a build: one row an input, pinned by hash, named as its registry names it and never by a host.

`wanted.toml` says what is wanted, `lock.toml` which version and bytes that is. A row's kind is one of debian, pypi, npm
(reached through their ordinary clients), url, git and file.
"""

from __future__ import annotations

import base64
import hashlib
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

KINDS = ("debian", "pypi", "npm", "url", "git", "file")
ARCHITECTURES = ("amd64", "arm64")
#: An input of every architecture.
ANY = "any"


class LockError(Exception):
    """A lock that cannot be read or an input that is not what it says; says which and what to do."""


@dataclass(frozen=True, slots=True, order=True)
class Input:
    """One file from outside. `hash` is in the form of subresource integrity: `sha256-<base64>`."""

    kind: str
    name: str
    version: str
    arch: str
    file: str
    hash: str
    licence: str
    #: Debian: the suite it comes from. pypi: `sdist` for a source package, the tag of the interpreter otherwise.
    suite: str = ""
    url: str = ""
    #: url: unpack the archive, without this many leading folders.
    unpack: bool = False
    strip_root: bool = False
    #: git: the commit, and whether its .git folder stays.
    revision: str = ""
    leave_dot_git: bool = False

    @property
    def title(self) -> str:
        """How it is called in messages."""
        return f"{self.name} {self.version} ({self.kind}, {self.arch})"

    @property
    def taken(self) -> str:
        """What a stage sees of it: its bytes, and how they are laid out."""
        return self.hash + "".join(f" {flag}" for flag in ("unpack", "strip_root") if getattr(self, flag))

    @property
    def digest(self) -> str:
        """The SHA-256 of its bytes, in hexadecimal."""
        return base64.b64decode(self.hash.removeprefix("sha256-")).hex()


def sri(data: bytes) -> str:
    """The hash of bytes as it stands in a lock."""
    return "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode()


def load(path: Path) -> list[Input]:
    """The rows of a lock. Raises LockError that names the row and the field."""
    try:
        rows = tomllib.loads(path.read_text()).get("input", [])
    except FileNotFoundError:
        raise LockError(f"{path} is missing: run `make lock`") from None
    except tomllib.TOMLDecodeError as error:
        raise LockError(f"{path}: {error}") from None
    return [_row(path, number, row) for number, row in enumerate(rows, 1)]


def _row(path: Path, number: int, row: dict[str, Any]) -> Input:
    known = {field.name for field in fields(Input)}
    where = f"{path.name}: input {number} ({row.get('name', 'without a name')})"
    if unknown := sorted(set(row) - known):
        raise LockError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    missing = [name for name in ("kind", "name", "version", "arch", "file", "hash", "licence") if not row.get(name)]
    if missing:
        raise LockError(f"{where}: field {missing[0]!r} is missing")
    if row["kind"] not in KINDS:
        raise LockError(f"{where}: kind {row['kind']!r} is none of {', '.join(KINDS)}")
    if row["arch"] not in (*ARCHITECTURES, ANY):
        raise LockError(f"{where}: arch {row['arch']!r} is none of {', '.join((*ARCHITECTURES, ANY))}")
    if not row["hash"].startswith("sha256-") or len(row["hash"]) != 51:
        raise LockError(f"{where}: hash {row['hash']!r} is not of the form sha256-<base64 of 32 bytes>")
    return Input(**row)


def dump(rows: Iterable[Input]) -> str:
    """A lock as text, in order."""
    out = ["# Every input of a build. Made by `make lock`; a change of it is a change of the executable.\n"]
    for row in sorted(rows):
        out.append("\n[[input]]\n")
        for field in fields(Input):
            value = getattr(row, field.name)
            if value is True:
                out.append(f"{field.name} = true\n")
            elif value:
                out.append(f'{field.name} = "{value}"\n')
    return "".join(out)


def pick(rows: Sequence[Input], name: str, arch: str, kind: str = "") -> Input:
    """The row of a name for an architecture. Raises LockError."""
    found = [row for row in rows if row.name == name and row.arch in (arch, ANY) and kind in ("", row.kind)]
    if not found:
        raise LockError(f"lock.toml has no {name} for {arch}: add it to wanted.toml and run `make lock`")
    return found[0]


def changes(old: Sequence[Input], new: Sequence[Input]) -> list[str]:
    """What a refreshed lock changes, a line each, with licences."""

    def by_name(rows: Sequence[Input]) -> dict[tuple[str, str, str], Input]:
        return {(row.kind, row.name, row.arch): row for row in rows}

    before, after = by_name(old), by_name(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was == now:
            continue
        title = f"{key[1]} ({key[0]}, {key[2]})"
        if was is None and now is not None:
            lines.append(f"added    {title} {now.version}, {now.licence}")
        elif now is None and was is not None:
            lines.append(f"removed  {title} {was.version}")
        elif was is not None and now is not None:
            licence = f", licence {was.licence} -> {now.licence}" if was.licence != now.licence else f", {now.licence}"
            version = f"{was.version} -> {now.version}" if was.version != now.version else f"{now.version}, other bytes"
            lines.append(f"changed  {title} {version}{licence}")
    return lines
