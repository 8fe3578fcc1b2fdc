"""The lock, the store and the ways to get inputs: against servers on the loopback address, offline otherwise."""

from __future__ import annotations

import hashlib
import http.server
import io
import lzma
import socketserver
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from build import archive, fetch, inputs, refresh, unpack
from build.archive import Member
from build.inputs import Input, LockError, sri
from build.stage import Builder, Stage, Work
from build.store import Store, tree_hash

ROOT = Path(__file__).resolve().parents[2]


def row(data: bytes, **more: Any) -> Input:
    """An input by address."""
    made = Input("url", "thing", "1.0", "any", "thing.bin", sri(data), "MIT")
    return replace(made, **more)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves a folder by HTTP; its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_the_committed_lock_is_whole() -> None:
    """Every row can be read, and names no host."""
    rows = inputs.load(ROOT / "packaging/lock.toml")
    assert {"containerd", "runc", "python3.14-minimal", "msgspec", "ziglang"} <= {row.name for row in rows}
    assert not [row.title for row in rows if row.url]
    for name in ("containerd", "cryptography"):
        assert inputs.pick(rows, name, "arm64").digest != inputs.pick(rows, name, "amd64").digest
    assert inputs.dump(rows) == (ROOT / "packaging/lock.toml").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"licence": ""}, "field 'licence' is missing"),
        ({"kind": "cargo"}, "kind 'cargo' is none of"),
        ({"arch": "s390x"}, "arch 's390x' is none of"),
        ({"hash": "md5-x"}, "is not of the form sha256-"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, str], told: str) -> None:
    """The error says which row and which field."""
    good = {
        "kind": "url",
        "name": "thing",
        "version": "1",
        "arch": "any",
        "file": "f",
        "hash": sri(b""),
        "licence": "MIT",
    }
    lines = [f'{key} = "{value}"' for key, value in {**good, **change}.items()]
    (tmp_path / "lock.toml").write_text("[[input]]\n" + "\n".join(lines))
    with pytest.raises(LockError, match=rf"lock.toml: input 1 \(thing\): .*{told}"):
        inputs.load(tmp_path / "lock.toml")


def test_what_comes_is_kept_and_not_asked_for_again(tmp_path: Path, server: str) -> None:
    """A second build needs no network."""
    (tmp_path / "served/thing.bin").write_bytes(b"content")
    wanted = row(b"content", url=f"{server}/thing.bin")
    store = Store(tmp_path / "store")
    assert fetch.get(wanted, store).read_bytes() == b"content"
    (tmp_path / "served/thing.bin").unlink()
    assert fetch.get(wanted, store).read_bytes() == b"content"


def test_other_bytes_than_locked_are_not_kept(tmp_path: Path, server: str) -> None:
    """Both hashes are named, and nothing stays in the store."""
    (tmp_path / "served/thing.bin").write_bytes(b"something else")
    store = Store(tmp_path / "store")
    with pytest.raises(LockError, match=r"expected sha256-.*, got sha256-.*nothing of it is kept") as told:
        fetch.get(row(b"content", url=f"{server}/thing.bin"), store)
    assert sri(b"content") in str(told.value)
    assert sri(b"something else") in str(told.value)
    assert not list((tmp_path / "store/files").iterdir())


def test_damage_in_the_store_is_noticed(tmp_path: Path, server: str) -> None:
    """A file whose bytes changed is fetched again."""
    (tmp_path / "served/thing.bin").write_bytes(b"content")
    wanted = row(b"content", url=f"{server}/thing.bin")
    store = Store(tmp_path / "store")
    fetch.get(wanted, store).write_bytes(b"rotten")
    assert fetch.get(wanted, store).read_bytes() == b"content"


def test_what_has_vanished_names_the_remedy(tmp_path: Path, server: str) -> None:
    """A version that its registry no longer has."""
    with pytest.raises(fetch.Vanished, match=r"thing 1\.0.*cannot be had any more(.|\n)*make lock"):
        fetch.get(row(b"content", url=f"{server}/gone"), Store(tmp_path / "store"))


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A repository with two commits, served on the loopback address; its address, and the older commit."""
    origin = tmp_path / "repositories/origin"
    origin.mkdir(parents=True)

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *who, *words], cwd=origin, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    (origin / "file").write_text("text\n")
    (origin / "run").write_text("#!/bin/sh\n")
    (origin / "run").chmod(0o755)
    (origin / "link").symlink_to("file")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    revision = git("rev-parse", "HEAD").strip()
    (origin / "file").write_text("other\n")
    git("commit", "-q", "-a", "-m", "y")
    daemon = ["git", "daemon", "--inetd", "--export-all", f"--base-path={origin.parent}"]

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            subprocess.run(daemon, stdin=self.request, stdout=self.request, check=False)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"git://127.0.0.1:{listening.server_address[1]}/origin", revision
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("leave", [False, True])
def test_git_gives_the_same_bytes_each_time(tmp_path: Path, repository: tuple[str, str], leave: bool) -> None:
    """A commit by its hash, with or without its .git folder, as a tar that does not depend on clone or time."""
    address, revision = repository
    wanted = replace(row(b"", kind="git", url=address, revision=revision), leave_dot_git=leave)
    data = fetch.download(wanted)
    assert fetch.download(wanted) == data
    tree = tmp_path / "tree"
    unpack.tree(wanted, data, tree)
    assert (tree / "file").read_text() == "text\n" and (tree / "run").stat().st_mode & 0o100
    assert (tree / "link").readlink() == Path("file")
    assert (tree / ".git").exists() is leave
    if leave:
        told = subprocess.check_output(["git", "log", "--format=%H %s"], cwd=tree, text=True)
        assert told == f"{revision} x\n"


def test_a_commit_that_is_not_there(repository: tuple[str, str]) -> None:
    """It has vanished, as a version may."""
    with pytest.raises(fetch.Vanished, match=r"thing 1\.0"):
        fetch.download(row(b"", kind="git", url=repository[0], revision="0" * 40))


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../b", "a\\b"])
def test_no_archive_leaves_its_folder(tmp_path: Path, name: str) -> None:
    """Absolute paths, dots and backslashes are refused by name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with (
        tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive,
        pytest.raises(LockError, match="leaves its folder"),
    ):
        unpack.tar(archive, tmp_path, lambda name: name)


def test_a_refreshed_lock_tells_its_changes() -> None:
    """Versions, licences, what came and what went."""
    old = [row(b"a"), row(b"b", name="gone"), row(b"c", name="moved", licence="MIT")]
    new = [row(b"a2", version="1.1"), row(b"d", name="fresh"), row(b"c", name="moved", licence="GPL-3.0-only")]
    assert inputs.changes(old, new) == [
        "added    fresh (url, any) 1.0, MIT",
        "removed  gone (url, any) 1.0",
        "changed  moved (url, any) 1.0, other bytes, licence MIT -> GPL-3.0-only",
        "changed  thing (url, any) 1.0 -> 1.1, MIT",
    ]


def _write(work: Work) -> None:
    (work.out / "file").write_bytes(work.input("thing"))


def _copy(work: Work) -> None:
    (work.out / "copy").write_bytes((work.stages["first"] / "file").read_bytes() + b"!")


def test_a_stage_is_built_again_only_when_an_input_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same inputs give the output of before; others another; each with its own hash."""
    store = Store(tmp_path / "store")
    stages = [Stage("first", _write, ("thing",)), Stage("second", _copy, (), ("first",))]

    def build(data: bytes) -> tuple[bool, str]:
        wanted = row(data)
        store.add(wanted, data)
        builder = Builder(stages, [wanted], store, "amd64", ROOT, {})
        built = builder.build("second")
        assert (built.folder / "copy").read_bytes() == data + b"!"
        assert built.hash == tree_hash(built.folder)
        return builder.built["first"].reused and built.reused, built.hash

    first = build(b"one")
    again = build(b"one")
    other = build(b"two")
    assert again == (True, first[1])
    assert other[1] != first[1]
    assert "second" in capsys.readouterr().out


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A half-made output is never taken for a whole one."""

    def broken(work: Work) -> None:
        (work.out / "half").write_text("x")
        raise OSError("no space left")

    store = Store(tmp_path / "store")
    builder = Builder([Stage("bad", broken)], [], store, "amd64", ROOT, {})
    with pytest.raises(LockError, match="stage bad: no space left"):
        builder.build("bad")
    assert not list((tmp_path / "store/stages").iterdir())


def test_the_hash_of_a_tree_sees_what_matters(tmp_path: Path) -> None:
    """Names, contents, execute bits and links; not times."""
    (tmp_path / "a").write_text("x")
    hashes = {tree_hash(tmp_path)}
    (tmp_path / "a").chmod(0o755)
    hashes.add(tree_hash(tmp_path))
    (tmp_path / "link").symlink_to("a")
    hashes.add(tree_hash(tmp_path))
    (tmp_path / "a").write_text("y")
    hashes.add(tree_hash(tmp_path))
    assert len(hashes) == 4
    (tmp_path / "a").touch()
    assert tree_hash(tmp_path) in hashes


def test_a_digest_is_that_of_the_bytes() -> None:
    """The form in the lock and the name in the store say the same."""
    assert row(b"content").digest == hashlib.sha256(b"content").hexdigest()


def _archive(names: dict[str, bytes | str], form: str) -> bytes:
    """A tar (of a compression) or zip; a text is the target of a link."""
    if form == "zip":
        return archive.zipped({name: data for name, data in names.items() if isinstance(data, bytes)})
    members = [
        Member(name, link=data)
        if isinstance(data, str)
        else Member(name, data, mode=0o755 if name.endswith("run") else 0o644)
        for name, data in names.items()
    ]
    packers = {"tar": bytes, "gz": archive.gzipped, "xz": lzma.compress, "zst": zstandard.ZstdCompressor().compress}
    return packers[form](archive.tar(members))


def _unpacked(folder: Path, wanted: Input, store: Store) -> dict[str, bytes]:
    """What a stage finds of an input."""

    def make(work: Work) -> None:
        work.tree(wanted.name, work.out / "tree")

    built = Builder([Stage("unpacked", make, (wanted.name,))], [wanted], store, "amd64", folder, {}).build("unpacked")
    tree = built.folder / "tree"
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", ["tar", "gz", "xz", "zst", "zip"])
def test_an_archive_by_its_address(tmp_path: Path, server: str, form: str) -> None:
    """It is one file, or what is in it, or that without the one folder at its top: as its row says."""
    data = _archive({"thing-1.0/src/main.c": b"int", "thing-1.0/run": b"#!"}, form)
    (tmp_path / "served/thing.bin").write_bytes(data)
    store = Store(tmp_path / "store")
    wanted = row(data, url=f"{server}/thing.bin")
    assert _unpacked(tmp_path, wanted, store) == {"thing.bin": data}
    whole = replace(wanted, unpack=True)
    assert set(_unpacked(tmp_path, whole, store)) == {"thing-1.0/src/main.c", "thing-1.0/run"}
    stripped = replace(whole, strip_root=True)
    assert _unpacked(tmp_path, stripped, store) == {"src/main.c": b"int", "run": b"#!"}
    if form != "zip":
        [tree] = (tmp_path / "store/stages").glob("*/tree/run")
        assert tree.stat().st_mode & 0o111 and not (tree.parent / "src/main.c").stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"a/x": b"", "b/y": b""}, r"strip_root needs one folder at the top of thing.bin, not \['a', 'b'\]"),
        ({"x": b""}, "strip_root needs one folder"),
        ({"a/out": "/etc", "a/out/passwd": b"x"}, "leaves its folder by a link"),
        ({"a/out": "../../..", "a/out/x": b"x"}, "leaves its folder by a link"),
        ({"a/../../x": b""}, "leaves its folder"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, server: str, names: dict[str, bytes | str], told: str) -> None:
    """Several folders where one is to be left out; paths and links that lead out."""
    data = _archive(names, "gz")
    (tmp_path / "served/thing.bin").write_bytes(data)
    wanted = row(data, url=f"{server}/thing.bin", unpack=True, strip_root=True)
    with pytest.raises(LockError, match=told):
        _unpacked(tmp_path, wanted, Store(tmp_path / "store"))


def test_no_archive_at_all(tmp_path: Path, server: str) -> None:
    """What is neither tar nor zip is named."""
    (tmp_path / "served/thing.bin").write_bytes(b"text")
    wanted = replace(row(b"text", url=f"{server}/thing.bin"), unpack=True)
    with pytest.raises(LockError, match=r"thing 1\.0 .*: thing.bin is no tar or zip"):
        _unpacked(tmp_path, wanted, Store(tmp_path / "store"))


def test_wanted_addresses_are_pinned(tmp_path: Path, server: str, repository: tuple[str, str]) -> None:
    """`make lock` takes url, git and file as wanted.toml has them, for each architecture or for all alike."""
    for arch in ("amd64", "arm64"):
        (tmp_path / f"served/tool-2.0-{arch}.bin").write_bytes(arch.encode())
    (tmp_path / "local").write_bytes(b"local")
    address, revision = repository
    (tmp_path / "wanted.toml").write_text(
        f"""
[[url]]
packages = [{{ name = "tool", version = "2.0", licence = "MIT", url = "{server}/tool-{{version}}-{{arch}}.bin" }}]
[[git]]
packages = [{{ name = "source", version = "1", licence = "MIT", any = true, url = "{address}", revision = "{revision}",
leave_dot_git = true }}]
[[file]]
packages = [{{ name = "mine", version = "1", licence = "MIT", arch = ["arm64"], url = "{tmp_path}/local" }}]
""".replace("\nleave_dot_git", " leave_dot_git")
    )
    (tmp_path / "none.lock").write_text("")
    store = Store(tmp_path / "store")
    rows = refresh.refreshed(tmp_path / "wanted.toml", tmp_path / "none.lock", store)
    assert [(found.name, found.arch, found.file) for found in rows] == [
        ("mine", "arm64", "local"),
        ("source", "any", "source.tar"),
        ("tool", "amd64", "tool-2.0-amd64.bin"),
        ("tool", "arm64", "tool-2.0-arm64.bin"),
    ]
    (tmp_path / "lock.toml").write_text(inputs.dump(rows))
    assert inputs.load(tmp_path / "lock.toml") == rows
    assert rows[1].leave_dot_git and fetch.get(rows[1], store).read_bytes() == fetch.download(rows[1])
    (tmp_path / "wanted.toml").write_text('[[git]]\npackages = [{ name = "x", version = "1", licence = "MIT" }]')
    with pytest.raises(LockError, match=r"wanted.toml: git x has no url"):
        refresh.refreshed(tmp_path / "wanted.toml", tmp_path / "none.lock", store)


_PATCH = """--- a/file
+++ b/file
@@ -1 +1 @@
-{was}
+{now}
"""


def _patched(root: Path, store: Store, *, takes: bool = True) -> str:
    def make(work: Work) -> None:
        (work.out / "file").write_bytes(work.input("thing"))
        if takes:
            work.patch(work.out)

    wanted = row(b"content\n")
    store.add(wanted, b"content\n")
    built = Builder([Stage("first", make, ("thing",))], [wanted], store, "amd64", root, {}).build("first")
    return (built.folder / "file").read_text()


def test_patches_of_a_stage(tmp_path: Path) -> None:
    """They change what the stage has unpacked and cause it to be built again; one that does not fit is named, and so
    is a stage that has no use for them."""
    store = Store(tmp_path / "store")
    assert _patched(tmp_path, store) == "content\n"
    folder = tmp_path / "packaging/patches/first"
    folder.mkdir(parents=True)
    (folder / "1-better.patch").write_text(_PATCH.format(was="content", now="patched"))
    assert _patched(tmp_path, store) == "patched\n"
    with pytest.raises(LockError, match="stage first: it has patches, but nothing that can be patched"):
        _patched(tmp_path, Store(tmp_path / "other"), takes=False)
    (folder / "2-worse.patch").write_text(_PATCH.format(was="something else", now="x"))
    with pytest.raises(LockError, match=r"stage first: 2-worse.patch does not fit(.|\n)*FAILED(.|\n)*Make it anew"):
        _patched(tmp_path, store)


def test_what_only_one_architecture_has(tmp_path: Path) -> None:
    """An optional input is taken where the lock has it, and left out elsewhere."""
    store = Store(tmp_path / "store")
    rows = [row(b"x", arch="amd64")]
    store.add(rows[0], b"x")

    def make(work: Work) -> None:
        (work.out / "names").write_text(" ".join(work.rows))

    def names(arch: str) -> str:
        built = Builder([Stage("some", make, optional=("thing",))], rows, store, arch, tmp_path, {}).build("some")
        return (built.folder / "names").read_text()

    assert (names("amd64"), names("arm64")) == ("thing", "")
