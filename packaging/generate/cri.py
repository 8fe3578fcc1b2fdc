"""Makes `src/k3s/kubelet/data/cri.json`: the messages of the runtime interface that kubelet and crictl speak.

Usage: `python packaging/generate/cri.py <protobuf-cri.json>`, where the argument is the full table of runtime.v1
(`enums`, `messages` as field -> [number, type, label], `services` as method -> [request, answer]).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "src" / "k3s" / "kubelet" / "data" / "cri.json"

RUNTIME = (
    "Version Status RunPodSandbox StopPodSandbox RemovePodSandbox PodSandboxStatus ListPodSandbox CreateContainer "
    "StartContainer StopContainer RemoveContainer ListContainers ContainerStatus UpdateContainerResources "
    "ReopenContainerLog ExecSync Exec Attach PortForward ContainerStats ListContainerStats ListPodSandboxStats "
    "UpdateRuntimeConfig GetContainerEvents RuntimeConfig CheckpointContainer"
)
IMAGES = "ListImages ImageStatus PullImage RemoveImage ImageFsInfo"
METHODS = {"RuntimeService": RUNTIME.split(), "ImageService": IMAGES.split()}


def reachable(table: dict[str, Any], roots: list[str]) -> tuple[set[str], set[str]]:
    """The messages and the enums that the root messages can contain."""
    messages: set[str] = set()
    enums: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in table["enums"]:
            enums.add(name)
        elif name in table["messages"] and name not in messages and not name.startswith("Windows"):
            messages.add(name)
            waiting += [field[1] for field in table["messages"][name].values()]
    return messages, enums


def main(source: Path) -> None:
    """Writes the compact table."""
    table = json.loads(source.read_text())
    # The one enum that is declared inside a message is referred to without the message's name.
    table["enums"] = {name.rpartition(".")[2]: values for name, values in table["enums"].items()}
    services = {s: {m: table["services"][s][m][:2] for m in methods} for s, methods in METHODS.items()}
    roots = [message for methods in services.values() for pair in methods.values() for message in pair]
    messages, enums = reachable(table, roots)
    keep = messages | enums | {"string", "bool", "bytes", "int32", "int64", "uint32", "uint64", "double"}
    compact = {
        "enums": {name: table["enums"][name] for name in sorted(enums)},
        "messages": {
            name: {
                field: row for field, row in table["messages"][name].items() if row[1] in keep or row[1][:4] == "map<"
            }
            for name in sorted(messages)
        },
        "services": services,
    }
    TARGET.write_text(json.dumps(compact, separators=(",", ":"), sort_keys=True) + "\n")
    print(f"{TARGET}: {len(messages)} messages, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
