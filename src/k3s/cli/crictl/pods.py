"""`crictl pods` and `inspectp`: which pods, and how they are shown."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from k3s.cli.crictl import gotemplate, output, words
from k3s.cli.crictl.containers import maps, selected
from k3s.cli.crictl.session import Failed, Session

Item = Mapping[str, Any]

_STATES = {"ready": "SANDBOX_READY", "notready": "SANDBOX_NOTREADY"}
_SHOWN = {"SANDBOX_READY": "Ready", "SANDBOX_NOTREADY": "NotReady"}
_HEAD = ("POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME")


async def find(session: Session) -> list[Item]:
    """The pods that the options choose."""
    options = session.options
    wanted: dict[str, Any] = {"label_selector": options.pairs("label")}
    if "id" in options.flags:
        wanted["id"] = options.text("id")
    if named := options.text("state"):
        if named.lower() not in _STATES:
            raise Failed("--state should be ready or notready")
        wanted["state"] = {"state": _STATES[named.lower()]}
    items = (await session.ask("ListPodSandbox", filter=wanted))["items"]
    return selected(items, options, lambda item: str((item["metadata"] or {}).get("namespace", "")))


async def pods(session: Session) -> None:
    """Lists pods."""
    options = session.options
    items = await find(session)
    if session.document("ListPodSandboxResponse", {"items": items}):
        return
    if options.on("quiet"):
        print("".join(f"{item['id']}\n" for item in items), end="")
    elif options.on("verbose"):
        print("".join(details(item) for item in items), end="")
    else:
        print(listing(items, session.clock.now(), full=options.on("no-trunc")), end="")


def state(item: Item) -> str:
    """A pod's state as tables have it."""
    return _SHOWN.get(item["state"], str(item["state"]))


def listing(items: Sequence[Item], now: float, *, full: bool = False) -> str:
    """The table of pods."""
    rows: list[Sequence[str]] = [_HEAD]
    for item in items:
        meta = item["metadata"] or {}
        rows.append(
            (
                item["id"] if full else words.short(item["id"]),
                words.ago(now - item["created_at"] / 1e9),
                state(item),
                meta.get("name", ""),
                meta.get("namespace", ""),
                str(meta.get("attempt", 0)),
                item["runtime_handler"] or "(default)",
            )
        )
    return words.table(rows)


def _named(item: Item) -> list[str]:
    meta = item["metadata"] or {}
    told = (("Name", "name"), ("UID", "uid"), ("Namespace", "namespace"))
    return [f"ID: {item['id']}", *(f"{title}: {meta[key]}" for title, key in told if meta.get(key))]


def details(item: Item) -> str:
    """A pod in lines."""
    lines = _named(item)
    attempt = (item["metadata"] or {}).get("attempt", 0)
    lines += [f"Attempt: {attempt}"] if attempt else []
    lines += [f"Status: {state(item)}", f"Created: {_time(item['created_at'])}"]
    lines += [*maps(item), f"Runtime: {item['runtime_handler'] or '(default)'}", ""]
    return "".join(f"{line}\n" for line in lines)


def _time(ns: int) -> str:
    """A time as Go prints it by itself."""
    local = datetime.datetime.fromtimestamp(ns // 10**9, datetime.UTC).astimezone()
    fraction = f".{ns % 10**9:09d}".rstrip("0").rstrip(".")
    return local.strftime("%Y-%m-%d %H:%M:%S") + fraction + local.strftime(" %z %Z")


async def inspectp(session: Session) -> None:
    """Tells all about pods."""
    options = session.options
    ids = session.words or [item["id"] for item in await find(session)]
    if not ids:
        raise Failed("No IDs provided or nothing found per filter")
    format, verbose = options.text("output") or "json", not options.on("quiet")
    answers = [await session.ask("PodSandboxStatus", pod_sandbox_id=one, verbose=verbose) for one in ids]
    if format == "table":
        print("".join(summary(answer, verbose=verbose) for answer in answers), end="")
        return
    told = [output.with_info(status(answer["status"]), answer["info"]) for answer in answers]
    print(output.statuses(told, format, options.text("template")), end="")


def status(value: Item) -> dict[str, Any]:
    """A pod's status for inspecting."""
    return output.status("PodSandboxStatus", value, {"createdAt": value["created_at"]})


def summary(answer: Item, *, verbose: bool) -> str:
    """A pod's status in lines."""
    value = answer["status"]
    lines = _named(value)
    lines += [f"Attempt: {value['metadata']['attempt']}"] if value["metadata"] else []
    lines += [f"Status: {value['state']}", f"Created: {_time(value['created_at'])}"]
    if network := value["network"]:
        lines.append(f"IP Addresses: {network['ip']}")
        lines += [f"Additional IP: {extra['ip']}" for extra in network["additional_ips"]]
    lines += maps(value)
    lines += [f"Info: {gotemplate.shown(answer['info'])}"] if verbose else []
    return "".join(f"{line}\n" for line in lines)
