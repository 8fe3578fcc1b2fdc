"""The lock, the store and the ways to get inputs: against servers on the loopback address, offline otherwise."""

from __future__ import annotations

import hashlib
import http.server
import io
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from build import fetch, inputs, unpack
from build.inputs import Input, LockError, sri
from build.stage import Builder, Stage, Work
from build.store import Store, tree_hash

ROOT = Path(__file__).resolve().parents[2]


def row(data: bytes, **more: str) -> Input:
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
    thread = threading.Thread(target=listening.serve_forever)
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


@pytest.mark.parametrize("leave", [False, True])
def test_git_gives_the_same_bytes_each_time(tmp_path: Path, leave: bool) -> None:
    """A commit by its hash, with or without its .git folder, as a tar that does not depend on clone or time."""
    origin = tmp_path / "origin"
    origin.mkdir()
    for command in (
        ["git", "init", "-q"],
        ["git", "config", "uploadpack.allowAnySHA1InWant", "true"],
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        (origin / "file").write_text("text\n")
        subprocess.run(command, cwd=origin, check=True)
    subprocess.run(["git", "add", "."], cwd=origin, check=True)
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "y"], cwd=origin, check=True
    )
    revision = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=origin, text=True).strip()
    wanted = row(b"", kind="git", url=str(origin), revision=revision)
    wanted = replace(wanted, leave_dot_git=leave)
    first = fetch.download(wanted)
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        names = archive.getnames()
    assert "file" in names
    assert any(name.startswith(".git") for name in names) is leave
    if not leave:
        assert fetch.download(wanted) == first


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
