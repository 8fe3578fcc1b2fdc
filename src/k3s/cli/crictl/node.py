"""The verbs about the runtime as a whole: version, info, events, its configuration, and crictl's own."""

from __future__ import annotations

import sys
from typing import Any

from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from k3s.cli.complaint import complain
from k3s.cli.crictl import gotemplate, output, settings, words
from k3s.cli.crictl.flags import UsageError
from k3s.cli.crictl.session import Failed, Session, reason
from k3s.kubelet.runtime.interface import RuntimeFailure


async def version(session: Session) -> None:
    """Tells which runtime this is."""
    answer = await session.ask("Version", version="v1")
    for title, key in (
        ("Version", "version"),
        ("RuntimeName", "runtime_name"),
        ("RuntimeVersion", "runtime_version"),
        ("RuntimeApiVersion", "runtime_api_version"),
    ):
        print(f"{title}:  {answer[key]}")


async def info(session: Session) -> None:
    """Tells how the runtime is."""
    answer = await session.ask("Status", verbose=not session.options.on("quiet"))
    value = output.with_info(output.plain("RuntimeStatus", answer["status"] or {}), answer["info"])
    if answer["runtime_handlers"]:
        value["runtimeHandlers"] = [output.struct("RuntimeHandler", item) for item in answer["runtime_handlers"]]
    if answer["features"] is not None:
        value["features"] = output.struct("RuntimeFeatures", answer["features"])
    print(output.statuses([value], session.options.text("output"), session.options.text("template")), end="")


async def events(session: Session) -> None:
    """Prints what happens to containers, without end."""
    format, template = session.options.text("output"), session.options.text("template")
    if format not in ("json", "yaml", "go-template"):
        raise Failed(f'don\'t support "{format}" format')
    if template and format != "go-template":
        raise Failed(f'template can\'t be used with "{format}" format')
    try:
        async for event in session.runtime.stream("GetContainerEvents"):
            if event is not None:
                print(_event(event, format, template), end="")
                sys.stdout.flush()
    except GRPCError as error:
        raise Failed(
            f"getting container events: {reason(RuntimeFailure(error.status.name, error.message or ''))}"
        ) from None
    except (OSError, StreamTerminatedError, ProtocolError) as error:
        raise Failed(f"getting container events: {error}") from None


def _event(event: dict[str, Any], format: str, template: str) -> str:
    value = output.plain("ContainerEventResponse", event)
    return gotemplate.render(template, value) + "\n" if format == "go-template" else output.document(value, format)


async def runtime_config(session: Session) -> None:
    """Tells which cgroup driver the runtime uses."""
    answer = await session.ask("RuntimeConfig")
    if answer["linux"] is not None:
        print(words.table([("cgroup driver:", answer["linux"]["cgroup_driver"])], width=10), end="")


async def update_runtime_config(session: Session) -> None:
    """Tells the runtime the range of the pods' addresses."""
    if not session.options.given("pod-cidr"):
        raise UsageError("nothing to update: use --pod-cidr")
    network = {"pod_cidr": session.options.text("pod-cidr")}
    await session.ask("UpdateRuntimeConfig", runtime_config={"network_config": network})
    complain("info", "Runtime config successfully updated", session.clock.now())


async def config(session: Session) -> None:
    """Shows and changes the file of crictl's own settings."""
    options, path = session.options, session.config
    found = settings.read(path)
    if options.given("get"):
        values = dict(found.items())
        if options.text("get") not in values:
            raise Failed(f"no configuration option named {options.text('get')}")
        print(_shown(values[options.text("get")]))
    elif options.on("list"):
        rows = [("KEY", "VALUE"), *((key, _shown(value)) for key, value in found.items())]
        print(words.table(rows), end="")
    else:
        pairs = [pair for text in options.all("set") for pair in text.split(",")]
        if not pairs and len(session.words) == 2:
            pairs = ["=".join(session.words)]
        if not pairs:
            raise UsageError("name what to do: --get KEY, --set KEY=VALUE or --list")
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise UsageError(f"incorrectly specified option: {pair}")
            found = found.changed(key, value)
        settings.write(path, found)


def _shown(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
