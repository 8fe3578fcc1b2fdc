"""`crictl ps` and `inspect`: which containers, and how they are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from k3s.cli.crictl import gotemplate, output, words
from k3s.cli.crictl.flags import Options
from k3s.cli.crictl.session import Failed, Session
from k3s.kubelet.runtime.interface import POD_NAME, POD_NAMESPACE

Item = Mapping[str, Any]

_STATES = {
    "created": "CONTAINER_CREATED",
    "running": "CONTAINER_RUNNING",
    "exited": "CONTAINER_EXITED",
    "unknown": "CONTAINER_UNKNOWN",
}
_HEAD = ("CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE")


def selected(items: Sequence[Item], options: Options, namespace_of: Callable[[Item], str]) -> list[Item]:
    """Those whose name and namespace fit the patterns, the youngest first, as many as were asked for."""
    found = [
        item
        for item in items
        if matches(options.text("name"), (item["metadata"] or {}).get("name", ""))
        and matches(options.text("namespace"), namespace_of(item))
    ]
    found.sort(key=lambda item: -item["created_at"])
    count = options.number("last") or (1 if options.on("latest") else len(found))
    return found[:count]


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern is found in a text; one that is none fits nothing."""
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def namespace(item: Item) -> str:
    """The pod's namespace, as a container's labels tell it."""
    return str(item["labels"].get(POD_NAMESPACE, "unknown"))


def state(text: str) -> str:
    """`CONTAINER_RUNNING` as tables have it."""
    return text.removeprefix("CONTAINER_").capitalize()


async def find(session: Session) -> list[Item]:
    """The containers that the options choose: without `--all` or a state only those that run."""
    options = session.options
    wanted: dict[str, Any] = {"label_selector": options.pairs("label"), "pod_sandbox_id": options.text("pod")}
    if "id" in options.flags:
        wanted["id"] = options.text("id")
    if named := options.text("state"):
        if named.lower() not in _STATES:
            raise Failed("--state should be one of created, running, exited or unknown")
        wanted["state"] = {"state": _STATES[named.lower()]}
    elif "all" not in options.flags or not options.on("all"):
        wanted["state"] = {"state": "CONTAINER_RUNNING"}
    if options.on("latest") or options.number("last"):
        wanted.pop("state", None)
    items = (await session.ask("ListContainers", filter=wanted))["containers"]
    if image := options.text("image"):
        wanted_id = await image_id(session, image)
        items = [item for item in items if wanted_id and wanted_id == await image_id(session, item["image"]["image"])]
    return selected(items, options, namespace)


async def image_id(session: Session, name: str) -> str:
    """The id of an image; "" when it is not there."""
    found = (await session.ask_images("ImageStatus", image={"image": name}))["image"]
    return str(found["id"]) if found else ""


async def ps(session: Session) -> None:
    """Lists containers."""
    options = session.options
    items = await find(session)
    if session.document("ListContainersResponse", {"containers": items}):
        return
    now = session.clock.now()
    if options.on("quiet"):
        print("".join(f"{item['id']}\n" for item in items), end="")
    elif options.on("verbose"):
        print("".join(details(item, now) for item in items), end="")
    else:
        tags = await _tags(session, items) if options.on("resolve-image-path") else {}
        print(listing(items, now, full=options.on("no-trunc"), tags=tags), end="")


async def _tags(session: Session, items: Sequence[Item]) -> dict[str, str]:
    tags = {}
    for image in {item["image"]["image"] for item in items}:
        found = (await session.ask_images("ImageStatus", image={"image": image}))["image"]
        if found and found["repo_tags"]:
            tags[image] = found["repo_tags"][0]
    return tags


def listing(items: Sequence[Item], now: float, *, full: bool = False, tags: Mapping[str, str] | None = None) -> str:
    """The table of containers; `tags` are names to show for images."""
    rows: list[Sequence[str]] = [_HEAD]
    for item in items:
        image = (item["image"] or {}).get("image", "")
        shown = image if full or not image.startswith("sha256:") else words.short(image, "sha256:")
        rows.append(
            (
                item["id"] if full else words.short(item["id"]),
                (tags or {}).get(image, shown),
                words.ago(now - item["created_at"] / 1e9),
                state(item["state"]),
                (item["metadata"] or {}).get("name", ""),
                str((item["metadata"] or {}).get("attempt", 0)),
                item["pod_sandbox_id"] if full else words.short(item["pod_sandbox_id"]),
                item["labels"].get(POD_NAME, "unknown"),
                namespace(item),
            )
        )
    return words.table(rows)


def details(item: Item, now: float) -> str:
    """A container in lines."""
    lines = [f"ID: {item['id']}", f"PodID: {item['pod_sandbox_id']}", f"Namespace: {namespace(item)}"]
    if meta := item["metadata"]:
        lines += [f"Name: {meta['name']}"] if meta["name"] else []
        lines.append(f"Attempt: {meta['attempt']}")
    lines.append(f"State: {state(item['state'])}")
    lines += [f"Image: {item['image']['image']}"] if item["image"] else []
    lines.append(f"Created: {words.ago(now - item['created_at'] / 1e9)}")
    return "".join(f"{line}\n" for line in [*lines, *maps(item), ""])


def maps(item: Item) -> list[str]:
    """Labels and annotations in lines."""
    lines = []
    for title in ("labels", "annotations"):
        if item[title]:
            lines += [f"{title.capitalize()}:", *(f"\t{key} -> {item[title][key]}" for key in sorted(item[title]))]
    return lines


async def inspect(session: Session) -> None:
    """Tells all about containers."""
    options = session.options
    ids = session.words or [item["id"] for item in await find(session)]
    if not ids:
        raise Failed("No IDs provided or nothing found per filter")
    format, verbose = options.text("output") or "json", not options.on("quiet")
    answers = [await session.ask("ContainerStatus", container_id=one, verbose=verbose) for one in ids]
    if format == "table":
        now = session.clock.now()
        print("".join(summary(answer, now, verbose=verbose) for answer in answers), end="")
        return
    told = [output.with_info(status(answer["status"]), answer["info"]) for answer in answers]
    print(output.statuses(told, format, options.text("template")), end="")


def status(value: Item) -> dict[str, Any]:
    """A container's status for inspecting: what has not happened yet is at Go's beginning of time."""
    began = value["state"] != "CONTAINER_CREATED"
    ended = value["state"] == "CONTAINER_EXITED" or (value["state"] == "CONTAINER_UNKNOWN" and value["finished_at"] > 0)
    moments = {
        "createdAt": value["created_at"],
        "startedAt": value["started_at"] if began else 0,
        "finishedAt": value["finished_at"] if ended else 0,
    }
    return output.status("ContainerStatus", value, moments)


def summary(answer: Item, now: float, *, verbose: bool) -> str:
    """A container's status in lines."""
    value = answer["status"]
    lines = [f"ID: {value['id']}"]
    if meta := value["metadata"]:
        lines += [f"Name: {meta['name']}"] if meta["name"] else []
        lines += [f"Attempt: {meta['attempt']}"] if meta["attempt"] else []
    lines += [f"State: {value['state']}", f"Created: {words.ago(now - value['created_at'] / 1e9)}"]
    if value["state"] != "CONTAINER_CREATED":
        lines.append(f"Started: {words.ago(now - value['started_at'] / 1e9)}")
    if value["state"] == "CONTAINER_EXITED":
        lines += [f"Finished: {words.ago(now - value['finished_at'] / 1e9)}"] if value["finished_at"] else []
        lines.append(f"Exit Code: {value['exit_code']}")
    lines += maps(value)
    lines += [f"Info: {gotemplate.shown(answer['info'])}"] if verbose else []
    return "".join(f"{line}\n" for line in lines)
