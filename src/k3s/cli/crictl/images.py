"""`crictl images`, `inspecti`, `pull`, `rmi` and `imagefsinfo`."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from k3s.cli.complaint import complain
from k3s.cli.crictl import configs, gotemplate, output, words
from k3s.cli.crictl.session import Failed, Session, each, reason
from k3s.kubelet.runtime.interface import RuntimeFailure

Item = Mapping[str, Any]

_NONE = "<none>"
# Pulling ends when the runtime says so; an hour is what nobody waits for.
_PULL_S = 3600.0


def repository(item: Item) -> tuple[str, str]:
    """Name and digest by the first of the repository's digests."""
    if not item["repo_digests"]:
        return _NONE, _NONE
    name, found, digest = item["repo_digests"][0].partition("@")
    return (name, digest) if found else ("errorName", "errorRepoDigest")


def tags(item: Item) -> list[tuple[str, str]]:
    """Names and tags; a name without a tag where an image came by its digest."""
    name, _ = repository(item)
    if not item["repo_tags"]:
        return [(name, _NONE)]
    pairs = [tag.rpartition(":")[::2] if ":" in tag else ("errorRepoTag", "errorRepoTag") for tag in item["repo_tags"]]
    return [(name if first == _NONE else first, tag) for first, tag in pairs]


def ordered(items: Sequence[Item]) -> list[Item]:
    """By name."""
    return sorted(items, key=lambda item: ((item["repo_tags"] or item["repo_digests"] or [item["id"]])[0], item["id"]))


def named(items: Sequence[Item], name: str) -> list[Item]:
    """Those with a name: `repository`, `repository:tag`, `repository@digest`, also in Docker's short form, or an id."""
    if not name:
        return list(items)
    first, slash, _ = name.partition("/")
    forms = {name}
    if not slash:
        forms.add(f"docker.io/library/{name}")
    elif "." not in first and ":" not in first and first != "localhost":
        forms.add(f"docker.io/{name}")

    def names(item: Item) -> set[str]:
        full = {*item["repo_tags"], *item["repo_digests"]}
        return (
            full
            | {tag.rpartition(":")[0] for tag in item["repo_tags"]}
            | {digest.partition("@")[0] for digest in item["repo_digests"]}
        )

    identifier = name.removeprefix("sha256:")
    by_id = re.fullmatch("[0-9a-f]{3,64}", identifier) is not None
    return [
        item
        for item in items
        if forms & names(item) or (by_id and item["id"].removeprefix("sha256:").startswith(identifier))
    ]


def filtered(items: Sequence[Item], filters: Sequence[str]) -> list[Item]:
    """Those that every filter leaves: dangling, reference, before and since. Raises Failed."""
    found = list(items)
    for text in filters:
        kind, _, value = text.partition("=")
        if kind == "dangling":
            found = [item for item in found if (not item["repo_tags"]) == (value == "true")]
        elif kind == "reference":
            found = [item for item in found if _refers(item, value)]
        elif kind in ("before", "since"):
            ends = [at for at, item in enumerate(found) if _is(item, value)]
            if kind == "since":
                found = found[: ends[0]] if ends else found
            else:
                found = found[ends[-1] + 1 :] if ends else found
        else:
            raise Failed(f"filter images: unknown filter flag: {text}")
    return found


def _refers(item: Item, pattern: str) -> bool:
    try:
        return re.search(pattern, repository(item)[0]) is not None
    except re.error as error:
        raise Failed(f"filter images: error parsing regexp: {error}") from None


def _is(item: Item, name: str) -> bool:
    if "@" in name:
        return any(digest.startswith(name) for digest in item["repo_digests"][:1])
    if ":" in name:
        return ":".join(tags(item)[0]) == name
    return bool(item["id"].startswith(name))


async def _list(session: Session, name: str) -> list[Item]:
    items = (await session.ask_images("ListImages"))["images"]
    return filtered(named(ordered(items), name), session.options.all("filter"))


async def images(session: Session) -> None:
    """Lists images."""
    options = session.options
    items = await _list(session, session.words[0] if session.words else "")
    if session.document("ListImagesResponse", {"images": items}):
        return
    if options.on("quiet"):
        print("".join(f"{item['id']}\n" for item in items), end="")
    elif options.on("verbose"):
        print("".join(details(item) for item in items), end="")
    else:
        columns = {name: options.on(name) for name in ("digests", "pinned")}
        print(listing(items, full=options.on("no-trunc"), **columns), end="")


def listing(items: Sequence[Item], *, full: bool = False, digests: bool = False, pinned: bool = False) -> str:
    """The table of images, a row a tag."""

    def row(name: str, tag: str, digest: str, identifier: str, size: str, pin: str) -> list[str]:
        return [name, tag, *([digest] if digests else []), identifier, size, *([pin] if pinned else [])]

    rows = [row("IMAGE", "TAG", "DIGEST", "IMAGE ID", "SIZE", "PINNED")]
    for item in items:
        identifier, digest = item["id"], repository(item)[1]
        if not full:
            identifier, digest = words.short(identifier, "sha256:"), words.short(digest, "sha256:")
        for name, tag in tags(item):
            pin = "true" if item["pinned"] else "false"
            rows.append(row(name, tag, digest, identifier, words.size(item["size"], 3), pin))
    return words.table(rows)


def details(item: Item) -> str:
    """An image in lines."""
    lines = [f"ID: {item['id']}"]
    lines += [f"RepoTags: {tag}" for tag in item["repo_tags"]]
    lines += [f"RepoDigests: {digest}" for digest in item["repo_digests"]]
    lines += [f"Size: {item['size']}"] if item["size"] else []
    lines += [f"Uid: value:{item['uid']['value']}"] if item["uid"] else []
    lines += [f"Username: {item['username']}"] if item["username"] else []
    lines += ["Pinned: true"] if item["pinned"] else []
    return "".join(f"{line}\n" for line in [*lines, ""])


async def inspecti(session: Session) -> None:
    """Tells all about images."""
    options = session.options
    ids = session.words or [item["id"] for item in await _list(session, options.text("name"))]
    if not ids:
        raise Failed("No IDs provided or nothing found per filter")
    format, verbose = options.text("output") or "json", not options.on("quiet")
    told = []
    for one in ids:
        answer = await session.ask_images("ImageStatus", image={"image": one}, verbose=verbose)
        if answer["image"] is None:
            raise Failed(f'no such image "{one}" present')
        if format == "table":
            print(summary(answer, verbose=verbose), end="")
        told.append(output.with_info(output.plain("Image", answer["image"]), answer["info"]))
    if format != "table":
        print(output.statuses(told, format, options.text("template")), end="")


def summary(answer: Item, *, verbose: bool) -> str:
    """An image's status in lines."""
    item = answer["image"]
    lines = [f"ID: {item['id']}", *(f"Tag: {tag}" for tag in item["repo_tags"])]
    lines += [*(f"Digest: {digest}" for digest in item["repo_digests"]), f"Size: {words.size(item['size'], 3)}"]
    lines += [f"Info: {gotemplate.shown(answer['info'])}"] if verbose else []
    return "".join(f"{line}\n" for line in lines)


def credentials(creds: str, auth: str, username: str = "", password: str = "") -> dict[str, str] | None:
    """How to authenticate with a registry: `username:password`, their base64, or a name and what was typed. Raises
    Failed."""
    if username:
        return {"username": username, "password": password}
    if creds and auth:
        raise Failed("both `--creds` and `--auth` are specified")
    if creds:
        name, _, secret = creds.partition(":")
        if not name:
            raise Failed("username can't be empty")
        return {"username": name, "password": secret}
    return {"auth": auth} if auth else None


def asked_credentials(session: Session) -> dict[str, str] | None:
    """The credentials of the options; asks for a password when there is only a name."""
    options = session.options
    username = options.text("username")
    typed = getpass.getpass("Enter Password:") if username else ""
    return credentials(options.text("creds"), options.text("auth"), username, typed)


async def fetch(
    session: Session, image: str, sandbox: Mapping[str, Any] | None, annotations: Mapping[str, str] | None = None
) -> str:
    """Has the runtime pull an image; its reference. Raises RuntimeFailure."""
    answer = await session.ask_images(
        "PullImage",
        session.options.seconds("pull-timeout") or _PULL_S,
        image={"image": image, "annotations": annotations or {}},
        auth=asked_credentials(session),
        sandbox_config=sandbox,
    )
    return str(answer["image_ref"])


async def pull(session: Session) -> None:
    """Pulls an image."""
    options = session.options
    path = options.text("pod-config")
    sandbox = configs.sandbox(path) if path else None
    try:
        reference = await fetch(session, session.words[0], sandbox, options.pairs("annotation"))
    except RuntimeFailure as failure:
        raise Failed(f"pulling image: {reason(failure)}") from None
    print(f"Image is up to date for {reference}")


async def rmi(session: Session) -> None:
    """Removes images: those named, all, or all that no container uses and nobody pinned."""
    options = session.options
    everything, prune = options.on("all"), options.on("prune")
    ids = dict.fromkeys(session.words)
    if everything or prune:
        items = (await session.ask_images("ListImages"))["images"]
        ids |= dict.fromkeys(item["id"] for item in items if not (prune and item["pinned"]))
    if prune:
        for name in await _in_use(session):
            found = (await session.ask_images("ImageStatus", image={"image": name}))["image"]
            if found:
                ids.pop(found["id"], None)
    if not ids:
        if not everything and not prune:
            raise Failed("name an image, or use --all or --prune")
        complain("info", "No images to remove", session.clock.now())

    async def remove(identifier: str) -> None:
        found = (await session.ask_images("ImageStatus", image={"image": identifier}))["image"]
        if found is None:
            raise Failed(f"no such image {identifier}")
        try:
            await session.ask_images("RemoveImage", image={"image": identifier})
        except RuntimeFailure as failure:
            if prune:  # someone else may have been faster
                return
            raise Failed(f'error of removing image "{identifier}": {reason(failure)}') from None
        print("".join(f"Deleted: {name}\n" for name in found["repo_tags"] or found["repo_digests"]), end="")

    await each(ids, remove)


async def _in_use(session: Session) -> set[str]:
    """The images of containers, and the one that the runtime itself runs in every pod: older ones do not pin it."""
    names = {item["image"]["image"] for item in (await session.ask("ListContainers"))["containers"]}
    told = (await session.ask("Status", verbose=True))["info"].get("config", "")
    own = json.loads(told).get("sandboxImage") if told.startswith("{") else None
    return names | {own} if own else names


async def imagefsinfo(session: Session) -> None:
    """Tells how much of which file systems images and containers take."""
    format = session.options.text("output") or "json"
    answer = await session.ask_images("ImageFsInfo")
    if format == "table":
        print(filesystems(answer), end="")
        return
    value = {"status": output.plain("ImageFsInfoResponse", answer)}
    print(output.statuses([value], format, session.options.text("template")), end="")


def filesystems(answer: Item) -> str:
    """File systems in lines."""
    lines = []
    for title in ("container", "image"):
        lines.append(f"{title.capitalize()} Filesystem ")
        for at, fs in enumerate(answer[f"{title}_filesystems"]):
            lines += [f"TimeStamp[{at}]: {fs['timestamp']}", f"Disk[{at}]: {words.size(value(fs['used_bytes']))}"]
            lines += [f"Inodes[{at}]: {value(fs['inodes_used'])}"]
            lines += [f"Mountpoint[{at}]: {(fs['fs_id'] or {}).get('mountpoint', '')}"]
    return "".join(f"{line}\n" for line in lines)


def value(wrapped: Mapping[str, Any] | None) -> int:
    """A number that may be missing."""
    return int(wrapped["value"]) if wrapped else 0
