"""The verbs that make, change and end pods and containers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k3s.cli.complaint import complain
from k3s.cli.crictl import configs, images
from k3s.cli.crictl.flags import UsageError
from k3s.cli.crictl.session import Failed, Session, each, reason
from k3s.kubelet.runtime.connection import REQUEST_S
from k3s.kubelet.runtime.interface import RuntimeFailure


async def _tell(
    session: Session, doing: str, method: str, timeout_s: float = REQUEST_S, **request: Any
) -> dict[str, Any]:
    """Asks, and says in an error what was being done."""
    try:
        return await session.ask(method, timeout_s, **request)
    except RuntimeFailure as failure:
        raise Failed(f"{doing}: {reason(failure)}") from None


async def runp(session: Session) -> None:
    """Runs a pod of a file."""
    print(await _sandbox(session, configs.sandbox(session.words[0])))


async def _sandbox(session: Session, config: Mapping[str, Any]) -> str:
    answer = await _tell(
        session,
        "run pod sandbox",
        "RunPodSandbox",
        session.options.seconds("cancel-timeout") or 2 * REQUEST_S,
        config=config,
        runtime_handler=session.options.text("runtime"),
    )
    return str(answer["pod_sandbox_id"])


async def create(session: Session) -> None:
    """Makes a container in a pod."""
    pod, config, sandbox = session.words
    print(await _container(session, pod, config, configs.sandbox(sandbox), pulls=session.settings.pull_image_on_create))


async def run(session: Session) -> None:
    """Runs a pod with a container."""
    config, path = session.words
    sandbox = configs.sandbox(path)
    pod = await _sandbox(session, sandbox)
    pulls = not session.settings.disable_pull_on_run
    container = await _container(session, pod, config, sandbox, pulls=pulls)
    await _start(session, container)


async def _container(session: Session, pod: str, path: str, sandbox: Mapping[str, Any], *, pulls: bool) -> str:
    config, options = configs.container(path), session.options
    if options.on("no-pull") and options.on("with-pull"):
        raise UsageError("conflict: no-pull and with-pull are both set")
    if options.on("with-pull") or (pulls and not options.on("no-pull")):
        mounted = [mount["image"]["image"] for mount in config.get("mounts", ()) if mount.get("image")]
        for name in [config["image"]["image"], *mounted]:
            complain("info", f"Pulling container image: {name}", session.clock.now())
            try:
                await images.fetch(session, name, sandbox, config["image"].get("annotations"))
            except RuntimeFailure as failure:
                raise Failed(f"creating container: {reason(failure)}") from None
    timeout_s = options.seconds("cancel-timeout") or REQUEST_S
    request = {"pod_sandbox_id": pod, "config": config, "sandbox_config": sandbox}
    answer = await _tell(session, "creating container", "CreateContainer", timeout_s, **request)
    return str(answer["container_id"])


async def start(session: Session) -> None:
    """Starts created containers."""
    for one in session.words:
        await _start(session, one)


async def _start(session: Session, container: str) -> None:
    await _tell(session, f'starting the container "{container}"', "StartContainer", container_id=container)
    print(container)


async def stop(session: Session) -> None:
    """Stops containers."""
    options, ids = session.options, session.words
    if options.on("all") and ids:
        raise UsageError("cannot specify CONTAINER-ID(s) when using --all")
    if options.on("all"):
        running = {"state": {"state": "CONTAINER_RUNNING"}}
        ids = [item["id"] for item in (await session.ask("ListContainers", filter=running))["containers"]]
        if not ids:
            print("No running containers found.")
    elif not ids:
        raise UsageError("you must specify at least one CONTAINER-ID or use --all")
    for one in ids:
        await _stop(session, one, options.number("timeout"))


async def _stop(session: Session, container: str, grace_s: int) -> None:
    doing, timeout_s = f'stopping the container "{container}"', REQUEST_S + grace_s
    await _tell(session, doing, "StopContainer", timeout_s, container_id=container, timeout=grace_s)
    print(container)


async def rm(session: Session) -> None:
    """Removes containers and their logs."""
    options, ids = session.options, session.words
    if options.on("all"):
        ids = [item["id"] for item in (await session.ask("ListContainers"))["containers"]]
    if not ids:
        _nothing(session, "containers")

    async def remove(one: str) -> None:
        doing = f'getting container status "{one}"'
        status = (await _tell(session, doing, "ContainerStatus", container_id=one))["status"]
        if status["state"] == "CONTAINER_RUNNING":
            if not options.on("force"):
                raise Failed(f'container "{one}" is running, please stop it first')
            await _stop(session, one, 0)
        await _tell(session, f'removing container "{one}"', "RemoveContainer", container_id=one)
        print(one)
        if status["log_path"] and not options.on("keep-logs"):
            _remove_logs(Path(status["log_path"]))

    await each(ids, remove)


def _remove_logs(path: Path) -> None:
    """A container's log with what was rotated away."""
    for one in (path, *path.parent.glob(f"{path.name}.*")):
        with contextlib.suppress(FileNotFoundError):
            one.unlink()


def _nothing(session: Session, what: str) -> None:
    if not session.options.on("all"):
        raise UsageError("name at least one ID, or use --all")
    complain("info", f"No {what} to remove", session.clock.now())


async def stopp(session: Session) -> None:
    """Stops pods."""
    for one in session.words:
        await _stop_pod(session, one)


async def _stop_pod(session: Session, pod: str) -> None:
    await _tell(session, f'stopping the pod sandbox "{pod}"', "StopPodSandbox", pod_sandbox_id=pod)
    print(f"Stopped sandbox {pod}")


async def rmp(session: Session) -> None:
    """Removes pods."""
    options, ids = session.options, session.words
    if options.on("all"):
        ids = [item["id"] for item in (await session.ask("ListPodSandbox"))["items"]]
    if not ids:
        _nothing(session, "pods")

    async def remove(one: str) -> None:
        doing = f'getting sandbox status of pod "{one}"'
        status = (await _tell(session, doing, "PodSandboxStatus", pod_sandbox_id=one))["status"]
        if status["state"] == "SANDBOX_READY":
            if not options.on("force"):
                raise Failed(f'pod sandbox "{one}" is running, please stop it first')
            await _stop_pod(session, one)
        await _tell(session, f'removing the pod sandbox "{one}"', "RemovePodSandbox", pod_sandbox_id=one)
        print(f"Removed sandbox {one}")

    await each(ids, remove)


# Flag of `update` -> field of LinuxContainerResources.
_RESOURCES = {
    "cpu-period": "cpu_period",
    "cpu-quota": "cpu_quota",
    "cpu-share": "cpu_shares",
    "memory": "memory_limit_in_bytes",
    "oom-score-adj": "oom_score_adj",
    "cpuset-cpus": "cpuset_cpus",
    "cpuset-mems": "cpuset_mems",
}


async def update(session: Session) -> None:
    """Changes the limits of running containers."""
    options = session.options
    linux = {
        field: options.text(flag) if flag.startswith("cpuset") else options.number(flag)
        for flag, field in _RESOURCES.items()
    }
    for one in session.words:
        doing = f'updating container resources for "{one}"'
        await _tell(session, doing, "UpdateContainerResources", container_id=one, linux=linux)
        print(one)


async def checkpoint(session: Session) -> None:
    """Writes the state of running containers into an archive."""
    location = session.options.text("export")
    if not location:
        raise UsageError(
            "cannot checkpoint a container without specifying the checkpoint destination: use --export=/path/to/it.tar"
        )
    for one in session.words:
        doing = f'checkpointing the container "{one}" failed'
        await _tell(session, doing, "CheckpointContainer", container_id=one, location=location)
        print(one)
