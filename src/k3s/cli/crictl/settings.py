"""crictl's own settings: a YAML file, the command line and the environment, in upstream's names (crictl.yaml)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from k3s.api import yamltext
from k3s.base import files
from k3s.cli.crictl.flags import Options, UsageError

_PARSERS: dict[str, Callable[[str], object]] = {
    "str": str,
    "int": int,
    "bool": {"true": True, "false": False}.__getitem__,
}
SYSTEM_FILE = Path("/etc/crictl.yaml")
# Where runtimes listen when nobody says: ours, then those that upstream's client tries.
_SOCKETS = (
    "/run/k3s/containerd/containerd.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/var/run/cri-dockerd.sock",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the file can say. `timeout` is in seconds: how long the runtime may take to answer at first."""

    runtime_endpoint: str = ""
    image_endpoint: str = ""
    timeout: int = 0
    debug: bool = False
    pull_image_on_create: bool = False
    disable_pull_on_run: bool = False

    def items(self) -> list[tuple[str, Any]]:
        """Names as the file has them, with their values."""
        return [(_key(field.name), getattr(self, field.name)) for field in fields(self)]

    def changed(self, key: str, value: str) -> Settings:
        """With another value of a key, given as text. Raises UsageError."""
        field = next((field for field in fields(self) if _key(field.name) == key), None)
        if field is None:
            raise UsageError(f"no configuration option named {key}")
        try:
            parsed = _PARSERS[str(field.type)](value)
        except (ValueError, KeyError):
            raise UsageError(f"parse {key} value '{value}': invalid syntax") from None
        changed: Any = {field.name: parsed}
        return replace(self, **changed)


def _key(name: str) -> str:
    return name.replace("_", "-")


def file(options: Options, env: Mapping[str, str]) -> Path:
    """Where the settings are: what was asked for, else the node's own file, else the system's (spec 1.1)."""
    if given := options.text("config"):
        return Path(given)
    home = Path(env.get("HOME") or "/root")
    folders = [Path(env["K3S_DATA_DIR"])] if env.get("K3S_DATA_DIR") else []
    folders += [home / ".rancher/k3s", Path("/var/lib/rancher/k3s")]
    found = [path for folder in folders if os.access(path := folder / "agent/etc/crictl.yaml", os.R_OK)]
    return found[0] if found else SYSTEM_FILE


def read(path: Path) -> Settings:
    """The settings of a file; none when it is not there. Raises UsageError that names the file."""
    try:
        found = yamltext.load(path.read_bytes())
    except FileNotFoundError:
        return Settings()
    except (OSError, yamltext.BadYaml) as error:
        raise UsageError(f"load config file {path}: {error}") from None
    if found is None:
        return Settings()
    if not isinstance(found, dict):
        raise UsageError(f"load config file {path}: it is no map of options")
    settings = Settings()
    known = dict(settings.items())
    for key, value in found.items():
        # Upstream leaves out what it does not know, too: the file may be of a newer client.
        if key in known and value is not None:
            text = ("true" if value else "false") if isinstance(value, bool) else str(value)
            settings = settings.changed(key, text)
    return settings


def write(path: Path, settings: Settings) -> None:
    """Puts every option into the file."""

    def text(value: Any) -> str:
        return (
            ("true" if value else "false") if isinstance(value, bool) else f'"{value}"' if value == "" else str(value)
        )

    lines = [f"{key}: {text(value)}\n" for key, value in settings.items()]
    files.write(path, "".join(lines), 0o600)


def with_flags(settings: Settings, options: Options) -> Settings:
    """What the command line and the environment say goes before the file."""
    if options.given("runtime-endpoint"):
        settings = replace(settings, runtime_endpoint=options.text("runtime-endpoint"))
    if options.given("image-endpoint"):
        settings = replace(settings, image_endpoint=options.text("image-endpoint"))
    if options.given("timeout"):
        settings = replace(settings, timeout=int(options.seconds("timeout")))
    return replace(settings, debug=settings.debug or options.on("debug"))


def socket(endpoint: str) -> str:
    """The path of an endpoint's socket; of none given that of the first runtime that is there."""
    if endpoint:
        scheme, found, path = endpoint.partition("://")
        if found and scheme != "unix":
            raise UsageError(f'protocol "{scheme}" not supported: use unix:///path/of/the.sock')
        return path if found else endpoint
    return next((path for path in _SOCKETS if os.path.exists(path)), _SOCKETS[0])
