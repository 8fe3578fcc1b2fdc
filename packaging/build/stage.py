"""The runner of stages: each a pure function of its inputs, built once for a set of them, with its own output hash."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from build import fetch, patches, unpack
from build.inputs import ANY, Input, LockError, pick
from build.store import Store, tree_hash, tree_size


@dataclass(frozen=True)
class Stage:
    """One step. `inputs` are names of the lock, `needs` other stages, `sources` files of this repository."""

    name: str
    make: Callable[[Work], None]
    inputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    #: Globs below the repository's root.
    sources: tuple[str, ...] = ()
    #: Names of what the whole build was told and this stage depends on.
    facts: tuple[str, ...] = ()
    #: Names of the lock that not every architecture has: taken where they are.
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """A stage's output: where, its hash, bytes, seconds (0 when it was there)."""

    name: str
    folder: Path
    hash: str
    size: int
    seconds: float
    reused: bool


@dataclass
class Work:
    """What a stage has at hand while it is made."""

    arch: str
    out: Path
    root: Path
    rows: Mapping[str, Input]
    files: Mapping[str, Path]
    stages: Mapping[str, Path]
    facts: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    patched: bool = False

    def patch(self, folder: Path) -> None:
        """Applies the patches of this stage to what it has unpacked. Raises LockError."""
        patches.apply(patches.found(self.root, self.name), folder, self.name)
        self.patched = True

    def tree(self, name: str, folder: Path) -> None:
        """The files of an input below a folder. Raises LockError."""
        unpack.tree(self.rows[name], self.input(name), folder)

    def input(self, name: str) -> bytes:
        """The bytes of an input."""
        return self.files[name].read_bytes()


class Builder:
    """Builds stages for one architecture out of one lock and one store."""

    def __init__(
        self,
        stages: Sequence[Stage],
        rows: Sequence[Input],
        store: Store,
        arch: str,
        root: Path,
        facts: dict[str, str],
        host: Builder | None = None,
    ) -> None:
        self._stages = {stage.name: stage for stage in stages}
        self._rows = rows
        self._store = store
        self._arch = arch
        self._root = root
        self._facts = facts
        #: The builder for the architecture of this machine, when that is another one.
        self._host = host
        self.built: dict[str, Built] = {}

    def build(self, name: str) -> Built:
        """The output of a stage, with all that it needs; `<stage>-host` is that of this machine. Raises LockError."""
        if name.endswith("-host"):
            assert self._host is not None, f"{name} is wanted where this machine builds for itself"
            return self._host.build(name.removesuffix("-host"))
        if name in self.built:
            return self.built[name]
        stage = self._stages[name]
        needs = {need: self.build(need) for need in stage.needs}
        key = self._key(stage, needs)
        began = time.monotonic()
        found = self._store.stage(key)
        if found is None:
            rows = self._inputs(stage)
            files = {wanted: fetch.get(row, self._store) for wanted, row in rows.items()}
            with self._store.making(key) as out:
                stages = {need: built.folder for need, built in needs.items()}
                try:
                    work = Work(self._arch, out, self._root, rows, files, stages, self._facts, name)
                    stage.make(work)
                except OSError as error:
                    raise LockError(f"stage {name}: {error}") from error
                if patches.found(self._root, name) and not work.patched:
                    raise LockError(f"stage {name}: it has patches, but nothing that can be patched")
            folder = self._store.folder / "stages" / key
            self._store.know(key, {"hash": tree_hash(folder), "size": tree_size(folder)})
            found = self._store.stage(key)
            assert found is not None
        folder, about = found
        reused = time.monotonic() - began < 0.05
        self.built[name] = Built(name, folder, about["hash"], about["size"], time.monotonic() - began, reused)
        self._say(self.built[name])
        return self.built[name]

    def _inputs(self, stage: Stage) -> dict[str, Input]:
        there = {row.name for row in self._rows if row.arch in (self._arch, ANY)}
        names = (*stage.inputs, *(name for name in stage.optional if name in there))
        return {name: pick(self._rows, name, self._arch) for name in names}

    def _key(self, stage: Stage, needs: Mapping[str, Built]) -> str:
        parts = {
            "arch": self._arch,
            "code": {name: _digest(path) for name, path in sorted(_code(stage.make.__module__).items())},
            "name": stage.name,
            "inputs": {name: row.taken for name, row in self._inputs(stage).items()},
            "patches": [_digest(path) for path in patches.found(self._root, stage.name)],
            "needs": {name: built.hash for name, built in needs.items()},
            "sources": {path: _digest(self._root / path) for path in self._sources(stage)},
            "facts": {name: self._facts[name] for name in stage.facts},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _sources(self, stage: Stage) -> list[str]:
        found = [path for glob in stage.sources for path in self._root.glob(glob) if path.is_file()]
        names = {path.relative_to(self._root).as_posix() for path in found if "__pycache__" not in path.parts}
        return sorted(names)

    def _say(self, built: Built) -> None:
        how = "kept" if built.reused else f"{built.seconds:.1f} s"
        print(f"  {built.name:<12} {built.hash[:12]}  {built.size / 1e6:7.1f} MB  {how}", flush=True)


#: Modules that say how stages are run, and nothing of what comes out of them.
_RUNNING = ("build.fetch", "build.inputs", "build.stage", "build.store")


def _code(name: str, found: dict[str, Path] | None = None) -> dict[str, Path]:
    """The files of a stage's module and of those of the build that it uses."""
    found = {} if found is None else found
    module = sys.modules[name]
    found[name] = Path(inspect.getsourcefile(module) or "")
    for value in vars(module).values():
        used = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
        if isinstance(used, str) and used.startswith("build.") and used not in (*found, *_RUNNING):
            _code(used, found)
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
