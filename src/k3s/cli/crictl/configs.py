"""The files that say what pod or container to make: messages of the runtime interface in JSON or YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from k3s.api import yamltext
from k3s.base.entropy import SystemEntropy
from k3s.cli.crictl.session import Failed
from k3s.kubelet.runtime.connection import table


def sandbox(path: str) -> dict[str, Any]:
    """The PodSandboxConfig of a file; a uid is made when it has none. Raises Failed that names the file."""
    config = load("PodSandboxConfig", path)
    meta = _metadata(config, path)
    if not meta.get("name") or not meta.get("namespace"):
        raise Failed(f"load podSandboxConfig: {path}: name or namespace is not in metadata")
    if not meta.get("uid"):
        config["metadata"] = {**meta, "uid": SystemEntropy().uid()}
    return config


def container(path: str) -> dict[str, Any]:
    """The ContainerConfig of a file. Raises Failed that names the file."""
    config = load("ContainerConfig", path)
    if not _metadata(config, path).get("name"):
        raise Failed(f"{path}: name is not in metadata")
    image = config.get("image") or {}
    if not image.get("image"):
        raise Failed(f"{path}: image.image is not set")
    config["image"] = {"user_specified_image": image["image"], **image}
    return config


def _metadata(config: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    if not config.get("metadata"):
        raise Failed(f"{path}: metadata is not set")
    found: Mapping[str, Any] = config["metadata"]
    return found


def load(message: str, path: str) -> dict[str, Any]:
    """The message in a file, `-` for the standard input. Raises Failed that names the file and the field."""
    try:
        with open(0 if path == "-" else os.path.expanduser(path), "rb", closefd=path != "-") as file:
            value = yamltext.load(file.read())
    except FileNotFoundError:
        raise Failed(f"config at {path} not found") from None
    except (OSError, yamltext.BadYaml) as error:
        raise Failed(f"{path}: {error}") from None
    try:
        return fitted(message, value)
    except ValueError as error:
        raise Failed(f"{path}: {error}") from None


def fitted(message: str, value: Any, at: str = "") -> dict[str, Any]:
    """A value with what the message has: enums may be given by number, as Go's own JSON has them; fields for other
    systems are left out. Raises ValueError that names the field."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{at or 'the document'} is no map")
    rows = table()["messages"][message]
    made: dict[str, Any] = {}
    for key, item in value.items():
        place = f"{at}.{key}" if at else key
        if key == "windows":
            continue
        if key not in rows:
            raise ValueError(f"unknown field {place}")
        kind, many = rows[key][1], len(rows[key]) > 2
        if item is None:
            continue
        if many:
            if not isinstance(item, list):
                raise ValueError(f"{place} is no list")
            made[key] = [_fitted(kind, each, f"{place}[{index}]") for index, each in enumerate(item)]
        else:
            made[key] = _fitted(kind, item, place)
    return made


_PYTHON = {"string": str, "bytes": str, "bool": bool, "double": float | int}


def _fitted(kind: str, value: Any, at: str) -> Any:
    if kind in table()["messages"]:
        return fitted(kind, value, at)
    if names := table()["enums"].get(kind):
        name = next((name for name, number in names.items() if value in (name, number)), None)
        if name is None:
            raise ValueError(f"{at} is none of {', '.join(sorted(names, key=names.__getitem__))}")
        return name
    wanted = _PYTHON.get(kind, Mapping if kind.startswith("map<") else int)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"{at} is not of type {kind}")
    return value
